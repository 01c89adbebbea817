"""Private names of Flower (1.42): messages as bytes, the SuperLink, and its runs.

``test_flower_private.py`` is its contract.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
from flwr.app import Message
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import TASK_TOKEN_HEADER, NodeStatus, TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from server.runtime.flower_replies import one_at_a_time, survive_bad_replies
from tasks.machine.heartbeat import steady

__all__ = ["Deflated", "Run", "claim_identity", "deflate", "deflate_all", "inflate"]

Deflated = tuple[str, dict[str, bytes]]
"""A message in transit: its object id, and the content of every object in it by object id."""


_PRAGMAS = {"busy_timeout": "120000", "cache_size": "-4000", "mmap_size": "0"}
_PATIENCE_S = 120.0


def superlink() -> None:
    """Be ``flower-superlink``, with the arguments of the command line, and with a patient, slender database."""
    from flwr.superlink.cli import flower_superlink

    patient_database()
    flower_superlink()


def patient_database() -> None:
    """Let the SuperLink's database wait for its turn, and hold in memory what is in use.

    Flower's own gives up after five seconds, and a connection is waited for thirty: of sixteen hospitals that answered
    at the same moment on two busy cores one got an error. Each of its fifteen connections may keep 64 MB of pages and
    map 256 MB of the file, though what hospitals send is written once and read once.
    """
    from flwr.supercore import sql_mixin

    names = vars(sql_mixin)
    ours = [(name, _PRAGMAS.get(name, value)) for name, value in names["SQLITE_PRAGMAS"]]
    made = names["create_engine"]

    def create_engine(url: str, **given: Any) -> Any:
        return made(url, **given) if "poolclass" in given else made(url, pool_timeout=_PATIENCE_S, **given)

    names.update(SQLITE_PRAGMAS=tuple(ours), create_engine=create_engine)


def claim_identity() -> None:
    """Give this process the identity without which Flower refuses to make messages."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


def deflate(message: Message) -> Deflated:
    """Serialise with Flower's own wire format, as SuperLink and SuperNode do."""
    return deflate_all([message])[0]


def deflate_all(messages: Iterable[Message]) -> list[Deflated]:
    """Serialise several; content that they share is hashed once."""
    with no_object_id_recompute():
        return [
            (message.object_id, {name: part.deflate() for name, part in get_all_nested_objects(message).items()})
            for message in messages
        ]


def inflate(deflated: Deflated) -> Message:
    """The inverse of ``deflate``; the message has the id under which it was sent."""
    object_id, contents = deflated
    message = cast(Message, inflate_object_from_contents(object_id, dict(contents)))
    message.metadata.__dict__["_message_id"] = object_id
    return message


# --- the SuperLink: its Control API, and runs as its ServerApp processes run them ---
# What brings in a web framework is imported where it is used: the embedded runtime starts half a second sooner.

BUNDLE = """[project]
name = "consilium"
version = "1.0.0"
[tool.flwr.app]
publisher = "consilium"
[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"
[tool.flwr.app.config]
study = ""
"""
"""Everything in a run's bundle. Neither server nor hospitals import anything from a bundle, whatever it holds."""

ONLINE = "online"
"""Status of a node whose heartbeats arrive."""
STOPPED = SubStatus.STOPPED
"""How a run has ended that somebody has stopped."""
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


class ControlRefused(Exception):
    """The SuperLink refused, or did not answer; the text says which.

    Attributes:
        code: Flower's number of the refusal; ``None`` if it did not answer.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class RunStatus:
    """The SuperLink's own words about a run."""

    status: str
    sub_status: str
    details: str

    @property
    def live(self) -> bool:
        return self.status != "finished"


@dataclass(frozen=True)
class Node:
    """A key that the SuperLink knows: the node's number, the public key (PEM), and whether it may take part."""

    number: int
    key: bytes
    admitted: bool


class Control:
    """The Control API.

    Args:
        address: ``host:port`` of the SuperLink itself, or of the researchers' endpoint.
        authority: PEM file of the authority that its certificate comes from.
        certificate: PEM file with a researcher's key and certificate, for the endpoint.
    """

    def __init__(self, address: str, authority: Path, certificate: Path | None = None) -> None:
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        context = ssl.create_default_context(cafile=str(authority))
        if certificate is not None:
            context.load_cert_chain(str(certificate))
        interceptors = [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
        self._client = ControlHttpClient(f"https://{address}", interceptors=interceptors, verify=context)

    def start(self, study: str) -> int:
        """Start a run of the study that a text describes. Returns the run's number.

        Raises:
            Refused: as do all methods.
        """
        from flwr.cli.build import build_fab_from_files

        content, _ = build_fab_from_files({"pyproject.toml": BUNDLE.encode(), "README.md": b"Nothing is here.\n"})
        fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
        override = user_config_to_proto({"study": study})
        with _refusals():
            response = self._client.StartRun(StartRunRequest(fab=fab, override_config=override))
        if not response.HasField("run_id"):
            raise ControlRefused("the SuperLink accepted the run but gave it no number; see its log")
        return int(response.run_id)

    def runs(self, most: int = 100) -> dict[int, RunStatus]:
        """The newest runs, by number."""
        with _refusals():
            found = self._client.ListRuns(ListRunsRequest(limit=most)).run_dict
        return {int(number): _status(run) for number, run in found.items()}

    def run(self, number: int) -> RunStatus:
        """One run."""
        with _refusals():
            return _status(self._client.ListRuns(ListRunsRequest(run_id=number)).run_dict[number])

    def find(self, number: int) -> RunStatus | None:
        """One run; ``None`` if the SuperLink does not know it, or not any more."""
        from flwr.supercore.error import ApiErrorCode

        try:
            return self.run(number)
        except ControlRefused as error:
            if error.code == ApiErrorCode.RUN_ID_NOT_FOUND:
                return None
            raise

    def text(self, number: int) -> str:
        """The text with which a run was started."""
        with _refusals():
            run = run_from_proto(self._client.ListRuns(ListRunsRequest(run_id=number)).run_dict[number])
        return str(run.override_config.get("study", ""))

    def stop(self, number: int) -> None:
        """Stop a run; its process learns of it at its next call."""
        with _refusals():
            self._client.StopRun(StopRunRequest(run_id=number))

    def register(self, public_key: bytes) -> int:
        """Let the holder of a public key (PEM) take part. Returns the node's number."""
        with _refusals():
            return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public_key)).node_id)

    def unregister(self, node: int) -> None:
        """End a node's participation."""
        with _refusals():
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node))

    def nodes(self) -> dict[int, str]:
        """Status of every node that is registered: ``registered`` (never seen), ``online``, ``offline``."""
        with _refusals():
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {int(node.node_id): str(node.status) for node in found}

    def known_keys(self) -> list[Node]:
        """Every key that was ever registered; the SuperLink never accepts one twice."""
        with _refusals():
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [Node(int(one.node_id), bytes(one.public_key), one.status != NodeStatus.UNREGISTERED) for one in found]


def _status(run: Any) -> RunStatus:
    return RunStatus(run.status.status, run.status.sub_status, run.status.details)


@contextmanager
def _refusals() -> Iterator[None]:
    from flwr.supercore.error import FlowerError

    try:
        yield
    except httpx.HTTPStatusError as error:
        answer = FlowerError.from_json(error.response.text)
        reason = answer.public_details or answer.message if answer else f"HTTP {error.response.status_code}"
        raise ControlRefused(reason, int(answer.code) if answer else None) from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise ControlRefused(str(error) or type(error).__name__) from error


class RunAcquirer:
    """Asks the SuperLink for pending runs, as Flower's SuperExec does, and keeps those that it was given."""

    def __init__(self, address: str, authority: Path, secret: bytes) -> None:
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor

        self._address, self._authority = address, str(authority)
        self._client = self._connected(
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE}),
        )
        self._token = _Token()
        self._keeping = self._connected(RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"), self._token)

    def _connected(self, *interceptors: Any) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=False,
            root_certificates=self._authority,
            interceptors=list(interceptors),
        )

    def next(self) -> tuple[int, str] | None:
        """Number and token of a pending run, which from now on is ours to run; ``None`` if there is none.

        Raises:
            Refused
        """
        with _refusals():
            response = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
        return (int(response.task.run_id), str(response.token)) if response.token else None

    def keep(self, token: str) -> bool:
        """Renew our claim to a run, which ends 30 s after it was given to us and 60 s after the last renewal. Returns
        whether it is still ours. For one thread.

        Raises:
            Refused: it cannot be known now.
        """
        from flwr.supercore.error import ApiErrorCode

        self._token.value = token
        try:
            with _refusals():
                return bool(self._keeping.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)
        except ControlRefused as error:
            if error.code == ApiErrorCode.RUNTIME_AUTHENTICATION_FAILED:
                return False
            raise


class _Token:
    """Adds the token of the run that is kept at the moment."""

    def __init__(self) -> None:
        self.value = ""

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        context.request.headers[TASK_TOKEN_HEADER] = self.value
        return call_next(context)


PlayStudy = Callable[[Grid, int, str], None]


def play(address: str, authority: Path, token: str, play_study: PlayStudy) -> None:
    """Run one run: what ``flwr-serverapp`` does, except that the bundle is not even unpacked.

    Raises:
        Exception: what ``play_study`` raises; the SuperLink is told that the run has failed.
    """
    from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
    from flwr.superlink.grid import http_grid

    grid = http_grid.HttpGrid(address, False, authority.read_bytes(), token=token)
    client = grid._runtime_client
    one_at_a_time(grid)
    survive_bad_replies(http_grid, client)
    heartbeat = HeartbeatSender(steady(make_task_heartbeat_fn_http(client)))
    heartbeat.start()
    outcome, details = SubStatus.FAILED, "The study's process ended."
    try:
        given = client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        run = run_from_proto(given.run)
        grid.set_run(run)
        play_study(grid, run.run_id, str(run.override_config.get("study", "")))
        outcome, details = SubStatus.COMPLETED, ""
    except Exception as error:
        details = f"{type(error).__name__}: {error}"
        raise
    finally:
        grid._retry_invoker.max_tries = 1
        with suppress(httpx.HTTPError, RunNotRunningException):
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=outcome, details=details))
        if heartbeat.is_running:
            heartbeat.stop()
        grid.close()
