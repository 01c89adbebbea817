"""Backups made by a clock: the newest are kept, and one that fails is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli.main import app
from server.deployment import backup_series
from server.deployment.backup import LISTED
from server.deployment.observed import ServerLook
from server.deployment.server_dir import ServerDir, read
from tasks.machine.supervision import only_one

RUN = CliRunner()


def said(*words: str | Path, code: int = 0) -> str:
    ended = RUN.invoke(app, list(map(str, words)))
    assert ended.exit_code == code, ended.output
    return " ".join(ended.output.split())


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    said("init", "--host", "federation.example.org", "--home", tmp_path / "home")
    return read(tmp_path / "home")


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each backup is made a day after the one before."""
    passed = iter(range(1000))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 11, 1, 3, tzinfo=UTC) + timedelta(days=next(passed))

    monkeypatch.setattr(backup_series, "datetime", Clock)


def names(series: Path) -> list[str]:
    return sorted(path.name for path in series.iterdir())


def seen(home: ServerDir) -> tuple[float | None, list[str]]:
    """What Prometheus and the operators' hook are told of backups."""
    look = ServerLook(home, dict)()
    ages = [one.value for one in look.figures if one.name == "consilium_server_backup_age_seconds"]
    return (ages[0] if ages else None), [one.text for one in look.notices if one.kind == "backup"]


@pytest.mark.usefixtures("days")
def test_the_newest_are_kept_and_what_is_not_ours_stays(home: ServerDir, tmp_path: Path) -> None:
    series = tmp_path / "copies"
    series.mkdir()
    (series / "2020-01-01T000000Z").mkdir()  # a failed one
    (series / "2020-01-02T000000Z").write_text("a file")
    (series / "letters").mkdir()
    of_another = series / "2020-01-03T000000Z"
    of_another.mkdir()
    (of_another / LISTED).write_text(json.dumps({"host": "other.example.org", "files": {}}))
    for _ in range(5):
        said("backup", series, "--keep", 3, "--home", home.path)
    made = [f"2026-11-0{day}T030000Z" for day in (3, 4, 5)]
    assert names(series) == ["2020-01-02T000000Z", "2020-01-03T000000Z", *made, "letters"]
    said("restore", series / made[-1], "--home", tmp_path / "elsewhere")


@pytest.mark.usefixtures("days")
def test_one_that_fails_is_told_takes_no_older_one_and_is_cleared_away(
    home: ServerDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = tmp_path / "copies"
    assert seen(home) == (None, [])
    said("backup", series, "--keep", 1, "--home", home.path)
    age, told = seen(home)
    assert age is not None
    assert 0 <= age < 60
    assert told == []
    (kept,) = names(series)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("server.deployment.backup._copy_database", full)
        (home.path / "mlflow" / "mlflow.db").write_bytes(b"")
        assert "the disk is full" in said("backup", series, "--keep", 1, "--home", home.path, code=2)
    assert kept in names(series)
    assert "No space left on device" in seen(home)[1][0]
    assert seen(home)[0] is not None, "of the older one"
    said("backup", series, "--keep", 1, "--home", home.path)
    assert seen(home)[1] == []
    assert len(names(series)) == 1


def test_one_whose_process_was_killed_is_told_after_a_while(
    home: ServerDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from server.deployment import backup_series; from server.deployment.server_dir import read\n"
        "with backup_series.noted(read(Path(sys.argv[1]))): print('begun', flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-c", program, str(home.path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert seen(home) == (None, [])
    now = time.time()
    monkeypatch.setattr(backup_series.time, "time", lambda: now + 7 * 3600)
    assert "has not ended" in seen(home)[1][0]


def test_two_at_once_are_refused(home: ServerDir, tmp_path: Path) -> None:
    with only_one(home.path / "backup.lock"):
        assert "another backup" in said("backup", tmp_path / "copy", "--home", home.path, code=1)


def test_a_full_disk_at_the_server_hinders_no_backup_elsewhere(
    home: ServerDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup_series, "write_whole", full)
    said("backup", tmp_path / "copies", "--keep", 2, "--home", home.path)
    assert (next((tmp_path / "copies").iterdir()) / LISTED).exists()
