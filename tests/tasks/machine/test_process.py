"""What the kernel says, asked about processes of our own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.machine import process
from tasks.machine.checklist import ClaimState

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")

_LISTENS = """
import socket, subprocess, sys
one = socket.create_server(("127.0.0.1", 0))
two = socket.create_server(("::1", 0), family=socket.AF_INET6) if {six} else one
out = socket.create_connection(one.getsockname())
print(one.getsockname()[1], two.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def listener(six: bool = False, **variables: str) -> Iterator[tuple[int, list[int]]]:
    """A process that listens, and is connected with itself: its number and its ports."""
    command = [sys.executable, "-c", _LISTENS.format(six=six)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | variables) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield child.pid, [int(port) for port in child.stdout.readline().split()]
        finally:
            child.stdin.close()
            child.wait(10)


def test_it_sees_what_a_process_listens_at_and_whom_it_dials() -> None:
    with listener() as (pid, (port, _)):
        found = process.look(pid)
        assert {peer.own for peer in found.peers if peer.listens} == {("127.0.0.1", port)}
        assert process.listening("program", found, {("127.0.0.1", port)}).state is ClaimState.OK
        wrong = process.listening("program", found, ())
        assert wrong.state is ClaimState.FAIL
        assert f"127.0.0.1:{port}" in wrong.remedy
        assert process.dialling("program", found, {("127.0.0.1", port)}, "itself").state is ClaimState.OK
        stranger = process.dialling("program", found, {("192.0.2.1", 443)}, "the server")
        assert stranger.state is ClaimState.FAIL
        assert f"127.0.0.1:{port}" in stranger.remedy


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_it_reads_addresses_of_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    with listener(six=True) as (pid, (first, second)):
        listens = {peer.own for peer in process.look(pid).peers if peer.listens}
    assert listens == {("127.0.0.1", first), ("::1", second)}


def test_it_looks_at_what_a_process_has_started_too() -> None:
    inner = _LISTENS.format(six=False)
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], stdin=sys.stdin)"
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        port = int(child.stdout.readline().split()[0])
        found = process.look(child.pid)
        child.stdin.close()
    assert ("127.0.0.1", port) in {peer.own for peer in found.peers if peer.listens}


def test_variables_that_keep_libraries_silent_must_be_there() -> None:
    with listener(FLWR_TELEMETRY_ENABLED="0") as (pid, _):
        found = process.look(pid)
    assert process.silent("program", found, {"FLWR_TELEMETRY_ENABLED": "0"}).state is ClaimState.OK
    loud = process.silent("program", found, {"FLWR_TELEMETRY_ENABLED": "1"})
    assert (loud.state, "FLWR_TELEMETRY_ENABLED=1" in loud.found) == (ClaimState.FAIL, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_hardened_process_is_told_from_a_plain_one() -> None:
    words = ["setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", "--no-new-privs", "--bounding-set=-all",
             "--inh-caps=-all", "sleep", "30"]  # fmt: skip
    with subprocess.Popen(words) as child:
        ends = time.monotonic() + 10
        running = Path(f"/proc/{child.pid}/comm")  # setpriv's own name until it has given up everything
        while running.read_text().strip() != "sleep" and time.monotonic() < ends:
            time.sleep(0.05)
        found = process.look(child.pid)
        child.kill()
    assert (found.user, found.capabilities, found.no_new_privileges) == (10001, 0, True)
    states = {claim.promise: claim.state for claim in process.hardening("program", found)}
    assert [
        states[f"The program {what}"] for what in ("is not root", "has no capabilities", "cannot gain privileges")
    ] == [ClaimState.OK] * 3
    plain = {claim.promise: claim.state for claim in process.hardening("program", process.look(os.getpid()))}
    assert plain["The program is not root"] is ClaimState.WARN


def test_who_has_ended_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    with pytest.raises(ProcessLookupError):
        process.look(child.pid)


def test_a_secret_that_others_read_fails(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.touch(0o600)
    bad.touch(0o640)
    found = list(process.secrets({"one": good, "other": bad, "absent": tmp_path / "absent"}))
    assert [claim.state for claim in found] == [ClaimState.OK, ClaimState.FAIL]
    assert "0640" in found[1].found
    assert found[1].remedy == f"chmod 600 {bad}"
