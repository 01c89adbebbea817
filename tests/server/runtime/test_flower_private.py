"""The contract with what Flower does not promise: if a new version breaks it, this file says so, and where."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor

from server.runtime.flower_private import (
    Control,
    ControlRefused,
    Run,
    RunAcquirer,
    _refusals,
    _Token,
    claim_identity,
    deflate,
    inflate,
)
from tasks.machine.heartbeat import steady


@pytest.fixture
def message() -> Message:
    claim_identity()
    content = RecordDict({
        "arrays": ArrayRecord({"w": Array(np.arange(6, dtype=np.float32).reshape(2, 3)), "n": Array(np.zeros((0, 3)))}),
        "config": ConfigRecord({"text": "ä", "number": 3, "bytes": b"\x00\xff", "flag": True}),
        "metrics": MetricRecord({"auc": 0.5}),
    })  # fmt: skip
    return Message(content, dst_node_id=7, message_type="train", group_id="3", ttl=60.0)


def test_the_version_is_the_one_that_was_tested() -> None:
    assert version("flwr").startswith("1.42."), (
        "read this file's tests again, then change server/runtime/flower_private.py"
    )


def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    received = inflate(deflate(message))
    assert received.content == message.content
    for name in ("dst_node_id", "message_type", "group_id", "ttl", "src_node_id", "run_id"):
        assert getattr(received.metadata, name) == getattr(message.metadata, name), name
    value = received.content.array_records["arrays"]["w"].numpy()
    np.testing.assert_array_equal(value, np.arange(6, dtype=np.float32).reshape(2, 3))


def test_it_travels_as_bytes_under_the_digest_of_its_content(message: Message) -> None:
    name, objects = deflate(message)
    assert name in objects
    assert all(isinstance(content, bytes) for content in objects.values())
    assert inflate((name, objects)).metadata.message_id == name


def test_a_reply_names_the_order_that_it_answers(message: Message) -> None:
    order = inflate(deflate(message))
    for reply in (Message(RecordDict(), reply_to=order), Message(Error(2, "ValueError"), reply_to=order)):
        received = inflate(deflate(reply))
        assert received.metadata.reply_to_message_id == order.metadata.message_id
        assert received.has_error() == reply.has_error()


def test_an_error_keeps_its_code(message: Message) -> None:
    received = inflate(deflate(Message(Error(2, "ValueError"), reply_to=inflate(deflate(message)))))
    assert (received.error.code, received.error.reason) == (2, "ValueError")


@pytest.mark.parametrize("damage", ["content", "missing"])
def test_damaged_objects_are_not_inflated(message: Message, damage: str) -> None:
    name, objects = deflate(message)
    victim = next(other for other in objects if other != name)
    damaged = {k: v for k, v in objects.items() if k != victim}
    if damage == "content":
        damaged[victim] = b"\x00" * len(objects[victim])
    with pytest.raises(Exception):  # noqa: B017, PT011 - Flower raises whatever; what matters is that it does
        inflate((name, damaged))


def test_without_an_identity_flower_makes_no_message() -> None:
    """Should this ever pass, ``claim_identity`` is no longer needed."""
    program = """
from flwr.app import Message, RecordDict
try:
    Message(RecordDict(), 1, "train")
except Exception as error:
    print(type(error).__name__)
from server.runtime.flower_private import claim_identity
claim_identity()
Message(RecordDict(), 1, "train")
print("made")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    first, second = ended.stdout.split()
    assert first != "made"
    assert second == "made"


def test_the_type_that_a_grid_must_name_is_there() -> None:
    assert Run.__name__ == "Run"


def refusing(status: int, body: str = "") -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://server/v1/runtime/x")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, text=body, request=request))


def raising(error: Exception) -> Callable[..., bool]:
    def call(*_: object) -> bool:
        raise error

    return call


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_heartbeat_survives_an_error_of_the_superlink(status: int) -> None:
    """The real thread of Flower's, which ends at any error but the one that it tries again after."""
    beats, heard = [raising(refusing(status)), lambda: True], threading.Event()

    def beat() -> bool:
        answer = beats.pop(0)() if len(beats) > 1 else beats[0]()
        heard.set()
        return answer

    sender = HeartbeatSender(steady(beat))
    sender.start()
    assert heard.wait(30)
    assert sender.is_running
    sender.stop()
    with pytest.raises(httpx.HTTPStatusError):
        steady(raising(refusing(401)))()


def test_of_a_refusal_its_number_and_words_are_kept() -> None:
    with pytest.raises(ControlRefused, match="gone") as told, _refusals():
        raise refusing(404, '{"code": 24, "detail": "gone"}')
    assert told.value.code == 24
    for error in (refusing(500, "<html>"), httpx.ConnectError("no"), OSError("no"), ValueError("no")):
        with pytest.raises(ControlRefused) as told, _refusals():
            raise error
        assert told.value.code is None


def test_a_run_that_the_superlink_does_not_know_is_none_and_one_that_it_cannot_tell_is_an_error() -> None:
    control = Control.__new__(Control)
    unknown = f'{{"code": {int(ApiErrorCode.RUN_ID_NOT_FOUND)}, "detail": "x"}}'
    control._client = SimpleNamespace(ListRuns=raising(refusing(404, unknown)))
    assert control.find(7) is None
    control._client = SimpleNamespace(ListRuns=raising(refusing(500)))
    with pytest.raises(ControlRefused):
        control.find(7)


def test_a_claim_that_is_not_ours_is_told_from_one_that_cannot_be_renewed_now() -> None:
    acquirer = RunAcquirer.__new__(RunAcquirer)
    acquirer._token = _Token()
    lost = f'{{"code": {int(ApiErrorCode.RUNTIME_AUTHENTICATION_FAILED)}, "detail": "x"}}'
    for answer, ours in ((raising(refusing(401, lost)), False), (lambda _: SimpleNamespace(success=True), True)):
        acquirer._keeping = SimpleNamespace(SendTaskHeartbeat=answer)
        assert acquirer.keep("a token") is ours
    acquirer._keeping = SimpleNamespace(SendTaskHeartbeat=raising(refusing(500)))
    with pytest.raises(ControlRefused):
        acquirer.keep("a token")


def test_the_token_of_the_run_that_is_kept_goes_with_the_request() -> None:
    token, request = _Token(), httpx.Request("POST", "https://server/x")
    token.value = "a token"
    token.intercept(SimpleNamespace(request=request), lambda _: httpx.Response(200))
    ours = httpx.Request("POST", "https://server/x")
    RuntimeTokenHttpInterceptor("a token").intercept(SimpleNamespace(request=ours), lambda _: httpx.Response(200))
    assert request.headers == ours.headers


DATABASE = """
import sys
from sqlalchemy import text
from server.runtime.flower_private import patient_database
patient_database()
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
state = SqlObjectStore(sys.argv[1])
state.initialize()
with state._engine.connect() as connection:
    told = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("busy_timeout", "cache_size", "mmap_size")]
print(told, state._engine.pool._timeout)
"""


def test_the_superlinks_database_waits_for_its_turn_and_is_slender(tmp_path: Path) -> None:
    """In a process of its own, as the SuperLink is."""
    told = subprocess.run(
        [sys.executable, "-c", DATABASE, str(tmp_path / "state.db")], capture_output=True, text=True, check=False
    )
    assert told.stdout.split("\n")[-2] == "[120000, -4000, 0] 120.0", told.stderr
