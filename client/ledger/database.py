"""SQLite files that survive a kill at any moment: durable (``Outlives``), created whole or not at all, errors named."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path

from client.errors import LedgerBroken, LedgerTampered, LedgerUnwritable


class Outlives(StrEnum):
    """What a transaction that has returned outlives; the values are SQLite's words for it in write-ahead mode.

    Either way a file is whole after both: what a power failure can take with ``KILL`` are its newest transactions, all
    since the last checkpoint of the log.
    """

    POWER_FAILURE = "FULL"
    """The disk has confirmed it. Of every real hospital's books."""
    KILL = "NORMAL"
    """The operating system has it: the process may be killed, the machine may not lose power."""


_WAIT = 120.0  # seconds: another process may be planning its noise inside a transaction
_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space, then try again",
    sqlite3.SQLITE_IOERR: "the disk does not accept the data: free some space or check the volume, then try again",
    sqlite3.SQLITE_READONLY: "it is read-only: mount the volume writable for the user that runs the trainer",
    sqlite3.SQLITE_PERM: "access is denied: file and folder must belong to the user that runs the trainer",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: file and folder must belong to the user that runs the trainer",
    sqlite3.SQLITE_BUSY: f"another process has locked it for more than {_WAIT:g} s: find out which, then try again",
}
_RESTORE = "Restore the newest backup, and keep the damaged file for the investigation"


def connect(path: Path, outlives: Outlives = Outlives.POWER_FAILURE) -> sqlite3.Connection:
    """Open an existing file in write-ahead mode.

    Text that is not UTF-8 comes as surrogates, so that a checker can name the row instead of stumbling over it.

    Raises:
        LedgerUnwritable: the file system refuses, or cannot keep a write-ahead log (network shares cannot).
        LedgerTampered: not an SQLite file.
    """
    with named_errors(path):
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=_WAIT, isolation_level=None)
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            connection.execute(f"PRAGMA synchronous={outlives}")
            if mode != "wal":
                raise LedgerUnwritable(f"{path} is on a volume without write-ahead logging: use a local disk")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """All or nothing, with all other writers blocked.

    Raises:
        LedgerUnwritable: disk full, read-only, or held by another process.
    """
    with named_errors(path):
        connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        with named_errors(path):
            connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has already rolled back when the disk is full
            with named_errors(path):
                connection.execute("ROLLBACK")
        raise


def copy(source: Path, target: Path) -> None:
    """Fill an empty file with a consistent state of another, while others continue writing to that.

    Over connections of its own: SQLite does not copy from one that holds a transaction.
    """
    with named_errors(source), closing(connect(source)) as origin, closing(connect(target)) as filled:
        origin.backup(filled)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Translate SQLite's errors into messages for hospital staff."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0)
        remedy = None if code == sqlite3.SQLITE_IOERR_SHORT_READ else _REMEDIES.get(code & 0xFF)
        if remedy is not None:
            raise LedgerUnwritable(f"{path} cannot be used ({error}): {remedy}") from error
        raise LedgerTampered(f"{path} is damaged ({error}). {_RESTORE}") from error
    except UnicodeDecodeError as error:  # SQLite's own message quotes the damaged text
        raise LedgerTampered(f"{path} is damaged (a name in its schema is not UTF-8). {_RESTORE}") from error


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A draft that is renamed to ``path`` on success, so that a kill leaves the file complete or absent.

    Raises:
        LedgerBroken: something is there already; nothing is ever overwritten.
        LedgerUnwritable: the file system refuses.
    """
    _refuse_existing(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield draft
        if any(p.exists() for p in _companions(draft)):  # closing does not report what it could not write
            raise LedgerUnwritable(f"cannot finish {path}: is the disk full?")
        _flush(draft)
        os.link(draft, path)  # unlike a rename it fails when another process was faster
        _flush(path.parent)
    except OSError as error:
        raise LedgerUnwritable(f"cannot create {path} ({error}): is its folder writable, is there space?") from error
    finally:
        for leftover in (draft, *_companions(draft)):
            with suppress(FileNotFoundError):
                leftover.unlink()


def _refuse_existing(path: Path) -> None:
    """Refuse the file itself, or a write-ahead log left by a file of its name, which would corrupt a new one."""
    existing = [str(p) for p in (path, *_companions(path)) if os.path.lexists(p)]
    if existing:
        raise LedgerBroken(
            f"{' and '.join(existing)} exists already and is not overwritten. To replace the file, first "
            f"move all of {path}* elsewhere, and keep them"
        )


def _companions(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal")]


def _flush(path: Path) -> None:
    """Flush to disk: a file's content, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
