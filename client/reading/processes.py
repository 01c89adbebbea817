"""Processes with a limit of time and memory, for what reads bytes from outside.

Image codecs are C, C++ and Rust code. They panic, hang, crash, and allocate whatever memory a header asks for; a header
may inflate to gigabytes. Here they do so in a process that is killed and replaced; the file is refused with a reason.
Only numbers and JSON come back, nothing that could run in the calling process: no pickle.

Tested in ``tests/client/reading/test_decoding.py``.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.pixels.pixel_format import MAX_PIXELS
from client.pixels.refusal import Reason, UnreadableDicom

_START_LIMIT_S = 120.0
_MAX_HEAD = 1 << 26
_MAX_BODY = 8 * MAX_PIXELS
_DTYPES = ("<f4", "<f8", "|u1")

Answer = tuple[dict[str, Any], Sequence[NDArray[Any]]]
"""What comes back of a request: a head that is JSON, and arrays."""


class DecoderNotStarted(RuntimeError):
    """The process does not start at all, which is not the file's fault."""


@dataclass(frozen=True)
class DecoderLimits:
    """Limits for one request.

    Attributes:
        time_limit_s: wall-clock seconds; then the process is killed.
        memory_mb: address space in MiB beyond what the idle process has (RLIMIT_AS, enforced by the kernel on Linux).
    """

    time_limit_s: float
    memory_mb: int


class LimitedProcesses:
    """Some processes that answer the same kind of request. Safe to share between threads: each request takes one."""

    def __init__(self, module: str, limits: DecoderLimits, most: int) -> None:
        """Declare them.

        Args:
            module: has a function ``serve`` that hands over to ``serve_requests``.
            most: how many processes at most; each starts when all others are busy, or with ``start``.
        """
        self._module, self._limits, self._most = module, limits, most
        self._idle: SimpleQueue[LimitedProcess] = SimpleQueue()
        self._lock = threading.Lock()
        self.processes: list[LimitedProcess] = []

    def start(self, number: int) -> None:
        """Start this many now."""
        for _ in range(number):
            self._idle.put(self._new())

    def ask(self, request: dict[str, object]) -> Answer:
        """The answer to a request.

        Raises:
            UnreadableDicom: with the reason that the process gave, or TIME_LIMIT, MEMORY_LIMIT, DECODER_DIED.
            DecoderNotStarted: a process cannot be started.
        """
        process = self._take()
        try:
            return process.ask(request)
        finally:
            self._idle.put(process)

    def stop(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.stop()
        self.processes, self._idle = [], SimpleQueue()

    def disown(self) -> None:
        """Forget all processes without ending them: they belong to the process that this one was forked from."""
        self.processes, self._idle, self._lock = [], SimpleQueue(), threading.Lock()

    def _take(self) -> LimitedProcess:
        try:
            return self._idle.get_nowait()
        except Empty:
            with self._lock:
                may_start = len(self.processes) < self._most
                if may_start:
                    return self._new()
            return self._idle.get()

    def _new(self) -> LimitedProcess:
        process = LimitedProcess(self._module, self._limits)
        self.processes.append(process)
        return process


class LimitedProcess:
    """One process, and our end of the socket to it."""

    def __init__(self, module: str, limits: DecoderLimits) -> None:
        self._module, self._limits = module, limits
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            code = f"import sys; from {self._module} import serve; serve(*map(float, sys.argv[1:]))"
            limits = (str(theirs.fileno()), str(self._limits.time_limit_s), str(self._limits.memory_mb))
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, *limits],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
                start_new_session=True,  # Ctrl+C is for the process that asked
            )
        self._connection = Connection(ours.detach())
        self._ready = False

    def ask(self, request: dict[str, object]) -> Answer:
        try:
            self._await_ready()
            return self._answer(request)
        except UnreadableDicom as refusal:
            if refusal.reason in (Reason.TIME_LIMIT, Reason.DECODER_DIED, Reason.MEMORY_LIMIT):
                self._restart()
            raise
        except BaseException:  # an interrupt leaves an answer behind that nobody waits for
            self._restart()
            raise

    def _await_ready(self) -> None:
        if self._ready:
            return
        try:
            if not self._connection.poll(_START_LIMIT_S) or self._connection.recv_bytes(_MAX_HEAD) != b"ready":
                raise EOFError
        except (EOFError, OSError):
            raise DecoderNotStarted(
                f"the decoding process was not ready ({self._process.poll()}); see its message on stderr"
            ) from None
        self._ready = True

    def _answer(self, request: dict[str, object]) -> Answer:
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            if not self._connection.poll(self._limits.time_limit_s):
                raise UnreadableDicom(Reason.TIME_LIMIT, f"not read within {self._limits.time_limit_s:g} s")
            head = json.loads(self._connection.recv_bytes(_MAX_HEAD))
            if "reason" in head:
                raise UnreadableDicom(Reason(head["reason"]), head["detail"])
            data = [self._connection.recv_bytes(_MAX_BODY) for _ in head["arrays"]]
        except (EOFError, OSError):
            raise UnreadableDicom(Reason.DECODER_DIED, self._cause_of_death()) from None
        return head, [_array(one, form) for one, form in zip(data, head["arrays"], strict=True)]

    def _cause_of_death(self) -> str:
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "the decoding process does not answer"
        return f"the decoding process ended by {signal.Signals(-status).name if status < 0 else f'status {status}'}"

    def _restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _array(data: bytes, form: dict[str, Any]) -> NDArray[Any]:
    if form["dtype"] not in _DTYPES:
        raise UnreadableDicom(Reason.DECODER_DIED, f"a response of dtype {form['dtype']}")
    return np.frombuffer(data, dtype=form["dtype"]).reshape(form["shape"]).copy()


def _environment() -> dict[str, str]:
    """Environment without extra threads: each thread of a numeric library would reserve scarce address space."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def serve_requests(
    descriptor: float, time_limit_s: float, memory_mb: float, answer: Callable[[dict[str, Any]], Answer]
) -> None:
    """The process's own side: answer requests until the other end is closed. Everything it prints is discarded.

    Args:
        descriptor: of the socket to the process that asks.
        answer: makes the answer to one request. What it raises as ``UnreadableDicom`` is handed on.
    """
    connection = Connection(int(descriptor))
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    _limit(int(memory_mb))
    connection.send_bytes(b"ready")
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        # If the process that asked has gone, nobody else would end a codec that hangs: SIGALRM's default does.
        signal.setitimer(signal.ITIMER_REAL, time_limit_s + 1)
        _reply(connection, request, answer)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _reply(connection: Connection, request: dict[str, Any], answer: Callable[[dict[str, Any]], Answer]) -> None:
    try:
        head, arrays = answer(request)
    except UnreadableDicom as refusal:
        connection.send_bytes(json.dumps({"reason": refusal.reason, "detail": refusal.detail[:1000]}).encode())
        return
    sent = [np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")) for array in arrays]
    forms = [{"shape": array.shape, "dtype": array.dtype.str} for array in sent]
    connection.send_bytes(json.dumps(head | {"arrays": forms}).encode())
    for array in sent:
        connection.send_bytes(array.data.cast("B"))


def _limit(memory_mb: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    idle = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (idle + (memory_mb << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has nothing to write
