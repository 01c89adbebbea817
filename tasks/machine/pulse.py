"""A sign of life between processes: one touches a file, the other sees whether it goes on being touched.

Only changes of the file's time count, by the watcher's own clock, so a wrong or corrected clock does not matter, and
neither does a full disk.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from tasks.machine.disk import private_file

ALIVE, HEARD = "CONSILIUM_ALIVE", "CONSILIUM_HEARD"
"""Variables that name the files which a program touches while it lives, and whenever the server has heard it."""


class Pulse:
    """The side that lives.

    Args:
        path: the file; ``None`` beats for nobody.
        least_s: beats that follow each other sooner are left out.
    """

    def __init__(self, path: Path | None, least_s: float = 1.0) -> None:
        self._path, self._least_s, self._last = path, least_s, 0.0

    def beat(self) -> None:
        """Show that this process lives. Never raises: a sign that cannot be given must not end who would give it."""
        now = time.monotonic()
        if self._path is None or now - self._last < self._least_s:
            return
        self._last = now
        with suppress(OSError):
            if not self._path.exists():
                private_file(self._path)
            os.utime(self._path)


SILENT = Pulse(None)
"""Beats for nobody."""


class Watched:
    """The side that looks. Call it every few seconds: whether a beat was seen within ``silent_s``.

    Before the first beat that it sees, the answer is no, whatever an earlier process has left behind.
    """

    def __init__(self, path: Path, silent_s: float) -> None:
        self._path, self._silent_s = path, silent_s
        self._mark, self._seen = self._time(), -silent_s

    def __call__(self) -> bool:
        now, mark = time.monotonic(), self._time()
        if mark != self._mark:
            self._mark, self._seen = mark, now
        return now - self._seen < self._silent_s

    def _time(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
