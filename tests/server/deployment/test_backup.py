"""A server's folder copied while everything in it changes, and made again from the copy."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from server.cli.main import app
from server.deployment.backup import LISTED
from server.deployment.server_dir import ServerDir, read
from server.rounds.checkpoint import read_state, write_state
from server.rounds.state import StudyState

RUN = CliRunner()


def said(*words: str | Path, code: int = 0) -> str:
    ended = RUN.invoke(app, list(map(str, words)))
    assert ended.exit_code == code, ended.output
    return " ".join(ended.output.split())


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    """A server with a researcher, a study, a submission, both databases, and what a backup leaves out."""
    path = tmp_path / "home"
    said("init", "--host", "federation.example.org", "--home", path)
    (path / "researchers" / "rosalind.pem").write_text("a key")
    (path / "queue" / "7.json").write_text("{}")
    (path / "witness" / "alder").write_text("ab" * 32)
    (path / "hospitals.json").write_text("[]")
    (path / "logs" / "up.log").write_text("a line")
    (path / "up.json").write_text("{}")
    (path / "mlflow" / "artifacts").mkdir()
    (path / "mlflow" / "artifacts" / "figure.svg").write_text("<svg/>")
    for name in ("superlink/state.db", "mlflow/mlflow.db"):
        with closing(sqlite3.connect(path / name)) as database:
            database.execute("PRAGMA journal_mode=wal")
            database.execute("CREATE TABLE pairs (one INTEGER, other INTEGER)")
    commit(path / "studies" / "lung" / "federated", 0)
    return read(path)


def commit(folder: Path, number: int) -> None:
    write_state(folder, StudyState({"weight": np.full((200, 200), number, np.float32)}, []))


@contextmanager
def meanwhile(change: Callable[[int], None]) -> Iterator[None]:
    """Something changes all the time."""
    done = threading.Event()

    def work() -> None:
        number = 0
        while not done.is_set():
            change(number := number + 1)
            time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_server_is_restored_elsewhere_as_it_was(home: ServerDir, tmp_path: Path) -> None:
    said("backup", tmp_path / "copy", "--home", home.path)
    told = said("restore", tmp_path / "copy", "--home", tmp_path / "elsewhere")
    assert "must never run again" in told
    restored = read(tmp_path / "elsewhere")
    kept = ("pki", "researchers", "queue", "witness", "studies", "mlflow/artifacts", "superlink/superexec.secret")
    for name in (*kept, "hospitals.json", "server.yaml", "invitation.json"):
        for path in [home.path / name, *(home.path / name).rglob("*")]:
            if path.is_file():
                assert (restored.path / path.relative_to(home.path)).read_bytes() == path.read_bytes()
    assert not (restored.path / "logs" / "up.log").exists()
    assert not (restored.path / "up.json").exists()
    for path in restored.path.rglob("*"):
        assert not path.stat().st_mode & 0o077 or path.parent.name == "fence", path
    assert stat.S_IMODE(restored.path.stat().st_mode) == 0o700
    assert str(restored.path) in (restored.path / "fence" / "nginx.conf").read_text()


def test_a_volume_that_is_there_and_empty_is_filled_and_an_interrupted_restore_is_repeated(
    home: ServerDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount point can be neither renamed nor removed, and what is beside it may be read-only."""
    said("backup", tmp_path / "copy", "--home", home.path)
    volume = tmp_path / "volume"
    (volume / "lost+found").mkdir(parents=True)
    monkeypatch.setattr(Path, "rmdir", lambda path: pytest.fail("a volume") if path == volume else os.rmdir(path))
    (volume / ".restoring").mkdir()
    (volume / ".restoring" / "half").write_text("of an earlier try")
    said("restore", tmp_path / "copy", "--home", volume)
    assert read(volume).hospitals() == home.hospitals()
    assert not (volume / ".restoring").exists()
    assert not (volume / "half").exists()
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_databases_are_whole_though_they_are_written_to(home: ServerDir, tmp_path: Path) -> None:
    database = sqlite3.connect(home.database, check_same_thread=False, isolation_level=None)

    def pair(number: int) -> None:
        """Two rows of one transaction."""
        database.execute("BEGIN")
        database.execute("INSERT INTO pairs VALUES (?, 0)", (number,))
        database.execute("INSERT INTO pairs VALUES (0, ?)", (number,))
        database.execute("COMMIT")

    with closing(database), meanwhile(pair):
        time.sleep(0.2)
        said("backup", tmp_path / "copy", "--home", home.path)
    with closing(sqlite3.connect(tmp_path / "copy" / "superlink" / "state.db")) as copied:
        assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows, ones, others = copied.execute("SELECT count(*), sum(one), sum(other) FROM pairs").fetchone()
    assert rows > 0
    assert ones == others, "no half of a transaction"


def test_a_study_is_whole_though_it_commits_rounds(home: ServerDir, tmp_path: Path) -> None:
    folder = home.path / "studies" / "lung" / "federated"
    with meanwhile(lambda number: commit(folder, number)):
        for copy in range(5):
            facts = json.loads(said("backup", tmp_path / f"copy-{copy}", "--home", home.path, "--json"))
            assert facts["damaged"] == []
            assert read_state(tmp_path / f"copy-{copy}" / "studies" / "lung" / "federated") is not None


def test_a_study_that_is_damaged_is_named_and_hinders_no_backup(
    home: ServerDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.deployment.backup._PAUSE_S", 0.0)
    next((home.path / "studies" / "lung" / "federated").glob("*.safetensors")).write_bytes(b"")
    assert "lung are damaged" in said("backup", tmp_path / "copy", "--home", home.path)
    said("restore", tmp_path / "copy", "--home", tmp_path / "elsewhere")


def test_what_would_destroy_something_is_refused(home: ServerDir, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    said("backup", copy, "--home", home.path)
    assert "exists already" in said("backup", copy, "--home", home.path, code=1)
    assert "lies in the server's own folder" in said("backup", home.path / "copy", "--home", home.path, code=1)
    assert "is not empty" in said("restore", copy, "--home", home.path, code=1)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda copy: (copy / LISTED).unlink(), "no complete backup"),
        (lambda copy: (copy / LISTED).write_text("{}"), "no complete backup"),
        (lambda copy: (copy / "pki" / "authority.key").unlink(), "lacks pki/authority.key"),
        (lambda copy: (copy / "hospitals.json").write_text("[1]"), "is not what was backed up"),
    ],
    ids=["interrupted", "no list", "a file lost", "a file changed"],
)
def test_a_backup_that_is_not_whole_is_refused(
    home: ServerDir, tmp_path: Path, harm: Callable[[Path], object], told: str
) -> None:
    said("backup", tmp_path / "copy", "--home", home.path)
    harm(tmp_path / "copy")
    assert told in said("restore", tmp_path / "copy", "--home", tmp_path / "elsewhere", code=1)
    assert not (tmp_path / "elsewhere").exists()
    harmless = tmp_path / "another"
    said("backup", harmless, "--home", home.path)
    said("restore", harmless, "--home", tmp_path / "elsewhere")
