"""Decoding in separate processes, so that a bad file affects only itself.

Image codecs are C, C++ and Rust code that runs on bytes from outside. They panic, hang, crash, and allocate whatever
memory a header asks for. Here they do so in a process that is killed and replaced; the file is refused with a reason.
Only numbers and JSON come back, nothing that could run in the calling process: no pickle.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.pixels.pixel_format import MAX_PIXELS
from client.pixels.refusal import Reason, UnreadableDicom
from client.reading.dicom import FrameReader, Measured
from tasks.task import Picture

_START_LIMIT_S = 120.0
_MAX_HEAD = 1 << 20
_MAX_BODY = 8 * MAX_PIXELS
_DTYPES = ("<f4", "<f8")


class DecoderNotStarted(RuntimeError):
    """The decoding process does not start at all, which is not the file's fault."""


@dataclass(frozen=True)
class DecoderLimits:
    """Limits for one file.

    Attributes:
        time_limit_s: wall-clock seconds for one frame; then the process is killed.
        memory_mb: address space in MiB beyond what the idle process has (RLIMIT_AS, enforced by the kernel on Linux).
    """

    time_limit_s: float
    memory_mb: int


class Decoder:
    """A pool of decoding processes; ``with Decoder() as decoder: decoder.read(path, frame)``.

    Safe to share between threads: each call takes one idle process.
    """

    def __init__(self, time_limit_s: float = 30.0, memory_mb: int = 2048, workers: int = 1) -> None:
        """Declare it; the processes start with the ``with`` block.

        The largest frame that is decoded at all (``MAX_PIXELS`` in colour) takes about 2 GiB.
        """
        self._limits, self._number = DecoderLimits(time_limit_s, memory_mb), workers
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._all: list[_Worker] = []

    def __enter__(self) -> Decoder:
        self._all = [_Worker(self._limits) for _ in range(self._number)]
        for worker in self._all:
            self._idle.put(worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._all:
            worker.stop()
        self._all, self._idle = [], SimpleQueue()

    def read(self, path: Path, frame: int = 0) -> Picture:
        """``client.reading.dicom.read_frame`` in another process.

        Raises:
            UnreadableDicom: as there, or TIME_LIMIT, MEMORY_LIMIT, DECODER_DIED.
            DecoderNotStarted: a process cannot be started.
        """
        head, pixels = self._ask("picture", path, frame)
        spacing = head["spacing_mm"]
        boxes = tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in head["regions"])
        return Picture(pixels, boxes, None if spacing is None else (float(spacing[0]), float(spacing[1])))

    def read_values(self, path: Path, frame: int = 0) -> Measured:
        """``client.reading.dicom.read_values`` in another process; raises as ``read`` does."""
        head, values = self._ask("values", path, frame)
        return Measured(values, str(head["unit"]))

    def _ask(self, what: str, path: Path, frame: int) -> tuple[dict[str, Any], NDArray[Any]]:
        if not self._all:
            raise RuntimeError("a Decoder works only inside its `with` block")
        worker = self._idle.get()
        try:
            return worker.ask({"what": what, "path": os.fspath(path), "frame": frame})
        finally:
            self._idle.put(worker)


class _Worker:
    """One decoding process, and our end of the socket to it."""

    def __init__(self, limits: DecoderLimits) -> None:
        self._limits = limits
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            code = "import sys; from client.reading.decoding import serve; serve(*map(float, sys.argv[1:]))"
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

    def ask(self, request: dict[str, object]) -> tuple[dict[str, Any], NDArray[Any]]:
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

    def _answer(self, request: dict[str, object]) -> tuple[dict[str, Any], NDArray[Any]]:
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            if not self._connection.poll(self._limits.time_limit_s):
                raise UnreadableDicom(Reason.TIME_LIMIT, f"not decoded within {self._limits.time_limit_s:g} s")
            head = json.loads(self._connection.recv_bytes(_MAX_HEAD))
            if "reason" in head:
                raise UnreadableDicom(Reason(head["reason"]), head["detail"])
            data = self._connection.recv_bytes(_MAX_BODY)
        except (EOFError, OSError):
            raise UnreadableDicom(Reason.DECODER_DIED, self._cause_of_death()) from None
        if head["dtype"] not in _DTYPES:
            raise UnreadableDicom(Reason.DECODER_DIED, f"a response of dtype {head['dtype']}")
        return head, np.frombuffer(data, dtype=head["dtype"]).reshape(head["shape"]).copy()

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


def _environment() -> dict[str, str]:
    """Environment without extra threads: each thread of a numeric library would reserve scarce address space."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def serve(descriptor: float, time_limit_s: float, memory_mb: float) -> None:
    """The decoding process: answer requests until the other end is closed. Everything it prints is discarded."""
    connection = Connection(int(descriptor))
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    _limit(int(memory_mb))
    connection.send_bytes(b"ready")
    reader = FrameReader()
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        # If the process that asked has gone, nobody else would end a codec that hangs: SIGALRM's default does.
        signal.setitimer(signal.ITIMER_REAL, time_limit_s + 1)
        _reply(connection, reader, request)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit(memory_mb: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    idle = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (idle + (memory_mb << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has nothing to write


def _reply(connection: Connection, reader: FrameReader, request: dict[str, Any]) -> None:
    path, frame = Path(request["path"]), int(request["frame"])
    try:
        if request["what"] == "picture":
            picture = reader.picture(path, frame)
            array: NDArray[Any] = picture.pixels
            head: dict[str, Any] = {"regions": picture.regions, "spacing_mm": picture.spacing_mm}
        else:
            measured = reader.measured(path, frame)
            array, head = measured.values, {"unit": measured.unit}
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        head |= {"shape": array.shape, "dtype": array.dtype.str}
    except UnreadableDicom as refusal:
        connection.send_bytes(json.dumps({"reason": refusal.reason, "detail": refusal.detail[:1000]}).encode())
        return
    connection.send_bytes(json.dumps(head).encode())
    connection.send_bytes(array.data.cast("B"))
