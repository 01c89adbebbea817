"""Books that stay open between the orders that a process answers, so that an order reads only the rows that are new.

A hospital's books grow for years; a process that answers orders would read them from the genesis every time. On the
shelf they are checked as at opening before each use: the newest rows, the triggers, and each against the other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from client.books import Books, open_books, refuse_missing

_MOST = 32


class _Place(NamedTuple):
    """Which books, and who may use the connections: SQLite's neither cross a fork nor change threads."""

    ledger: Path
    journal: Path
    secret: bytes
    process: int
    thread: int


@dataclass(frozen=True)
class _Standing:
    books: Books
    closing: ExitStack
    files: tuple[tuple[int, int], ...]


class Shelf:
    """Keeps the books of the hospitals that a process plays. A file that was put in the place of another is opened."""

    def __init__(self) -> None:
        self._standing: dict[_Place, _Standing] = {}

    @contextmanager
    def open(self, ledger: Path, journal: Path, secret: bytes) -> Iterator[Books]:
        """Both books, as ``open_books`` gives them. Their newest rows may be in the write-ahead logs beside the files.

        Raises:
            LedgerMissing, LedgerTampered, LedgerRolledBack: as ``open_books``.
        """
        refuse_missing(ledger, journal)
        place = _Place(ledger, journal, secret, os.getpid(), threading.get_ident())
        standing = self._standing.pop(place, None)
        if standing is not None and standing.files != _files(place):
            standing.closing.close()
            standing = None
        standing = standing or _opened(place)
        with ExitStack() as closing:
            closing.push(standing.closing)  # whatever goes wrong, the next order opens them afresh
            standing.books.check()
            yield standing.books
            closing.pop_all()
        self._standing[place] = standing
        self._close(self._mine()[:-_MOST])

    def close(self) -> None:
        """Close what this thread has open."""
        self._close(self._mine())

    def _mine(self) -> list[_Place]:
        """Where this thread's books stand, those that were used last at the end. A fork brings others' too."""
        me = (os.getpid(), threading.get_ident())
        return [place for place in self._standing if (place.process, place.thread) == me]

    def _close(self, places: list[_Place]) -> None:
        for place in places:
            self._standing.pop(place).closing.close()


def _opened(place: _Place) -> _Standing:
    closing = ExitStack()
    books = closing.enter_context(open_books(place.ledger, place.journal, place.secret))
    return _Standing(books, closing, _files(place))


def _files(place: _Place) -> tuple[tuple[int, int], ...]:
    """What identifies the two files: while one is open here, no other file can have its number."""
    found = [path.stat() for path in (place.ledger, place.journal)]
    return tuple((status.st_dev, status.st_ino) for status in found)
