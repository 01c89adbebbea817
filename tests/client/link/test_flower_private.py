"""The hospital's contract with what Flower does not promise: when a name is gone, nothing runs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState
from flwr.supernode.runtime import run_clientapp

from client.link import flower_private

NAMES = [
    (node.module, alias.name)
    for node in ast.parse(Path(flower_private.__file__).read_text("utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("flwr.")
    for alias in node.names
]


def test_the_version_is_the_one_that_was_tested() -> None:
    assert version("flwr").startswith("1.41."), "read these tests again, then change client/link/flower_private.py"


def test_without_any_one_of_its_names_the_trainer_does_not_start() -> None:
    program = f"""
import importlib, os, sys
import client.link.trainer
for module, name in {NAMES!r}:
    if os.fork() == 0:
        delattr(importlib.import_module(module), name)
        del sys.modules["client.link.flower_private"], sys.modules["client.link.trainer"]
        try:
            import client.link.trainer
        except ImportError:
            os._exit(0)
        print("started without", module, name, flush=True)
        os._exit(1)
    _, status = os.wait()
    assert status == 0
print("never")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.stdout.split() == ["never"], ended.stdout + ended.stderr
    assert len(NAMES) > 15


def test_nothing_that_unpacks_or_imports_a_bundle_is_reached() -> None:
    """``flwr-clientapp`` does both between pulling and answering; of its functions ours uses those around that."""
    source = Path(flower_private.__file__).read_text("utf-8")
    assert "install_from_fab(" in inspect.getsource(run_clientapp.run_clientapp)
    for name in ("install_from_fab", "get_load_client_app_fn", "run_clientapp(", "install_app_dependencies"):
        assert name not in source
    for function in ("pull_task_input", "push_message", "push_task_output"):
        text = inspect.getsource(getattr(run_clientapp, function))
        assert "install" not in text
        assert "load_client_app" not in text


def test_pulling_gives_message_context_run_and_bundle_in_this_order() -> None:
    assert "return message, context, run, fab\n" in inspect.getsource(run_clientapp.pull_task_input)


def test_the_gateway_starts_no_program_of_its_own_in_process_isolation() -> None:
    """So nobody but our trainer can answer for the hospital."""
    source = inspect.getsource(start_client_internal.start_client_internal)
    start = source.index("if isolation == ISOLATION_MODE_SUBPROCESS:\n        runtime_address")
    assert source.count("subprocess.Popen(") == 1
    assert source.index("subprocess.Popen(") > start


def test_a_reply_that_waits_is_sent_although_no_order_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
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

    monkeypatch.setattr(flower_private, "POLL_S", 0.0)
    mended = flower_private.mended(pull)
    assert mended(state=state) == 0
    assert len(asked) == 2
    state.get_messages_legacy(is_reply=True)  # as sending does
    assert mended(state=state) == 7


def test_a_gateway_whose_loop_has_ended_ends() -> None:
    """Flower's leaves a thread that keeps the process alive and deaf."""
    program = """
import threading, time
import flwr.supernode.cli as cli
def lost():
    threading.Thread(target=time.sleep, args=(600,)).start()
cli.flower_supernode = lost
from client.link.flower_private import supernode
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
