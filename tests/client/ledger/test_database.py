"""Files that appear whole or not at all, and SQLite's complaints in plain words."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from client.errors import LedgerTampered, LedgerUnwritable
from client.ledger import database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.sqlite"
    with database.new_file(path) as draft, closing(database.connect(draft)) as db:
        db.execute("CREATE TABLE t (x)")
    return path


def test_a_new_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with database.new_file(path) as draft:
        draft.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), database.new_file(tmp_path / "file"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_another_process_that_was_faster_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(LedgerUnwritable, match=r"cannot create .*file .*exists"), database.new_file(path):
        path.write_text("the other's")
    assert path.read_text() == "the other's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_that_closing_could_not_write_back_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(LedgerUnwritable, match="is the disk full"), database.new_file(path) as draft:
        draft.with_name(f"{draft.name}-wal").write_bytes(b"rows")
    assert list(tmp_path.iterdir()) == []


def _insert(db: sqlite3.Connection, path: Path, *values: str) -> None:
    with database.transaction(db, path):
        for value in values:
            db.execute(f"INSERT INTO t VALUES ({value})")


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    with closing(database.connect(path)) as db:
        _insert(db, path, "1")
        with pytest.raises(sqlite3.OperationalError, match="no such column"):
            _insert(db, path, "2", "nonsense")
        assert db.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_a_file_that_another_holds_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_WAIT", 0.01)
    with closing(database.connect(path)) as one, closing(database.connect(path)) as other:
        with (
            database.transaction(one, path),
            pytest.raises(LedgerUnwritable, match="another process has locked it"),
            database.transaction(other, path),
        ):
            pass
        with database.transaction(other, path):
            other.execute("INSERT INTO t VALUES (1)")


def test_what_it_promises_is_set(path: Path) -> None:
    """A write-ahead log, and every commit on the disk before it returns (2 is FULL), unless less is asked for (1 is
    NORMAL)."""
    for connection, promised in ((database.connect(path), 2), (database.connect(path, database.Outlives.KILL), 1)):
        with closing(connection) as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert db.execute("PRAGMA synchronous").fetchone() == (promised,)


def test_connecting_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnwritable, match="cannot be opened"):
        database.connect(tmp_path / "none.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_damage_is_told_from_a_full_disk() -> None:
    path = Path("x.sqlite")
    damaged, full = sqlite3.DatabaseError("malformed"), sqlite3.OperationalError("database or disk is full")
    damaged.sqlite_errorcode, full.sqlite_errorcode = sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL
    for error, kind in ((damaged, LedgerTampered), (full, LedgerUnwritable)):
        with pytest.raises(kind), database.named_errors(path):
            raise error


def test_a_new_file_and_its_name_are_on_disk_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order: a name of a file whose content was never flushed would outlive a power cut, and hold nothing."""
    steps: list[str] = []
    flush, link = os.fsync, os.link

    def flushed(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        flush(descriptor)

    def linked(draft: Path, target: Path) -> None:
        steps.append("name")
        link(draft, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "link", linked)
    open_before = len(os.listdir("/proc/self/fd"))
    with database.new_file(tmp_path / "new folder" / "file") as draft:
        draft.write_text("whole")
    assert steps == ["content", "name", "folder"]
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_volume_without_write_ahead_logging_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = sqlite3.connect(":memory:")  # SQLite has no write-ahead log there either
    monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: in_memory)
    with pytest.raises(LedgerUnwritable, match="without write-ahead logging: use a local disk"):
        database.connect(path)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        in_memory.execute("SELECT 1")


def test_names_of_a_damaged_schema_are_not_quoted(path: Path) -> None:
    with (
        pytest.raises(LedgerTampered, match=r"a name in its schema is not UTF-8.*newest backup"),
        database.named_errors(path),
    ):
        b"\xff".decode()
