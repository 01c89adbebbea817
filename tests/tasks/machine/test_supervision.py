"""Programs that end are started again, all end with the supervisor, and one supervisor works at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.machine import supervision
from tasks.machine.supervision import Program, Supervisor, holder, only_one

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def until(holds: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "PAUSES_S", (0.0, 0.01, 0.02))
    monkeypatch.setattr(supervision, "_TICK_S", 0.01)
    monkeypatch.setattr(supervision, "_LOOK_S", 0.02)


def run(supervisor: Supervisor, script: Callable[[], None]) -> None:
    def play() -> None:
        try:
            script()
        finally:
            supervisor.stop()

    thread = threading.Thread(target=play)
    thread.start()
    supervisor.run()
    thread.join()


def facts(path: Path) -> dict[str, dict[str, int | None]]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {"a": {"pid": None, "starts": 0}}


@pytest.mark.usefixtures("quick")
def test_what_is_killed_is_started_again_and_all_end_at_last(tmp_path: Path) -> None:
    said: list[str] = []
    state = tmp_path / "state.json"
    supervisor = Supervisor([Program("a", SLEEP, tmp_path / "a.log")], said.append, state)
    pids: list[int] = []

    def script() -> None:
        for starts in (1, 2, 3):
            until(lambda starts=starts: facts(state)["a"]["starts"] == starts and facts(state)["a"]["pid"])
            pids.append(int(facts(state)["a"]["pid"] or 0))
            os.kill(pids[-1], signal.SIGKILL)
        until(lambda: facts(state)["a"]["starts"] == 4 and facts(state)["a"]["pid"])
        pids.append(int(facts(state)["a"]["pid"] or 0))

    run(supervisor, script)
    assert len(set(pids)) == 4
    assert not any(map(_runs, pids))
    assert sum("was killed by signal 9" in line for line in said) == 3
    assert facts(state)["a"]["pid"] is None


@pytest.mark.usefixtures("quick")
def test_what_lives_and_does_not_answer_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_SICK_S", 0.0)
    monkeypatch.setattr(supervision, "_STARTING_S", 0.1)
    said: list[str] = []
    sick = Program("a", SLEEP, tmp_path / "a.log", healthy=lambda: False)
    run(
        Supervisor([sick], said.append),
        lambda: until(lambda: any("no answer to its health check" in line for line in said)),
    )


@pytest.mark.usefixtures("quick")
def test_what_is_still_starting_is_given_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_SICK_S", 0.0)
    asked: list[int] = []
    said: list[str] = []
    slow = Program("a", SLEEP, tmp_path / "a.log", healthy=lambda: bool(asked.append(1)))
    run(Supervisor([slow], said.append), lambda: until(lambda: len(asked) > 20))
    assert said == []


@pytest.mark.usefixtures("quick")
def test_pauses_grow_while_it_ends_soon(tmp_path: Path) -> None:
    said: list[str] = []
    broken = Program("a", [sys.executable, "-c", "raise SystemExit(49)"], tmp_path / "a.log")
    run(Supervisor([broken], said.append), lambda: until(lambda: sum("ended with code 49" in one for one in said) >= 3))
    assert [one.split("restart in ")[1].split()[0] for one in said if "ended with" in one][:3] == [
        "0.01",
        "0.02",
        "0.02",
    ]


@pytest.mark.usefixtures("quick")
def test_what_ended_is_told_with_the_last_line_of_its_log(tmp_path: Path) -> None:
    said: list[str] = []
    code = "print('earlier'); print('you are\\x1b[2J not admitted\\n'); raise SystemExit(3)"
    program = Program("a", [sys.executable, "-c", code], tmp_path / "a.log")
    run(Supervisor([program], said.append), lambda: until(lambda: any("code 3" in one for one in said)))
    assert f"({tmp_path / 'a.log'}, which ends with: you are[2J not admitted)" in said[0]


def test_real_pauses_reach_beyond_the_time_in_which_flower_refuses() -> None:
    assert sum(supervision.PAUSES_S) > 60


def test_children_end_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tasks.machine.supervision import Program, Supervisor
folder = Path({str(tmp_path)!r})
Supervisor([Program("a", {SLEEP!r}, folder / "log")], print, folder / "state.json").run()
"""
    supervisor = subprocess.Popen([sys.executable, "-c", program])
    until(lambda: facts(tmp_path / "state.json")["a"]["pid"])
    child = int(facts(tmp_path / "state.json")["a"]["pid"] or 0)
    supervisor.kill()
    supervisor.wait()
    until(lambda: not _runs(child))


@pytest.mark.usefixtures("quick")
def test_what_a_program_left_behind_is_ended_before_it_is_started_again(tmp_path: Path) -> None:
    """As nginx's workers, which keep its port when it is killed."""
    port = tmp_path / "worker"
    program = f"""
import os, time
worker = os.fork()
if worker == 0:
    time.sleep(600)
with open({str(port)!r}, "a") as file:
    print(worker, file=file, flush=True)
time.sleep(600)
"""
    state = tmp_path / "state.json"

    def workers() -> list[int]:
        return [int(line) for line in port.read_text().split()] if port.exists() else []

    def script() -> None:
        until(lambda: len(workers()) == 1)
        os.kill(int(facts(state)["a"]["pid"] or 0), signal.SIGKILL)
        until(lambda: len(workers()) == 2)

    run(Supervisor([Program("a", [sys.executable, "-c", program], tmp_path / "a.log")], print, state), script)
    for worker in workers():
        until(lambda worker=worker: not _runs(worker))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_lock_tells_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    with only_one(path) as alone:
        assert alone
        assert holder(path) == os.getpid()
        with only_one(path) as second:
            assert not second
    assert holder(path) is None


@pytest.mark.usefixtures("quick")
def test_who_is_not_heard_is_not_well_and_lives_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_SICK_S", 0.0)
    monkeypatch.setattr(supervision, "_STARTING_S", 0.1)
    state, heard, said = tmp_path / "state.json", threading.Event(), list[str]()
    supervisor = Supervisor(
        [Program("a", SLEEP, tmp_path / "a.log", healthy=lambda: True, heard=heard.is_set)], said.append, state
    )

    def script() -> None:
        until(lambda: facts(state)["a"]["pid"])
        time.sleep(0.4)
        assert not facts(state)["a"]["well"]
        heard.set()
        until(lambda: facts(state)["a"]["well"])
        assert facts(state)["a"]["starts"] == 1

    run(supervisor, script)
    assert said == []


@pytest.mark.usefixtures("quick")
def test_who_is_held_ends_and_starts_when_it_is_let_go(tmp_path: Path) -> None:
    state, why = tmp_path / "state.json", [""]
    supervisor = Supervisor([Program("a", SLEEP, tmp_path / "a.log")], lambda _: None, state)

    def script() -> None:
        until(lambda: facts(state)["a"]["pid"])
        why[0] = "you are not admitted"
        until(lambda: facts(state)["a"].get("held") == "you are not admitted")
        assert facts(state)["a"]["pid"] is None
        time.sleep(0.2)
        assert facts(state)["a"]["starts"] == 1
        why[0] = ""
        until(lambda: facts(state)["a"]["starts"] == 2)
        assert "held" not in facts(state)["a"]

    thread = threading.Thread(target=lambda: (script(), supervisor.stop()))
    thread.start()
    supervisor.run(lambda: supervisor.hold("a", why[0]))
    thread.join()
    assert facts(state)["a"]["starts"] == 2


@pytest.mark.usefixtures("quick")
def test_a_program_that_cannot_be_started_ends_nobody_else(tmp_path: Path) -> None:
    state, said = tmp_path / "state.json", list[str]()
    programs = [Program("a", SLEEP, tmp_path / "a.log"), Program("b", ["/nowhere/to/be/found"], tmp_path / "b.log")]

    def script() -> None:
        until(lambda: len(said) >= 2)
        assert facts(state)["a"]["pid"]

    run(Supervisor(programs, said.append, state), script)
    assert all("b: cannot be started" in line for line in said)


@pytest.mark.usefixtures("quick")
def test_what_a_program_prints_is_kept_within_bounds(tmp_path: Path) -> None:
    code = "for number in range(3000): print(number, flush=True)\nimport time; time.sleep(600)"
    log = tmp_path / "a.log"
    chatty = Program("a", [sys.executable, "-c", code], log, log_bytes=4000)

    def kept() -> list[str]:
        files = [log.with_name(f"a.log.{number}") for number in (3, 2, 1)] + [log]
        return "".join(path.read_text() for path in files if path.exists()).split()

    run(Supervisor([chatty], lambda _: None), lambda: until(lambda: kept()[-1:] == ["2999"]))
    assert kept() == [str(number) for number in range(int(kept()[0]), 3000)]
    assert 4000 < sum(path.stat().st_size for path in tmp_path.glob("a.log*")) <= 16_000
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("a.log*")} == {0o600}


@pytest.mark.usefixtures("quick")
def test_the_last_words_of_a_program_that_is_stopped_are_kept(tmp_path: Path) -> None:
    code = """
import signal, sys, time
def leave(*_):
    print("goodbye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
time.sleep(600)
"""
    log = tmp_path / "a.log"
    polite = Program("a", [sys.executable, "-c", code], log)
    run(Supervisor([polite], lambda _: None), lambda: until(lambda: log.exists() and "ready\n" in log.read_text()))
    assert log.read_text().split() == ["ready", "goodbye"]


@pytest.mark.usefixtures("quick")
def test_only_a_program_that_is_well_gets_a_signal(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: print('heard', flush=True)); time.sleep(600)"
    log, well = tmp_path / "a.log", [False]
    program = Program("a", [sys.executable, "-c", code], log, healthy=lambda: well[0])
    supervisor = Supervisor([program], lambda _: None, tmp_path / "state.json")
    sent: list[bool] = []

    def script() -> None:
        until(lambda: facts(tmp_path / "state.json")["a"]["pid"])
        time.sleep(1)
        sent.append(supervisor.signal("a", signal.SIGUSR1))
        well[0] = True
        until(lambda: facts(tmp_path / "state.json")["a"].get("well"))
        sent.extend([supervisor.signal("b", signal.SIGUSR1), supervisor.signal("a", signal.SIGUSR1)])
        until(lambda: "heard" in log.read_text())

    run(supervisor, script)
    assert sent == [False, False, True]
