"""A study is stopped and its log read on the server itself, also while nothing runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from server.rounds.state import HospitalRound, RoundRecord
from tests.server.cli.test_people import said


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    said("init", "--host", "federation.example.org", "--home", str(path))
    return path


def study(home: Path, **changes: Any) -> Path:
    folder = home / "studies" / "busi-1"
    (folder / "federated").mkdir(parents=True)
    facts = {"study": "busi-1", "finished": False, "config": {"federation": {"rounds": 9}}, "state": "running",
             "run": 7, "asked_by": "ada"}  # fmt: skip
    (folder / "study.json").write_text(json.dumps(facts | changes))
    record = RoundRecord(1, 1.0, 0.1, {"alder": HospitalRound(epsilon=1.25, evaluation_epsilon=4.0)})
    (folder / "federated" / "checkpoint.json").write_text(json.dumps({"rounds": [asdict(record)]}))
    return folder


def test_a_study_is_stopped_and_says_what_it_has_spent(home: Path) -> None:
    folder = study(home)
    shown = " ".join(said("stop", "busi-1", "--home", str(home)).split())
    assert "busi-1 was stopped by the coordinator for good" in shown
    assert "alder 1.25 4.00" in shown
    assert "may cost more" in shown
    told = json.loads(said("stop", "busi-1", "--home", str(home), "--json"))
    assert told == {"stopped": "busi-1", "spent": {"alder": {"training": 1.25, "validation": 4.0}}}
    assert json.loads((folder / "study.json").read_text())["state"] == "stopped"
    facts = json.loads(said("status", "--json", "--home", str(home), code=3))["studies"]["busi-1"]
    assert (facts["state"], facts["asked_by"]) == ("stopped", "ada")


def test_what_is_finished_or_unknown_is_not_stopped(home: Path) -> None:
    study(home, state="finished", finished=True)
    assert "is finished" in said("stop", "busi-1", "--home", str(home), code=1)
    assert "there is no study" in said("stop", "busi-2", "--home", str(home), code=1)
    assert "no submission waits" in said("stop", "12", "--home", str(home), code=1)


def test_the_log_is_shown_as_text(home: Path) -> None:
    study(home, runs=[7], state="failed")
    (home / "logs" / "run-7.log").write_text("round 1 of 9\n[bold]brackets[/]\n")
    assert said("logs", "busi-1", "--home", str(home)) == "round 1 of 9\n[bold]brackets[/]\n"
    assert said("logs", "busi-1", "--follow", "--home", str(home)).startswith("round 1")
    assert "there is no study" in said("logs", "../x", "--home", str(home), code=1)
