"""Which studies go on, without reading a thousand files that have not changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.deployment.server_dir import ServerDir, ServerSettings, make
from server.deployment.unfinished import UnfinishedStudies
from server.study import stopped
from server.study.folder import FAILED, FINISHED, RUNNING, StudyFolder


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    return make(tmp_path / "home", ServerSettings(host="localhost"))


def study(home: ServerDir, name: str, state: str) -> StudyFolder:
    folder = StudyFolder(name, home.path / "studies" / name, resumed=True)
    folder.path.mkdir(parents=True)
    (folder.path / "study.json").write_text(
        json.dumps({"study": name, "finished": False, "config": {}, "state": state})
    )
    return folder


def test_a_file_is_read_when_it_has_changed_and_not_again(home: ServerDir, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[str]()
    facts = StudyFolder.facts
    monkeypatch.setattr(StudyFolder, "facts", lambda self: (read.append(self.name), facts(self))[1])
    folders = {name: study(home, name, state) for name, state in [("a", RUNNING), ("b", FINISHED), ("c", RUNNING)]}
    look = UnfinishedStudies(home)
    for _ in range(5):
        assert look().keys() == {"a", "c"}
    assert sorted(read) == ["a", "b", "c"]
    folders["c"].note(state=FAILED)
    folders["b"].note(state=RUNNING)
    read.clear()
    for _ in range(5):
        assert look().keys() == {"a", "b"}
    assert sorted(read) == ["b", "c"]


def test_a_study_that_was_stopped_goes_on_no_more_though_its_own_file_says_so(home: ServerDir) -> None:
    folder, look = study(home, "a", RUNNING), UnfinishedStudies(home)
    assert look().keys() == {"a"}
    stopped.mark(folder, "ada")
    assert look() == {}


@pytest.mark.parametrize(
    "text", ["", "[]", '{"study": 1}', '{"study": "b", "finished": 0, "config": 3, "state": "running"}']
)
def test_one_that_cannot_be_read_costs_the_others_nothing_and_is_read_once_it_is_mended(
    home: ServerDir, text: str
) -> None:
    study(home, "a", RUNNING)
    broken = study(home, "b", RUNNING)
    whole = (broken.path / "study.json").read_text()
    (broken.path / "study.json").write_text(text)
    look = UnfinishedStudies(home)
    assert look().keys() == {"a"}
    (broken.path / "study.json").write_text(whole)
    assert look().keys() == {"a", "b"}
