"""Private names of Flower (1.42) for replies on their way to a study: one at a time, whole, each from who was asked.

``test_flower_replies.py`` is its contract.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.task_identity import TaskIdentity

_FETCHES = 2
"""So many objects of a reply are fetched at once, as Flower does."""
_PAUSE_S, _PAUSE_FACTOR = 1.0, 2.0
"""A reply that was not whole is looked at again after so long at least, and after so many times what looking took."""


def one_at_a_time(grid: Any) -> None:
    """Let each pull of Flower's grid bring one reply that is whole, and wait for none.

    Flower's grid inflates every reply that is there before it returns: of a hundred hospitals that answer at once, a
    hundred models would be in memory. It waits for each until its last object has come: one hospital that stops sending
    in the middle, or sends a byte a minute, would keep the answers of all others from the study for minutes.

    Args:
        grid: Flower's, which is changed.
    """
    client, inbox = grid._runtime_client, _Inbox(grid)
    client.PullMessages, client.PullObject = inbox.pull_messages, inbox.pull_object


class _Inbox:
    """Replies of which the SuperLink has told, and the objects of the one that is given next."""

    def __init__(self, grid: Any) -> None:
        self._grid = grid
        self._ask: Callable[[PullAppMessagesRequest], PullAppMessagesResponse] = grid._runtime_client.PullMessages
        self._fetch: Callable[[PullObjectRequest], PullObjectResponse] = grid._runtime_client.PullObject
        self._there: dict[str, tuple[Any, ObjectTree]] = {}
        self._again: dict[str, float] = {}
        self._contents: dict[str, bytes] = {}
        self._lost: set[str] = set()

    def pull_messages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:
        """What is whole first, in the order in which it is asked for; nothing if nothing is."""
        found = self._first_whole(request.message_ids)
        # The SuperLink tells of a reply once. Asked again, it says that there is none.
        unknown = [order for order in request.message_ids if order not in self._there]
        if found is None and unknown:
            response = self._ask(PullAppMessagesRequest(message_ids=unknown))
            for one, tree in zip(response.messages_list, response.message_object_trees, strict=True):
                self._there[one.metadata.reply_to_message_id] = (one, tree)
            found = self._first_whole(request.message_ids)
        if found is None:
            return PullAppMessagesResponse()
        self._again.pop(found, None)
        one, tree = self._there.pop(found)
        return PullAppMessagesResponse(messages_list=[one], message_object_trees=[tree])

    def pull_object(self, request: PullObjectRequest) -> PullObjectResponse:
        """An object of the reply that was given last."""
        if request.object_id in self._lost:
            return PullObjectResponse(object_found=False)
        content = self._contents.pop(request.object_id, None)
        if content is None:
            return self._fetch(request)
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def _first_whole(self, orders: Iterable[str]) -> str | None:
        now = time.monotonic()
        for order in orders:
            if order not in self._there or self._again.get(order, now) > now:
                continue
            if self._is_whole(order):
                return order
            if self._has_left(order):
                if not self._is_whole(order):  # nor has the rest come in between
                    self._lost = set(self._objects(order))
                return order
        return None

    def _has_left(self, order: str) -> bool:
        """Whether the sender of a reply is not there any more, so that what has not come will not come. Who is in the
        middle of sending does not go for a moment: a gateway that starts again has lost its reply."""
        return self._there[order][0].metadata.src_node_id not in set(self._grid.get_node_ids())

    def _is_whole(self, order: str) -> bool:
        """Whether all objects of a reply have come; then they are kept for the next pull. Senders push the outermost
        last, so that what is still on its way is mostly known by a few bytes."""
        started = time.monotonic()
        *inner, outermost = self._objects(order)
        found = [self._object(outermost)]
        if found[0] is not None:
            with ThreadPoolExecutor(_FETCHES) as pool:
                found += pool.map(self._object, inner)
        if None in found:
            ended = time.monotonic()
            self._again[order] = ended + max(_PAUSE_S, _PAUSE_FACTOR * (ended - started))
            return False
        contents = zip([outermost, *inner], found, strict=True)
        self._contents, self._lost = {name: content for name, content in contents if content}, set()
        return True

    def _objects(self, order: str) -> list[str]:
        return [part.object_id for part in iterate_object_tree(self._there[order][1])]

    def _object(self, name: str) -> bytes | None:
        """The content of an object; ``None`` while it has not come, ``b""`` if it is gone and will not come."""
        run = self._grid.run.run_id
        answer = self._fetch(PullObjectRequest(node=self._grid.node, run_id=run, object_id=name))
        if not answer.object_found:
            return b""
        return bytes(answer.object_content) if answer.object_available else None


def survive_bad_replies(module: Any, client: Any) -> None:
    """Turn a reply that cannot be inflated, or that answers another order than the SuperLink takes it for, into its
    sender's error. Flower inflates what hospitals push without catching errors: one of them would end every study.

    Args:
        module: the one that inflates, which is changed.
        client: pulls messages for it, and is changed.
    """
    orders: dict[str, str] = {}
    pull, inflate_contents = client.PullMessages, module.inflate_object_from_contents

    def pulled(request: Any) -> Any:
        response = pull(request)
        orders.clear()
        orders.update({one.metadata.message_id: one.metadata.reply_to_message_id for one in response.messages_list})
        return response

    def inflated(object_id: str, contents: dict[str, bytes]) -> Any:
        try:
            message = inflate_contents(object_id, contents)
            if isinstance(message, Message) and message.metadata.reply_to_message_id == orders[object_id]:
                return message
        except Exception:  # whatever the bytes provoke
            pass
        finally:
            contents.clear()  # otherwise they stay beside the message that was made of them until that is used up
        return unavailable(0, orders.get(object_id, ""))

    client.PullMessages, module.inflate_object_from_contents = pulled, inflated


def unavailable(node: int, message_id: str) -> Message:
    """The error with which Flower answers for a node that does not take part."""
    about = Metadata(
        run_id=TaskIdentity.run_id or 0,
        message_id="",
        src_node_id=node,
        dst_node_id=SUPERLINK_NODE_ID,
        message_type="system",
        group_id="",
        ttl=0,
        reply_to_message_id=message_id,
        created_at=time.time(),
    )
    return make_message(metadata=about, error=Error(ErrorCode.NODE_UNAVAILABLE, "not there"))
