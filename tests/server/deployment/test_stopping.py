"""Who may stop what: a researcher their own, a coordinator all, nobody by a name that is a path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from server.deployment import queue, stopping
from server.deployment.people import Person
from server.deployment.queue import Queue, Submission
from server.deployment.server_dir import ServerDir, ServerSettings, make
from server.deployment.unfinished import UnfinishedStudies
from server.errors import NotAllowed, StudyError
from server.runtime.flower_private import Control
from server.study.folder import FAILED, FINISHED, RUNNING, STOPPED, StudyFolder, locked
from tests.server.deployment.superlink import PENDING, SuperLink

ADA, ROSALIND = Person("ada", "researcher"), Person("rosalind", "researcher")
GRACE, EMMY = Person("grace", "coordinator"), Person("emmy", "reader")


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    return make(tmp_path / "home", ServerSettings(host="localhost"))


@pytest.fixture
def superlink() -> SuperLink:
    found = SuperLink()
    found.statuses[7] = PENDING
    return found


def study(home: ServerDir, state: str = RUNNING, asked_by: str | None = "ada") -> StudyFolder:
    folder = StudyFolder("busi-1", home.path / "studies" / "busi-1", resumed=True)
    folder.path.mkdir()
    facts = {"study": "busi-1", "finished": False, "config": {}, "state": state, "run": 7, "asked_by": asked_by}
    (folder.path / "study.json").write_text(json.dumps(facts))
    queue.note_run(home, 7, study="busi-1")
    return folder


def stop(home: ServerDir, superlink: SuperLink, wanted: str, who: Person) -> str:
    return stopping.stop(home, cast(Control, superlink), wanted, who)


@pytest.mark.parametrize("who", [ADA, GRACE, stopping.HERE])
@pytest.mark.parametrize("wanted", ["busi-1", "7"])
@pytest.mark.parametrize("state", [RUNNING, FAILED, "proposed"])
def test_who_may_stops_it(home: ServerDir, superlink: SuperLink, who: Person, wanted: str, state: str) -> None:
    folder = study(home, state)
    assert stop(home, superlink, wanted, who) == "busi-1"
    assert superlink.stopped == [7]
    assert (folder.facts()["state"], folder.facts()["stopped"]["by"]) == (STOPPED, who.name)
    assert UnfinishedStudies(home)() == {}
    assert stop(home, superlink, wanted, who) == "busi-1", "once more changes nothing"


@pytest.mark.parametrize("who", [ROSALIND, EMMY, Person("ada", "reader")])
@pytest.mark.parametrize("wanted", ["busi-1", "7"])
def test_who_may_not_leaves_it_as_it_is(home: ServerDir, superlink: SuperLink, who: Person, wanted: str) -> None:
    folder = study(home)
    with pytest.raises(NotAllowed):
        stop(home, superlink, wanted, who)
    assert (superlink.stopped, folder.facts()["state"]) == ([], RUNNING)
    assert list(UnfinishedStudies(home)()) == ["busi-1"]


def test_it_is_stopped_while_the_superlink_is_away_and_while_it_is_worked_on(
    home: ServerDir, superlink: SuperLink
) -> None:
    folder = study(home)
    superlink.away = True
    with locked(folder):
        assert stop(home, superlink, "busi-1", GRACE) == "busi-1"
        assert UnfinishedStudies(home)() == {}, "nothing resumes it from the first moment on"
        assert folder.facts()["state"] == RUNNING
    superlink.away = False
    assert stopping.end(cast(Control, superlink), folder)
    assert (folder.facts()["state"], superlink.stopped) == (STOPPED, [7])


def test_what_is_finished_stays_so(home: ServerDir, superlink: SuperLink) -> None:
    study(home, FINISHED)
    with pytest.raises(StudyError, match="is finished"):
        stop(home, superlink, "busi-1", GRACE)


@pytest.mark.parametrize("wanted", ["", "busi-2", "../busi-1", "busi-1/", ".", "8", "-1", "٧", "9" * 30, "busi-1\0"])
def test_what_is_not_there_is_told(home: ServerDir, superlink: SuperLink, wanted: str) -> None:
    study(home)
    with pytest.raises(StudyError):
        stop(home, superlink, wanted, GRACE)
    assert superlink.stopped == []


def test_a_submission_that_waits_is_dropped_by_who_may(home: ServerDir, superlink: SuperLink) -> None:
    Queue(home).put(Submission(7, {"seed": 1}, "ada", 0.0))
    queue.note_run(home, 5, again=7)
    with pytest.raises(NotAllowed):
        stop(home, superlink, "5", ROSALIND)
    assert list(Queue(home).waiting()) == [7]
    assert stop(home, superlink, "5", ADA) == "run 7"
    assert (Queue(home).waiting(), superlink.stopped) == ({}, [7])
    assert "stopped by ada while it waited" in queue.run_facts(home, 7)["error"]


@pytest.mark.parametrize("wanted", [None, 7, [], {"x": 1}, "busi-1"])
def test_whatever_is_asked_gets_an_answer_in_words(home: ServerDir, superlink: SuperLink, wanted: object) -> None:
    study(home)
    told = stopping.answer(home, cast(Control, superlink), {"stop": wanted}, ADA)
    assert told.keys() in ({"stopped"}, {"state", "error"})
    assert "error" in stopping.answer(home, cast(Control, superlink), {"stop": "busi-1"}, None)
