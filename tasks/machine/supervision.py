"""Keeps the programs of a deployment running, at the server and in the hospital: started, watched, restarted.

A program that ends is restarted after a pause that grows while it keeps ending soon. One that runs but does not answer
its health check for too long is killed and restarted. One that is held is ended, and not restarted until it is let go.
All end with the supervisor, even if that is killed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.machine.disk import private_file, private_folder, write_private
from tasks.machine.logs import MEGABYTES, Output

PAUSES_S = (1.0, 5.0, 15.0, 30.0, 60.0)
"""Seconds before the next start, by how often the program has ended soon. A SuperLink refuses a hospital that returns
within about 60 s of an unclean end; the sum of the pauses is longer."""

_STEADY_S = 60.0
_SICK_S, _STARTING_S = 60.0, 300.0
"""For how long a program may fail its health check before it is killed: once it has been healthy, and while it is still
starting, which takes minutes on a busy machine and only gets worse with a restart."""
_TICK_S = 0.2
_LOOK_S = 5.0
_TAIL, _LONGEST_LINE = 4096, 300
_GRACE_S = 15.0
_DRAIN_S = 2.0
"""For how long the last words of a program that has ended are waited for."""
_PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None).prctl
"""Looked up here: in a child of a process with threads, nothing may wait for a lock that one of them holds."""

Healthy = Callable[[], bool]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Program:
    """A program to run.

    Attributes:
        command: program and arguments.
        environment: variables beside those of the supervisor.
        log: output is appended there, through this process: it stays small, and a full disk is not the program's error.
        log_bytes: size at which the log is set aside, see ``tasks.machine.logs``.
        healthy: called every few seconds; must return within a few seconds itself. Who fails it for too long is killed.
        heard: called likewise; who fails it is not well, and that is all: what it waits for is not its own fault.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    healthy: Healthy | None = None
    heard: Healthy | None = None
    log_bytes: int = int(MEGABYTES * 1e6)


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    output: threading.Thread | None = None
    started: float = 0.0
    again: float = 0.0
    soon: int = 0
    starts: int = 0
    looked: float = 0.0
    well: float = 0.0
    is_well: bool = False
    held: str = ""


class Supervisor:
    """Runs programs until it is stopped.

    Args:
        programs: in the order in which they are started; they are stopped in the reverse one.
        state: file for their state; ``None`` writes none.
        tell: gets a sentence whenever a program ends or is restarted.
    """

    def __init__(self, programs: Sequence[Program], tell: Tell, state: Path | None = None) -> None:
        self._children = [_Child(program) for program in programs]
        self._tell, self._state = tell, state
        self._stop = threading.Event()
        self._written = ""

    def stop(self) -> None:
        """Let ``run`` end; may be called from a signal handler."""
        self._stop.set()

    def hold(self, name: str, why: str) -> None:
        """End a program and do not start it again, for a reason that stands in the state file; ``""`` lets it run.

        For the thread that calls ``run``, such as from its ``each``.
        """
        for child in self._children:
            if child.program.name == name and child.held != why:
                child.held, child.again = why, 0.0
                if why and child.process is not None:
                    _end(child)

    def signal(self, name: str, number: int) -> bool:
        """Send a program a signal, if it is well: one that is still starting may not know it. Returns whether it was
        sent. For the same thread as ``hold``."""
        for child in self._children:
            if child.program.name == name and child.is_well and child.process is not None:
                child.process.send_signal(number)
                return True
        return False

    def run(self, each: Callable[[], None] | None = None) -> None:
        """Keep all running until ``stop``. ``each`` is called about every 0.2 s."""
        try:
            while not self._stop.is_set():
                for child in self._children:
                    self._look_after(child, time.monotonic())
                self._write()
                if each is not None:
                    each()
                self._stop.wait(_TICK_S)
        finally:
            self._end_all()
            self._write()

    def _look_after(self, child: _Child, now: float) -> None:
        if child.process is None:
            if now >= child.again and not child.held:
                self._start(child, now)
        elif (code := child.process.poll()) is not None:
            self._ended(child, code, now)
        elif child.program.healthy is not None and now - child.looked >= _LOOK_S:
            self._examine(child, child.program.healthy, now)
        elif child.program.healthy is None:
            child.is_well = now - child.started > 1 and _is_heard(child)

    def _start(self, child: _Child, now: float) -> None:
        program = child.program
        try:
            child.process, child.output = _started(program)
        except OSError as error:  # a full disk or too many processes: what runs already must not end for it
            child.again = now + PAUSES_S[-2]
            self._tell(f"{program.name}: cannot be started: {error}; tried again in {PAUSES_S[-2]:g} s")
            return
        child.started, child.well, child.is_well = now, now + _STARTING_S - _SICK_S, False
        child.looked = now - _LOOK_S + 1
        child.starts += 1
        if child.starts > 1:
            self._tell(f"{program.name}: restarted")

    def _ended(self, child: _Child, code: int, now: float) -> None:
        _end_orphans(child)
        lived = now - child.started
        child.soon = 0 if lived > _STEADY_S else child.soon + 1
        pause = PAUSES_S[min(child.soon, len(PAUSES_S) - 1)]
        child.process, child.is_well, child.again = None, False, now + pause
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        log = child.program.log
        words = f", which ends with: {last}" if (last := _last_line(log)) else ""
        self._tell(f"{child.program.name}: {how} after {lived:.0f} s; restart in {pause:g} s ({log}{words})")

    def _examine(self, child: _Child, healthy: Healthy, now: float) -> None:
        answers = healthy()
        child.is_well, child.looked = answers and _is_heard(child), now
        if answers:
            child.well = now
        elif now - child.well > _SICK_S and child.process is not None:
            self._tell(f"{child.program.name}: no answer to its health check for {_SICK_S:g} s; killed")
            child.process.kill()

    def _end_all(self) -> None:
        for child in reversed(self._children):
            if child.process is not None:
                _end(child)

    def _write(self) -> None:
        if self._state is None:
            return
        facts = {
            child.program.name: {
                "pid": child.process.pid if child.process else None,
                "well": child.is_well,
                "starts": child.starts,
            }
            | ({"held": child.held} if child.held else {})
            for child in self._children
        }
        text = json.dumps(facts, indent=1)
        if text != self._written:
            try:
                write_private(self._state, text.encode())
                self._written = text
            except OSError as error:  # a full disk must not end what still runs
                self._tell(f"cannot write {self._state}: {error.strerror}")
                self._written = text


def _started(program: Program) -> tuple[subprocess.Popen[bytes], threading.Thread]:
    """The program, and the thread that keeps its output."""
    private_folder(program.log.parent)
    private_file(program.log)
    output, thread = Output(program.log, program.log_bytes).pipe()
    try:
        process = subprocess.Popen(
            list(program.command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(program.environment),
            start_new_session=True,  # Ctrl-C is for the supervisor, which stops them in order
            preexec_fn=end_with_parent,
        )
    finally:
        os.close(output)
    return process, thread


def _is_heard(child: _Child) -> bool:
    return child.program.heard is None or child.program.heard()


def _end(child: _Child) -> None:
    """End a program: asked first, killed if it does not."""
    assert child.process is not None
    child.process.terminate()
    try:
        child.process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()
    _end_orphans(child)
    child.process, child.is_well = None, False


def _end_orphans(child: _Child) -> None:
    """End what a program has left behind, such as workers that still hold its port, and keep its last words."""
    if child.process is not None:
        with suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)  # it was the first of its session
    if child.output is not None:
        child.output.join(_DRAIN_S)


def _last_line(log: Path) -> str:
    """The last non-empty line of a log, without terminal control characters; "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(-min(_TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    except OSError:
        return ""
    last = next((line for line in reversed(lines) if line), "")
    return "".join(c for c in last if c.isprintable())[:_LONGEST_LINE]


def stop_on_signals(supervisor: Supervisor) -> None:
    """Stop it on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())


@contextmanager
def only_one(path: Path) -> Iterator[bool]:
    """Hold a lock file with this process's id. Yields whether no other process holds it; the system releases it when
    the process ends, however it ends."""
    private_folder(path.parent)
    with private_file(path).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield True


def holder(path: Path) -> int | None:
    """The id of the process that holds the lock file, or ``None``."""
    if not path.exists():
        return None
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0) or None
    return None


def programs_in(state: Path) -> dict[str, dict[str, Any]]:
    """What a supervisor's state file says of each program; empty if it cannot be read."""
    try:
        programs = json.loads(state.read_text("utf-8"))
        return {str(name): dict(one) for name, one in programs.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def all_well(state: Path) -> bool:
    """Whether every program in a supervisor's state file is healthy."""
    programs = programs_in(state)
    return bool(programs) and all(program.get("well") for program in programs.values())


def end_with_parent() -> None:
    """Run in a child that is being started: it gets SIGTERM when this process ends, however it ends (Linux)."""
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
