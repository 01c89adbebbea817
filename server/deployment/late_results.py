"""Has MLflow told what it does not know yet of studies that have ended: one that was stopped or has failed would run
there for ever, and results that came while it was away would wait for the next study.

A process of its own does it (``server.tracking.tracker``), since MLflow's client takes seconds and memory to import.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Container
from contextlib import suppress

from server.deployment.server_dir import ServerDir
from server.study.folder import PENDING
from tasks.machine.supervision import end_with_parent

_FIRST_S, _LIMIT_S = 30.0, 600.0
"""MLflow takes some time to start, and a process that hangs is ended."""
_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 3600.0


class LateResults:
    """Call ``send`` every few seconds."""

    def __init__(self, server_dir: ServerDir) -> None:
        self._home = server_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._due, self._failures, self._started = time.monotonic() + _FIRST_S, 0, 0.0

    def send(self, unfinished: Container[str]) -> None:
        """Send what is late, if anything is, and nobody does so already.

        Args:
            unfinished: names of studies that go on; their own processes send theirs.
        """
        if self._process is not None and not self._has_ended(self._process):
            return
        pending = (path.parent.name for path in (self._home.path / "studies").glob(f"*/{PENDING}"))
        if time.monotonic() >= self._due and any(name not in unfinished for name in pending):
            words = [sys.executable, "-m", "server.tracking.tracker", str(self._home.path), self._home.mlflow]
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent)
            self._started = time.monotonic()

    def _has_ended(self, process: subprocess.Popen[bytes]) -> bool:
        code = process.poll()
        if code is None:
            if time.monotonic() - self._started > _LIMIT_S:
                process.kill()
            return False
        self._process, self._failures = None, self._failures + 1 if code else 0
        self._due = time.monotonic() + min(_PAUSE_S * 2 ** min(self._failures, 10), _LONGEST_PAUSE_S)
        return True

    def end(self) -> None:
        """End the process; the next one goes on."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
