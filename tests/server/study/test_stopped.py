"""A study that was ended for good stays so, whatever else happens to its folder, and says what it has spent."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from server.errors import StudyStopped
from server.rounds.state import HospitalRound, RoundRecord
from server.study import stopped
from server.study.folder import FINISHED, RUNNING, STOPPED, StudyFolder, locked


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    path = tmp_path / "busi-1"
    (path / "federated").mkdir(parents=True)
    facts = {"study": "busi-1", "finished": False, "config": {}, "state": RUNNING, "run": 7}
    (path / "study.json").write_text(json.dumps(facts))
    return StudyFolder("busi-1", path, resumed=True)


def commit(folder: StudyFolder, *rounds: dict[str, HospitalRound]) -> None:
    records = [asdict(RoundRecord(number, 1.0, 0.1, hospitals)) for number, hospitals in enumerate(rounds, 1)]
    (folder.path / "federated" / "checkpoint.json").write_text(json.dumps({"rounds": records}))


def test_it_says_who_and_what_was_spent_by_hospital_and_cohort(folder: StudyFolder) -> None:
    commit(
        folder,
        {"alder": HospitalRound(epsilon=1.0), "birch": HospitalRound(epsilon=0.5, evaluation_epsilon=2.0)},
        {"alder": HospitalRound(epsilon=1.5, evaluation_epsilon=2.5), "cedar": HospitalRound()},
    )
    stopped.refuse_stopped(folder)
    assert stopped.mark(folder, "ada")
    assert stopped.settle(folder)
    facts = folder.facts()
    assert (facts["state"], facts["finished"], facts["stopped"]["by"]) == (STOPPED, True, "ada")
    assert facts["spent"] == {
        "alder": {"training": 1.5, "validation": 2.5},
        "birch": {"training": 0.5, "validation": 2.0},
        "cedar": {"training": None, "validation": None},
    }
    assert stopped.rows(facts["spent"])[2] == ("cedar", "-", "-")
    with pytest.raises(StudyStopped, match="stopped by ada"):
        stopped.refuse_stopped(folder)


def test_the_first_who_stops_it_is_named(folder: StudyFolder) -> None:
    assert stopped.mark(folder, "ada")
    assert not stopped.mark(folder, "rosalind")
    assert stopped.settle(folder)
    assert folder.facts()["stopped"]["by"] == "ada"


def test_the_books_are_closed_once_nobody_works_on_it(folder: StudyFolder) -> None:
    stopped.mark(folder, "ada")
    with locked(folder):
        assert not stopped.settle(folder)
        assert [one.name for one in stopped.unsettled(folder.path.parent)] == ["busi-1"]
        folder.note(state=RUNNING)  # by who has not seen it yet
    assert stopped.settle(folder)
    assert stopped.settle(folder)
    assert list(stopped.unsettled(folder.path.parent)) == []
    folder.note(state=RUNNING, finished=False)  # a note that was lost on its way changes nothing
    assert stopped.is_stopped(folder.path)


def test_one_that_finished_first_stays_finished(folder: StudyFolder) -> None:
    stopped.mark(folder, "ada")
    folder.note(state=FINISHED, finished=True)
    assert stopped.settle(folder)
    assert folder.facts()["state"] == FINISHED
    assert not stopped.is_stopped(folder.path)


def test_a_damaged_mark_still_ends_it(folder: StudyFolder) -> None:
    (folder.path / stopped.FILE).write_text("{")
    with pytest.raises(StudyStopped):
        stopped.refuse_stopped(folder)
    assert stopped.settle(folder)
    assert folder.facts()["state"] == STOPPED


@pytest.mark.parametrize("found", [None, [], {"a": 1}, {"a": {"training": "x"}}])
def test_what_a_server_says_of_it_is_shown_as_far_as_it_is_that(found: object) -> None:
    assert all(cell == "-" for row in stopped.rows(found) for cell in row[1:])
