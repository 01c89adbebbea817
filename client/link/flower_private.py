"""The hospital's only file that uses private names of Flower (1.41). ``test_flower_private.py`` is its contract.

It does what ``flwr-clientapp`` does for one message, with one important difference: the run's bundle, which comes from
outside, is discarded unread. It is not unpacked, and nothing is imported from it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

POLL_S = 1.0
_NO_RUN = 0
"""Makes the SuperNode's loop send waiting replies."""
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
CRASHED = int(ErrorCode.CLIENT_APP_CRASHED)
FAILED = int(ErrorCode.CLIENT_APP_RAISED_EXCEPTION)


class GatewayAway(Exception):
    """The gateway does not answer or does not accept us; the text says which."""


@dataclass(frozen=True)
class OrderHead:
    """What is needed to answer an order with an error: its metadata without its content."""

    head: bytes
    node: int
    ttl_s: float


class OrderAcquirer:
    """Polls the gateway for waiting orders.

    Args:
        address: ``host:port`` of the gateway, inside the hospital.
        secret: the gateway and we share it; without it nobody is given an order.
    """

    def __init__(self, address: str, secret: bytes) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE}),
            ],
        )

    def next(self) -> str | None:
        """The token of a waiting order, which is then ours to answer; ``None`` if none waits.

        Raises:
            GatewayAway
        """
        try:
            response = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        except (httpx.HTTPError, ValueError) as error:
            raise GatewayAway(str(error) or type(error).__name__) from error
        return str(response.token) or None


def answer(address: str, token: str, app: ClientApp, received: Callable[[OrderHead], None]) -> None:
    """Answer one order with the app that is installed here. Texts of errors stay here.

    Args:
        received: told of the order before the app sees it.
    """
    client = _client(address, token)
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    message, context, _, _ = pull_task_input(client)  # the last of them is the bundle
    head = message_to_proto(remove_content_from_message(message)).SerializeToString()
    received(OrderHead(head, context.node_id, message.metadata.ttl))
    try:
        reply = app(message, context)
    except BaseException as error:  # a panic in a Rust decoder is no Exception
        reply = Message(Error(FAILED, type(error).__name__), reply_to=message)
    push_message(client, reply, context)
    push_task_output(client, None, SubStatus.COMPLETED, "")
    heartbeat.stop()
    client.close()


def answer_for_the_dead(address: str, token: str, receipt: OrderHead) -> None:
    """Say that the process that had the order has died, which the server would otherwise learn after a minute.

    Raises:
        GatewayAway
    """
    message = message_from_proto(MessageProto.FromString(receipt.head))
    TaskIdentity.node_id, TaskIdentity.run_id, TaskIdentity.task_id = receipt.node, message.metadata.run_id, 1
    reply = Message(Error(CRASHED, "died"), reply_to=message)
    context = Context(message.metadata.run_id, receipt.node, {}, RecordDict(), {})
    client = _client(address, token)
    try:
        push_message(client, reply, context)
        push_task_output(client, None, SubStatus.FAILED, "died")
    except (httpx.HTTPError, ValueError, RunNotRunningException) as error:
        raise GatewayAway(str(error) or type(error).__name__) from error
    finally:
        client.close()


def supernode() -> None:
    """Flower's SuperNode, with its own command line and two fixes.

    When its connection breaks for good, as by a certificate that has expired, Flower's loop ends while a thread keeps
    the process: alive, and deaf. Here the process ends, and whoever looks after it starts it again.
    """
    from flwr.supernode import start_client_internal as loop
    from flwr.supernode.cli import flower_supernode

    loop._pull_and_store_message = mended(loop._pull_and_store_message)
    flower_supernode()
    print("the connection to the server is lost", file=sys.stderr, flush=True)
    os._exit(1)


def mended(pull: Callable[..., int | None]) -> Callable[..., int | None]:
    """Flower's function that polls for orders, every second instead of every three, also noticing waiting replies.

    Flower sends a reply only after it has received an order. When a run stops while an order of it is on its way, that
    order is answered all the same, its reply is sent in place of the next one's, and from then on every reply waits for
    an order that comes a deadline later. Here replies that wait are sent whenever no order has come.
    """

    def pull_or_push(state: InMemoryNodeState, **others: Any) -> int:
        while (run := pull(state=state, **others)) is None and not replies_wait(state):
            time.sleep(POLL_S)
        return _NO_RUN if run is None else run

    return pull_or_push


def replies_wait(state: InMemoryNodeState) -> bool:
    """Whether there is a reply that was not sent."""
    with state.lock_msg_store:
        entries = list(state.msg_store.values())
    return any(entry.message.metadata.reply_to_message_id and not entry.is_retrieved for entry in entries)


def _client(address: str, token: str) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            RuntimeTokenHttpInterceptor(token),
        ],
    )
