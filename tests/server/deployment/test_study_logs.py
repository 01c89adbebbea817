"""A study's log, run by run and as it grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.deployment import study_logs
from server.deployment.server_dir import ServerDir, ServerSettings, make
from server.study.folder import RUNNING, STOPPED, StudyFolder
from tasks.machine.logs import set_aside


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    return make(tmp_path / "home", ServerSettings(host="localhost"))


def folder(home: ServerDir, **facts: Any) -> StudyFolder:
    made = StudyFolder("busi-1", home.path / "studies" / "busi-1", resumed=True)
    made.path.mkdir(exist_ok=True)
    known = {"study": "busi-1", "finished": False, "config": {}, "state": RUNNING} | facts
    (made.path / "study.json").write_text(json.dumps(known))
    return made


def test_all_runs_one_after_the_other(home: ServerDir) -> None:
    (home.logs / "run-7.log").write_bytes(b"round 1\nround 2\n")
    (home.logs / "run-9.log").write_bytes("round 3\n\x1b[31mä\xff no end".encode("latin-1"))
    source = study_logs.Here(home, folder(home, runs=[7, 8], run=9))
    assert list(study_logs.lines(source, follow=False)) == ["round 1", "round 2", "round 3", "[31m\ufffd\ufffd no end"]


def test_who_follows_sees_each_line_once_and_whole_until_the_study_ends(home: ServerDir) -> None:
    study = folder(home, run=7)
    log = home.logs / "run-7.log"
    turns = [b"rou", b"nd 1\nround", b" 2\n", b"last"]

    def pause(_: float) -> None:
        with log.open("ab") as file:
            file.write(turns.pop(0))
        if not turns:
            folder(home, run=7, state=STOPPED)

    found = list(study_logs.lines(study_logs.Here(home, study), follow=True, pause=pause))
    assert found == ["round 1", "round 2", "last"]


def test_a_log_longer_than_a_piece_is_read_whole(home: ServerDir) -> None:
    text = "x" * 99 + "\n"
    (home.logs / "run-7.log").write_text(text * 30_000)
    assert sum(1 for _ in study_logs.lines(study_logs.Here(home, folder(home, run=7)), False)) == 30_000


@pytest.mark.parametrize("facts", [{}, {"runs": "x"}, {"runs": [None, "7"]}, {"run": None}])
def test_a_study_without_runs_has_no_log(home: ServerDir, facts: dict[str, Any]) -> None:
    assert list(study_logs.lines(study_logs.Here(home, folder(home, **facts)), follow=False)) == []


def test_what_is_shown_lies_under_the_name_of_who_asks(home: ServerDir) -> None:
    for _ in range(2):
        study_logs.show(home, "ada", "busi-1", 7)
    link = home.shown / "logs" / "ada" / "busi-1" / "run-7.log"
    (home.logs / "run-7.log").write_text("x")
    assert link.read_text() == "x"
    study_logs.show(home, None, "busi-1", 8)
    assert [path.name for path in home.shown.rglob("*.log")] == ["run-7.log"]


def test_who_follows_goes_on_when_the_log_was_set_aside(home: ServerDir) -> None:
    study = folder(home, run=7)
    log = home.logs / "run-7.log"
    log.write_bytes(b"round 1\nround 2 of ")
    turns = [b"many\nround 3\n", b"round 4\n"]

    def pause(_: float) -> None:
        if len(turns) == 2:
            set_aside(log)
        with log.open("ab") as file:
            file.write(turns.pop(0))
        if not turns:
            folder(home, run=7, state=STOPPED)

    found = list(study_logs.lines(study_logs.Here(home, study), follow=True, pause=pause))
    assert found == ["round 1", "round 2 of many", "round 3", "round 4"]
