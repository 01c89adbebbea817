"""Flower's SuperLink, which gives back the memory of what it has refused. Arguments are those of ``flower-superlink``.

A request that the SuperLink refuses ends in an exception that refers to itself, with the body in its frames: Python
frees that only when it looks for such cycles, which it does by the number of objects, not by their size. Five megabytes
a body grew to hundreds. So they are looked for here whenever the process has grown.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from server.runtime.flower_private import superlink

MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""Variables for glibc: large blocks go back to the system at once, and few arenas keep what is free in between."""
GROWN_BYTES = 8 * 2**20
_EVERY_S = 0.05
_STEADY_S = 5.0
"""After so long nothing is imported any more, and what there is then need not be looked at again."""


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Tidier:
    """Frees unreachable objects when the process has grown. It costs nothing while it has not.

    Args:
        size: of the process, in bytes.
    """

    def __init__(self, size: Callable[[], int] = resident) -> None:
        self._size, self._least = size, size()
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's

    def __call__(self) -> bool:
        """Look once. Returns whether something was to be done."""
        size = self._size()
        self._least = min(self._least, size)
        if size - self._least < GROWN_BYTES:
            return False
        gc.collect()
        if self._trim is not None:
            self._trim(0)
        self._least = self._size()
        return True

    def run(self) -> None:
        """Look for ever."""
        time.sleep(_STEADY_S)
        gc.collect()
        gc.freeze()
        while True:
            time.sleep(_EVERY_S)
            self()


if __name__ == "__main__":
    threading.Thread(target=Tidier().run, daemon=True, name="tidier").start()
    superlink()
