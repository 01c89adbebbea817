"""Files of the hospital that stay open between the orders a process answers.

Ledger and audit log grow for years; a process that answers orders would read them from the genesis every time, and
opening an SQLite file for one query takes longer than the query.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

_MOST = min(max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 16, 32), 512)
"""Of each kind. A hospital's ledger, audit log and index are nine open files; a process that simulates more hospitals
than stay open reopens each in every round, which takes half as long again."""
T = TypeVar("T")
_Files = tuple[tuple[int, int], ...]


class _Place(NamedTuple):
    """Which files, and which process and thread may use them: SQLite connections cross neither forks nor threads."""

    paths: tuple[Path, ...]
    also: Hashable
    process: int
    thread: int


@dataclass(frozen=True)
class _Standing(Generic[T]):
    open: T
    closing: ExitStack
    files: _Files


class HandleCache(Generic[T]):
    """Open handles, by their files. A file that has replaced another is opened again."""

    def __init__(self) -> None:
        self._standing: dict[_Place, _Standing[T]] = {}

    @contextmanager
    def use(
        self, paths: tuple[Path, ...], opening: Callable[[], AbstractContextManager[T]], also: Hashable = None
    ) -> Iterator[T]:
        """What ``opening`` opens, from the cache if it is there.

        Whatever goes wrong while it is used, it is closed, and the next use opens it afresh.

        Args:
            paths: all files that it consists of.
            also: what else tells it from another, such as the key with which it is read.
        """
        place = _Place(paths, also, os.getpid(), threading.get_ident())
        standing = self._standing.pop(place, None)
        if standing is not None and standing.files != _files(paths):
            standing.closing.close()
            standing = None
        if standing is None:
            stack = ExitStack()
            standing = _Standing(stack.enter_context(opening()), stack, _files(paths))
        with ExitStack() as closing:
            closing.push(standing.closing)
            yield standing.open
            closing.pop_all()
        self._standing[place] = standing
        if len(self._standing) > _MOST:
            self._close(self._mine()[:-_MOST])

    def close(self) -> None:
        """Close everything this thread has open."""
        self._close(self._mine())

    def _mine(self) -> list[_Place]:
        """This thread's handles, the most recently used last. A fork copies other threads' handles as well."""
        me = (os.getpid(), threading.get_ident())
        return [place for place in self._standing if (place.process, place.thread) == me]

    def _close(self, places: list[_Place]) -> None:
        for place in places:
            self._standing.pop(place).closing.close()


def _files(paths: tuple[Path, ...]) -> _Files:
    """Identity of the files: while one is open here, no other file can have its number. Empty if one is missing."""
    try:
        return tuple((status.st_dev, status.st_ino) for status in (path.stat() for path in paths))
    except OSError:
        return ()
