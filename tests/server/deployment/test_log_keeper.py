"""nginx's logs are set aside when they have grown, and asked for until nginx has opened the new ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from server.deployment import log_keeper, study_logs
from server.deployment.log_keeper import LogKeeper
from server.deployment.server_dir import ServerSettings, make


def test_nginx_is_asked_until_it_can_be(tmp_path: Path) -> None:
    home = make(tmp_path / "home", ServerSettings(host="localhost", log_megabytes=0.1))
    grown, small = home.logs / "fence-access.log", home.logs / "fence.log"
    grown.write_bytes(b"x" * 100_001)
    small.write_bytes(b"x" * 100_000)
    answers = iter([False, True])
    asked: list[int] = []

    def reopen() -> bool:
        asked.append(1)
        return next(answers)

    keep = LogKeeper(home, reopen)
    for _ in range(3):
        keep._due = 0.0
        keep()
    assert len(asked) == 2
    assert (grown.stat().st_size, grown.with_name("fence-access.log.1").stat().st_size) == (0, 100_001)
    assert small.stat().st_size == 100_000


def test_the_log_of_a_study_that_goes_on_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_keeper, "MOST_RUNS", 2)
    home = make(tmp_path / "home", ServerSettings(host="localhost"))
    for run in range(6):
        path = home.logs / study_logs.file_of(run)
        path.write_text("x")
        os.utime(path, (run, run))
        study_logs.show(home, "ada", f"busi-{run}", run)
    folder = home.path / "studies" / "busi-0"
    folder.mkdir()
    facts = {"study": "busi-0", "finished": False, "config": {}, "state": "running", "run": 1, "runs": [0, 1]}
    (folder / "study.json").write_text(json.dumps(facts))
    LogKeeper(home, lambda: True)()
    assert sorted(path.name for path in home.logs.glob("run-*")) == ["run-0.log", "run-1.log"]
    assert sorted(path.name for path in home.shown.rglob("*.log")) == ["run-0.log", "run-1.log"]


def test_it_looks_every_few_seconds_and_no_full_disk_ends_it(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    home = make(tmp_path / "home", ServerSettings(host="localhost", log_megabytes=0.1))
    (home.logs / "fence.log").write_bytes(b"x" * 100_001)
    tried: list[int] = []

    def full(path: Path) -> None:
        tried.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_keeper, "set_aside", full)
    keep = LogKeeper(home, lambda: True)
    keep()
    keep()
    assert tried == [1]
