"""The contract with what Flower does not promise about replies: one at a time, whole, each from who was asked."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import Metadata as MetadataProto
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.superlink.grid import http_grid
from flwr.supernode import start_client_internal

from server.runtime import flower_replies
from server.runtime.flower_private import claim_identity, deflate, inflate
from server.runtime.flower_replies import one_at_a_time, survive_bad_replies


def order() -> Message:
    claim_identity()
    return inflate(deflate(Message(RecordDict(), 1, "train")))


def test_a_reply_that_cannot_be_inflated_or_answers_for_somebody_else_is_its_senders_error() -> None:
    """The wrong version, Flower's own, raises out of the pull, and the other replies of it are lost with it."""
    asked = order()
    good, contents = deflate(Message(RecordDict(), reply_to=asked))
    told = [SimpleNamespace(metadata=SimpleNamespace(message_id=good, reply_to_message_id=asked.metadata.message_id))]
    client = SimpleNamespace(PullMessages=lambda request: SimpleNamespace(messages_list=told))
    module = SimpleNamespace(inflate_object_from_contents=inflate_object_from_contents)
    survive_bad_replies(module, client)
    client.PullMessages(None)
    assert not module.inflate_object_from_contents(good, dict(contents)).has_error()
    spoilt = dict.fromkeys(contents, b"")
    for objects in ({}, spoilt, {good: b"\x00" * 40}, {good: contents[good][:-3]}):
        reply = module.inflate_object_from_contents(good, objects)
        assert reply.has_error()
        assert reply.metadata.reply_to_message_id == asked.metadata.message_id
    told[0].metadata.reply_to_message_id = "another hospital's order"
    client.PullMessages(None)
    assert module.inflate_object_from_contents(good, dict(contents)).has_error()


class SuperLink:
    """What it says of replies, and their objects: a tree ``X`` with the arrays ``X1`` and ``X2``.

    Attributes:
        arrived: replies of which it has not told.
        missing: objects that have not come yet.
        gone: objects that it has deleted.
        there: senders that are online.
    """

    def __init__(self, *arrived: str) -> None:
        self.arrived, self.missing, self.gone, self.there = list(arrived), set[str](), set[str](), {7}
        self.asked, self.fetched, self.told = list[list[str]](), list[str](), set[str]()

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802  # Flower's names
        assert not self.told & set(request.message_ids), "it would say that there is no such reply"
        self.asked.append(list(request.message_ids))
        there = [name for name in self.arrived if name in request.message_ids]
        self.told |= set(there)
        self.arrived = [name for name in self.arrived if name not in there]
        return PullAppMessagesResponse(
            messages_list=[
                MessageProto(metadata=MetadataProto(reply_to_message_id=name, src_node_id=7)) for name in there
            ],
            message_object_trees=[
                ObjectTree(object_id=name, children=[ObjectTree(object_id=f"{name}{n}") for n in (1, 2)])
                for name in there
            ],
        )

    def online(self) -> set[int]:
        return self.there

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802
        self.fetched.append(request.object_id)
        found, available = request.object_id not in self.gone, request.object_id not in self.missing
        content = request.object_id.encode() * (found and available)
        return PullObjectResponse(object_found=found, object_available=found and available, object_content=content)


def pulling(superlink: SuperLink) -> Any:
    """Pulls replies by their orders. Gives the names of those that came, and of the objects that could be read."""
    client = SimpleNamespace(PullMessages=superlink.PullMessages, PullObject=superlink.PullObject)
    grid = SimpleNamespace(node=Node(node_id=1), run=SimpleNamespace(run_id=1), get_node_ids=lambda: superlink.online())
    grid._runtime_client = client
    one_at_a_time(grid)

    def pulled(*names: str) -> list[str]:
        response = client.PullMessages(PullAppMessagesRequest(message_ids=names))
        found = [one.metadata.reply_to_message_id for one in response.messages_list]
        for name in (part for order in found for part in (f"{order}1", f"{order}2", order)):
            read = client.PullObject(PullObjectRequest(object_id=name))
            if not read.object_found:
                return [f"{one}, lost" for one in found]
            assert read.object_content == name.encode()
        return found

    return pulled


def test_each_pull_brings_one_reply_in_the_order_in_which_they_are_asked_for() -> None:
    """What has arrived is kept as the few bytes that the SuperLink says of it; nothing is asked of it meanwhile."""
    superlink = SuperLink("a", "b", "c")
    pulled = pulling(superlink)
    assert pulled("c", "a", "b", "d") == ["c"]
    assert pulled("a", "b", "d") == ["a"]
    assert len(superlink.asked) == 1
    assert pulled("d") == []  # "b" waits, and is not what is asked for
    superlink.arrived = ["d"]
    assert pulled("d", "b") == ["b"]
    assert pulled("d") == ["d"]
    assert superlink.asked == [["c", "a", "b", "d"], ["d"], ["d"]]
    assert sorted(superlink.fetched) == sorted(name for one in "cabd" for name in (one, f"{one}1", f"{one}2")), "once"


def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again without a pause."""
    monkeypatch.setattr(flower_replies, "_PAUSE_S", 0.0)
    monkeypatch.setattr(flower_replies, "_PAUSE_FACTOR", 0.0)


@pytest.mark.parametrize("missing", ["a", "a1", "a2"])
def test_a_reply_that_has_not_come_whole_keeps_nobody_s_from_the_study(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's own waits for it, for minutes, and as long as its sender likes if a byte comes now and then."""
    at_once(monkeypatch)
    superlink = SuperLink("a", "b")
    superlink.missing = {missing}
    pulled = pulling(superlink)
    assert pulled("a", "b") == ["b"]
    superlink.arrived = ["c"]
    assert pulled("a", "c") == ["c"], "the SuperLink is asked for others as before"
    superlink.arrived = []
    assert pulled("a") == []
    superlink.missing = set()
    assert pulled("a") == ["a"]


def test_a_reply_that_is_on_its_way_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    superlink = SuperLink("a")
    superlink.missing = {"a"}
    pulled = pulling(superlink)
    assert pulled("a") == []
    superlink.arrived = []
    for _ in range(5):
        assert pulled("a") == []
    assert superlink.fetched == ["a"], "a few bytes, and nothing more for a while"
    monkeypatch.setattr(flower_replies.time, "monotonic", lambda now=flower_replies.time.monotonic: now() + 60)
    superlink.missing = set()
    assert pulled("a") == ["a"]


def test_the_rest_of_a_reply_is_not_waited_for_once_its_sender_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)
    superlink = SuperLink("a", "b")
    superlink.missing = {"a2", "b2"}
    pulled = pulling(superlink)
    assert pulled("a", "b") == []
    superlink.there = set()
    assert pulled("a") == ["a, lost"], "Flower makes an error of it"

    def there() -> set[int]:
        superlink.missing = set()
        return set()

    monkeypatch.setattr(superlink, "online", there)
    assert pulled("b") == ["b"], "the rest had come before it left"


def test_objects_that_are_gone_are_not_waited_for() -> None:
    superlink = SuperLink("a", "b")
    superlink.gone = {"a1", "a2"}
    pulled = pulling(superlink)
    assert pulled("a", "b") == ["a, lost"], "Flower makes an error of it"
    assert pulled("b") == ["b"]


def test_flower_s_own_grid_gives_what_is_whole_and_an_error_for_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid itself; only the SuperLink behind it is ours."""
    asked = order()
    reply = Message(RecordDict(), reply_to=asked)
    name, contents = deflate(reply)
    reply.metadata.__dict__["_message_id"] = name
    gone, late = set[str](), set[str]()

    def fetched(request: PullObjectRequest) -> PullObjectResponse:
        there = request.object_id not in late
        content = contents[request.object_id] if there else b""
        found = request.object_id not in gone
        return PullObjectResponse(object_found=found, object_available=there, object_content=content)

    told = PullAppMessagesResponse(
        messages_list=[message_to_proto(head(reply))], message_object_trees=[get_object_tree(reply)]
    )
    online = SimpleNamespace(nodes=[Node(node_id=reply.metadata.src_node_id)])
    client = SimpleNamespace(
        PullMessages=lambda request: told if request.message_ids else None,
        GetNodes=lambda _: online,
        PullObject=fetched,
        ConfirmMessageReceived=lambda _: None,
        close=lambda: None,
    )
    grid = http_grid.HttpGrid("127.0.0.1:1", True, token="a token")
    grid._client = client  # type: ignore[assignment]
    grid.set_run(Run.create_empty(1))
    one_at_a_time(grid)
    at_once(monkeypatch)
    late = set(contents)
    assert list(grid.pull_messages([asked.metadata.message_id])) == []
    late = set()
    (whole,) = grid.pull_messages([asked.metadata.message_id])
    assert not whole.has_error()
    gone = {name}
    (error,) = grid.pull_messages([asked.metadata.message_id])
    assert error.has_error()
    assert error.metadata.reply_to_message_id == asked.metadata.message_id


def head(message: Message) -> Message:
    """A message without its content, as it is told of."""
    from flwr.app.message import remove_content_from_message

    return remove_content_from_message(message)


def test_a_sender_pushes_the_outermost_object_last() -> None:
    source = inspect.getsource(start_client_internal._push_messages)
    assert "for tree in iterate_object_tree(_obj_tree):" in source
    inner = ObjectTree(object_id="inner")
    names = [one.object_id for one in flower_replies.iterate_object_tree(ObjectTree(object_id="o", children=[inner]))]
    assert names == ["inner", "o"]
