"""Private names of Flower (1.42) that the trainer needs. ``test_flower_trainer.py`` is its contract.

It does what ``flwr-clientapp`` does for one message, with one important difference: the run's bundle, which comes from
outside, is discarded unread. It is not unpacked, and nothing is imported from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from tasks.machine.heartbeat import steady

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
    heartbeat = HeartbeatSender(steady(make_task_heartbeat_fn_http(client)))
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
