"""The gateway's contract with what Flower does not promise: when a name is gone, nothing runs."""

from __future__ import annotations

import inspect
import ssl
import subprocess
import sys
import threading
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from client.link import flower_gateway
from tasks.machine.pulse import SILENT
from tests.client.link.names import started_without


def test_the_version_is_the_one_that_was_tested() -> None:
    assert version("flwr").startswith("1.42."), "read these tests again, then change client/link/flower_gateway.py"


def test_without_any_one_of_its_names_the_gateway_does_not_start() -> None:
    started_without(flower_gateway, "client.link.supernode", 3)


def test_the_gateway_starts_no_program_of_its_own_in_process_isolation() -> None:
    """So nobody but our trainer can answer for the hospital."""
    source = inspect.getsource(start_client_internal.start_client_internal)
    start = source.index("if isolation == ISOLATION_MODE_SUBPROCESS:\n        runtime_address")
    assert source.count("subprocess.Popen(") == 1
    assert source.index("subprocess.Popen(") > start


def test_a_reply_that_waits_is_sent_although_no_order_has_come(
    ear: flower_gateway.Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's own loop would leave it until the next order. With its real state."""
    from server.runtime.flower_private import claim_identity

    claim_identity()
    state = InMemoryNodeState(ObjectStoreFactory().store())
    order = Message(RecordDict(), 1, "train")
    order.metadata.__dict__["_message_id"] = order.object_id
    reply = Message(RecordDict(), reply_to=order)
    reply.metadata.__dict__["_message_id"] = reply.object_id

    asked: list[int] = []

    def pull(**_: object) -> int | None:
        """No order comes; the second time there is a reply, and when that was sent, an order."""
        asked.append(1)
        if len(asked) == 2:
            state.store_message(order)
            state.store_message(reply)
        return 7 if len(asked) == 4 else None

    monkeypatch.setattr(flower_gateway, "POLL_S", 0.0)
    mended = flower_gateway.mended(pull, ear)
    assert mended(state=state, receive=None) == 0
    assert len(asked) == 2
    state.get_messages_legacy(is_reply=True)  # as sending does
    assert mended(state=state, receive=None) == 7


def test_a_gateway_whose_loop_has_ended_ends() -> None:
    """Flower's leaves a thread that keeps the process alive and deaf."""
    program = """
import threading, time
import flwr.supernode.cli as cli
def lost():
    threading.Thread(target=time.sleep, args=(600,)).start()
cli.flower_supernode = lost
from client.link.flower_gateway import supernode
supernode()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "is lost" in ended.stderr


def test_the_loop_sends_what_waits_whenever_pulling_gives_a_run() -> None:
    source = inspect.getsource(start_client_internal.start_client_internal)
    assert "run_id = _pull_and_store_message(\n                state=state," in source
    assert source.index("if run_id is None:") < source.index("_push_messages(")


def test_the_gateway_knows_the_options_that_it_is_given() -> None:
    words = [sys.executable, "-m", "client.link.supernode", "--help"]
    known = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    for option in (
        "--superlink",
        "--root-certificates",
        "--auth-supernode-private-key",
        "--isolation",
        "--superexec-auth-secret-file",
        "--host",
        "--port",
    ):
        assert option in known


def refusing(status: int, text: str = "") -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://server/v1/fleet/x")
    return httpx.HTTPStatusError(
        "refused", request=request, response=httpx.Response(status, text=text, request=request)
    )


class Scripted:
    """Flower's client, whose calls do what the script says."""

    def __init__(self, *script: object) -> None:
        self.script = list(script)

    def _unary_unary(self, **_: object) -> object:
        return self._next()

    def SendNodeHeartbeat(self, request: object) -> object:  # noqa: N802  # names of Flower's
        return self._unary_unary(path="/v1/fleet/send-node-heartbeat")

    def ActivateNode(self, request: object) -> object:  # noqa: N802
        return self._unary_unary(path="/v1/fleet/activate-node")

    def DeactivateNode(self, request: object) -> object:  # noqa: N802
        return self._unary_unary(path="/v1/fleet/deactivate-node")

    def PullMessages(self, request: object) -> object:  # noqa: N802
        return self._unary_unary(path="/v1/fleet/pull-messages")

    def PushObject(self, request: object) -> object:  # noqa: N802
        return self._unary_unary(path="/v1/fleet/push-object")

    def PushMessages(self, request: object) -> object:  # noqa: N802
        return self._unary_unary(path="/v1/fleet/push-messages")

    def _next(self) -> object:
        one = self.script.pop(0)
        if isinstance(one, Exception):
            raise one
        return one


class Ended(BaseException):
    """In place of the process's end."""


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> flower_gateway.Ear:
    def end(text: str) -> None:
        raise Ended(text)

    monkeypatch.setattr(flower_gateway, "_end", end)
    monkeypatch.setattr(flower_gateway, "AGAIN_S", 0.0)
    monkeypatch.setattr(flower_gateway, "AWAY_S", 0.0)
    return flower_gateway.Ear(SILENT)


def client(ear: flower_gateway.Ear, *script: object) -> Any:
    return flower_gateway.listening(Scripted, ear)(*script)  # type: ignore[arg-type]


WELL, UNKNOWN = SimpleNamespace(success=True), SimpleNamespace(success=False)


@pytest.mark.parametrize(
    "bad",
    [
        *(refusing(status, "<html>") for status in (400, 403, 404, 412, 429, 500, 502, 503, 504)),
        httpx.ReadTimeout("slow"),
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("cut"),
        httpx.DecodingError("no gzip"),
        ValueError("Invalid protobuf response payload"),
        UNKNOWN,
    ],
    ids=repr,
)
def test_a_heartbeat_goes_on_whatever_the_answer(ear: flower_gateway.Ear, bad: object) -> None:
    """Flower's thread, the real one: it tries again after the error that ours raises, and dies of any other."""
    calls, script = client(ear, bad, WELL), threading.Event()

    def beat() -> bool:
        try:
            calls.SendNodeHeartbeat(None)
        except httpx.TransportError:  # as ``fleet_http_connection`` does
            return False
        script.set()
        return True

    ear.deaf_s = 30.0
    sender = HeartbeatSender(beat)
    sender.start()
    assert script.wait(30)
    assert sender.is_running
    sender.stop()
    assert ear.deaf_s == 0.0


def test_flower_tries_a_heartbeat_again_after_what_ours_raises() -> None:
    source = inspect.getsource(fleet_http_connection.http_request_response)
    assert "except httpx.TransportError:\n                return False" in source
    assert issubclass(httpx.ReadError, httpx.TransportError)
    assert "FleetHttpClient.from_server_address(" in source


def test_who_is_not_heard_for_a_minute_ends_and_says_why(
    ear: flower_gateway.Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_gateway, "_TICK_S", 0.001)
    monkeypatch.setattr(flower_gateway, "DEAF_S", 0.05)
    with pytest.raises(httpx.ReadError):
        client(ear, refusing(500, '{"code": 1, "detail": "database or disk is full"}')).SendNodeHeartbeat(None)
    with pytest.raises(Ended, match=r"not heard by the server for 0.05 s \(HTTP 500, database or disk is full\)"):
        flower_gateway.watch(ear, SILENT)


def test_who_is_not_let_in_asks_again(ear: flower_gateway.Ear, capsys: pytest.CaptureFixture[str]) -> None:
    answers = (refusing(412, '{"code": 2004, "detail": "Failed to activate SuperNode."}'), refusing(500), refusing(401))
    joined = SimpleNamespace(node_id=7)
    assert client(ear, *answers, joined, WELL, refusing(503), joined).ActivateNode(None) is joined
    told = capsys.readouterr().err
    assert "HTTP 412, Failed to activate SuperNode." in told
    assert "acknowledges this hospital's heartbeats" in told


def test_orders_of_an_earlier_process_are_not_waited_for(ear: flower_gateway.Ear) -> None:
    """Flower's own list of nodes: what was sent to one that has been offline since is answered with an error."""
    first, second = SimpleNamespace(node_id=7), SimpleNamespace(node_id=7)
    made = client(ear, first, WELL, second)
    calls = called(made)
    assert made.ActivateNode(None) is second
    assert calls == ["activate-node", "deactivate-node", "activate-node"]
    assert client(ear, first, refusing(412), second).ActivateNode(None) is second, "whatever became of the call"


def called(made: Any) -> list[str]:
    """Names of the calls that are made from now on."""
    calls, unary = list[str](), made._unary_unary
    made._unary_unary = lambda **call: (calls.append(call["path"].rpartition("/")[2]), unary(**call))[1]
    return calls


JOINED = SimpleNamespace(node_id=7)
NOTHING, ORDER = SimpleNamespace(messages_list=[]), SimpleNamespace(messages_list=["an order"])
ASK = SimpleNamespace(node=SimpleNamespace(node_id=7))


@pytest.mark.parametrize(("bad", "lost"), [
    (httpx.ReadError("reset"), True),
    (httpx.ReadTimeout("slow"), True),
    (httpx.RemoteProtocolError("cut"), True),
    (httpx.DecodingError("no gzip"), True),
    (ValueError("Invalid protobuf response payload"), True),
    (refusing(502), True),
    (refusing(504), True),
    (httpx.ConnectError("refused"), False),
    (httpx.ConnectTimeout("slow"), False),
    (refusing(429), False),
    (refusing(503), False),
], ids=repr)  # fmt: skip
def test_an_order_whose_answer_is_lost_is_not_waited_for(ear: flower_gateway.Ear, bad: Exception, lost: bool) -> None:
    """The SuperLink gives each order once. One that still waits comes first: who is away would not get that either."""
    away = (WELL, JOINED) if lost else ()
    made = client(ear, JOINED, WELL, JOINED, bad, ORDER, NOTHING, *away, NOTHING)
    made.ActivateNode(None)
    calls = called(made)
    with pytest.raises(type(bad)):
        made.PullMessages(ASK)
    assert [made.PullMessages(ASK) for _ in range(3)] == [ORDER, NOTHING, NOTHING]
    asked = ["pull-messages"] * 3 + ["deactivate-node", "activate-node"] * lost + ["pull-messages"]
    assert calls == asked


def test_an_order_that_came_and_could_not_be_kept_is_missed(
    ear: flower_gateway.Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Flower's function, which only logs it; what it is given to pull with is what it calls."""
    source = inspect.getsource(start_client_internal._pull_and_store_message)
    assert "(recv := receive()) is None:\n            return None" in source
    assert '"Failed to receive message %s: %s"' in source
    monkeypatch.setattr(flower_gateway, "POLL_S", 0.0)
    orders = iter([None, "one that is kept", "one whose arrays cannot be fetched"])
    runs = iter([None, 7, None])

    def pull(receive: Any, **_: object) -> int | None:
        receive()
        return next(runs)

    mended = flower_gateway.mended(pull, ear)
    state = InMemoryNodeState(ObjectStoreFactory().store())
    assert mended(state=state, receive=lambda: next(orders)) == 7
    assert not ear.missed
    with pytest.raises(StopIteration):
        mended(state=state, receive=lambda: next(orders))
    assert ear.missed


def test_an_object_that_is_sent_again_after_its_answer_was_lost_is_stored(ear: flower_gateway.Ear) -> None:
    """The SuperLink, which has it, says no: only what it still lacks of a session it takes."""
    refused, stored = SimpleNamespace(stored=False), SimpleNamespace(stored=True)
    first, second = SimpleNamespace(session_id="s", object_id="a"), SimpleNamespace(session_id="s", object_id="b")
    made = client(ear, httpx.ReadError("reset"), refused, refused, httpx.ConnectError("refused"), refused, stored)
    with pytest.raises(httpx.ReadError):
        made.PushObject(first)
    assert made.PushObject(first).stored
    assert not made.PushObject(second).stored, "of another object nobody knows"
    with pytest.raises(httpx.ConnectError):
        made.PushObject(second)
    assert not made.PushObject(second).stored, "it never came there"
    assert made.PushObject(second).stored


def test_no_heartbeat_comes_while_a_hospital_is_away(ear: flower_gateway.Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would count as being there."""
    away, back = threading.Event(), threading.Event()
    monkeypatch.setattr(flower_gateway.time, "sleep", lambda _: (away.set(), back.wait(30)))
    made = client(ear, JOINED, WELL, JOINED, WELL)
    calls = called(made)
    joins = threading.Thread(target=made.ActivateNode, args=(None,))
    joins.start()
    assert away.wait(30)
    beats = threading.Thread(target=made.SendNodeHeartbeat, args=(None,))
    beats.start()
    beats.join(0.2)
    assert beats.is_alive()
    back.set()
    for one in (joins, beats):
        one.join(30)
    assert calls == ["activate-node", "deactivate-node", "activate-node", "send-node-heartbeat"]


def test_a_reply_is_not_given_up_at_the_server_s_first_error(
    ear: flower_gateway.Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client(ear, refusing(500), refusing(500), WELL).PushMessages(None) is WELL
    for status in (403, 404, 413):
        with pytest.raises(httpx.HTTPStatusError):
            client(ear, refusing(status), WELL).PushMessages(None)
    monkeypatch.setattr(flower_gateway, "PATIENT_S", -1.0)
    with pytest.raises(httpx.HTTPStatusError):
        client(ear, refusing(500), WELL).PushMessages(None)


def test_who_is_unknown_ends_and_asks_anew(ear: flower_gateway.Ear) -> None:
    for call in ("SendNodeHeartbeat", "PushMessages"):
        with pytest.raises(Ended, match="no longer accepts what this hospital signs"):
            getattr(client(ear, refusing(401, '{"detail": "Invalid SuperNode authentication"}')), call)(None)


def test_what_a_server_says_is_one_line_of_text() -> None:
    assert flower_gateway.said(refusing(500, "a\n\x1b[2Jb\0" + "x" * 10_000))[:20] == "HTTP 500, a [2Jb xxx"
    assert len(flower_gateway.said(refusing(500, "x" * 10_000))) < 400
    assert flower_gateway.said(refusing(504, "<html><h1>504</h1></html>")) == "HTTP 504, Gateway Timeout"
    assert flower_gateway.said(httpx.ReadTimeout("")) == "ReadTimeout"


def test_the_connection_to_the_server_is_made_with_the_hospital_s_certificate(ear: flower_gateway.Ear) -> None:
    """Flower's own client has no option for it."""
    made: list[object] = []

    class Connecting(FleetHttpClient):
        def __init__(self, base_url: str, **others: Any) -> None:
            made.append((base_url, others["verify"]))

    context, waited = ssl.create_default_context(), list[str]()

    def secured(trying: Any) -> ssl.SSLContext:
        trying("it has none yet")
        waited.append(ear.reason)
        return context

    ear.deaf_s = 50.0
    flower_gateway.listening(Connecting, ear, secured).from_server_address("a:1", False, b"", [])
    assert (made, waited, ear.deaf_s) == ([("https://a:1", context)], ["it has none yet"], 0.0)


@pytest.mark.parametrize(("status", "text", "ends"), [
    (400, "<html>400 The SSL certificate error", True),
    (403, "<html>403 Forbidden", True),
    (400, '{"code": 1}', False),
    (412, '{"code": 2004}', False),
])  # fmt: skip
def test_who_is_not_known_at_the_door_ends_to_get_its_certificate_anew(
    ear: flower_gateway.Ear, status: int, text: str, ends: bool
) -> None:
    joining = client(ear, refusing(status, text), JOINED, WELL, JOINED)
    if ends:
        with pytest.raises(Ended, match="does not accept this hospital's certificate"):
            joining.ActivateNode(None)
    else:
        assert joining.ActivateNode(None) is JOINED
