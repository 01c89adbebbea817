"""Files that are whole or not there, and files for their owner alone."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tasks.machine import disk
from tasks.machine.disk import write_changed, write_secret, write_whole


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The umask of whoever started the program."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.json"
    write_whole(path, b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_file_that_several_write_at_once_is_whole_and_fails_nobody(tmp_path: Path) -> None:
    """As studies write what they have seen of one hospital. With one draft for all, one takes the other's away."""
    path, contents = tmp_path / "facts.json", [bytes([n]) * 5000 for n in range(4)]
    (tmp_path / "facts.json.partial").write_bytes(b"what a crash has left" * 1000)

    def write(content: bytes) -> None:
        for _ in range(30):
            write_whole(path, content)

    with ThreadPoolExecutor(len(contents)) as pool:
        written = [pool.submit(write, content) for content in contents]
        while not all(one.done() for one in written):
            if path.exists():
                assert path.read_bytes() in contents
    assert [one.result() for one in written] == [None] * len(contents)
    assert [one.name for one in tmp_path.iterdir()] == ["facts.json"]


def test_a_secret_is_for_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_secret(path, b"first")
    with pytest.raises(FileExistsError):
        write_secret(path, b"second")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("umask")
def test_what_is_made_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    disk.private_folder(tmp_path / "a" / "b")
    disk.write_private(tmp_path / "a" / "c" / "file", b"content")
    with closing(sqlite3.connect(disk.private_database(tmp_path / "a" / "d" / "x.sqlite"))) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
        made = sorted((tmp_path / "a").rglob("*"))
        assert {path.name for path in made} == {"b", "c", "file", "d", "x.sqlite", "x.sqlite-wal", "x.sqlite-shm"}
        assert all(mode(path) == (0o700 if path.is_dir() else 0o600) for path in [tmp_path / "a", *made])
        assert list(disk.open_to_others(tmp_path / "a")) == []


@pytest.mark.usefixtures("umask")
def test_the_usual_ways_to_make_a_file_are_seen_as_open(tmp_path: Path, umask: int) -> None:
    """What this release replaced: each leaves rights to others unless the umask takes them."""
    (tmp_path / "a" / "b").mkdir(parents=True, mode=0o700)
    (tmp_path / "a" / "file").write_bytes(b"")
    open_ones = [] if umask == 0o077 else [tmp_path / "a", tmp_path / "a" / "file"]
    assert list(disk.open_to_others(tmp_path / "a")) == open_ones


def test_what_an_older_release_left_open_is_closed_when_it_is_used(tmp_path: Path) -> None:
    folder, log, index = tmp_path / "catalog", tmp_path / "catalog" / "site.log", tmp_path / "catalog" / "x.sqlite"
    folder.mkdir()
    log.write_text("old\n")
    with closing(sqlite3.connect(index)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o664)
        assert len(list(disk.open_to_others(folder))) == 5
        disk.private_database(index)
        with disk.private_file(log).open("a") as file:
            file.write("new\n")
        assert list(disk.open_to_others(folder)) == []
    assert log.read_text() == "old\nnew\n"


def test_a_database_keeps_its_locks_while_it_is_closed_to_others(tmp_path: Path) -> None:
    """Opening and closing the file once more, as ``touch`` does, would lose them to other processes."""
    path = disk.private_database(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("BEGIN EXCLUSIVE")
        path.chmod(0o644)
        disk.private_database(path)
        other = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('BEGIN EXCLUSIVE')"
        ended = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
        assert "database is locked" in ended.stderr
    assert mode(path) == 0o600


def test_links_are_followed_and_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "catalog").symlink_to(tmp_path / "disk")
    (tmp_path / "site.log").symlink_to(tmp_path / "disk" / "real.log")
    (tmp_path / "disk" / "round").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "nothing").symlink_to(tmp_path / "gone")
    before = os.umask(0)
    try:
        disk.private_folder(tmp_path / "catalog")
        disk.private_file(tmp_path / "site.log")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "disk"), mode(tmp_path / "disk" / "real.log")) == (0o700, 0o600)
    assert list(disk.open_to_others(tmp_path / "catalog")) == []
    kept = mode(Path("/dev/null"))
    for device in ("/dev/null", "/dev/stdout"):  # a log in a container
        disk.private_file(Path(device))
    assert mode(Path("/dev/null")) == kept


def test_what_belongs_to_another_user_is_left_to_him(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    path.chmod(0o644)
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        disk.close_to_others(path)
        assert list(disk.open_to_others(path)) == [path]
    disk.close_to_others(path)
    assert list(disk.open_to_others(path)) == []


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write_private(tmp_path / "file", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        disk.write_private(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_program_that_keeps_to_its_owner_makes_what_libraries_make_for_him_alone(tmp_path: Path) -> None:
    program = "import sys; from tasks.machine import disk; disk.keep_to_owner(); open(sys.argv[1], 'w').close()"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], umask=0, check=True)
    assert mode(tmp_path / "file") == 0o600


def test_a_file_that_has_not_changed_is_left_alone_and_one_deleted_between_two_looks_is_written(tmp_path: Path) -> None:
    path = tmp_path / "told.json"
    write_changed(path, b"one", mode=0o600)
    first = path.stat().st_ino
    write_changed(path, b"one", mode=0o600)
    assert path.stat().st_ino == first
    write_changed(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_ino != first

    class Deleted(type(path)):  # type: ignore[misc]  # the wrong version asks whether it is there, and then reads it
        def exists(self, *, follow_symlinks: bool = True) -> bool:
            there = super().exists()
            self.unlink(missing_ok=True)
            return bool(there)

    write_changed(Deleted(path), b"three", mode=0o600)
    assert path.read_bytes() == b"three"
