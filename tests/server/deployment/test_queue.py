"""Studies that wait: kept on disk, in an order that people see, and never twice in the same study's way."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from conf import load as conf
from server import app, commands
from server.deployment import queue, superlink_client
from server.deployment.queue import Queue, Submission
from server.deployment.server_dir import ServerDir, ServerSettings, make
from server.deployment.superlink_client import _as_text
from server.deployment.unfinished import UnfinishedStudies
from server.study import document
from server.study.document import open_study
from server.study.folder import RUNNING
from tests.drawn import undrawn

DEPLOYED = ("experiment=deployed", "runtime.address=a:1", "runtime.authority=/pki/ca", "runtime.certificate=/me.pem")
ONE = Submission(7, {"task": {"name": "breast_ultrasound"}}, "rosalind", 1e9)


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    return make(tmp_path / "home", ServerSettings(host="localhost"))


def test_a_submission_outlives_its_process(home: ServerDir) -> None:
    Queue(home).put(ONE)
    assert Queue(home).waiting() == {7: ONE}
    assert stat.S_IMODE((home.queue / "7.json").stat().st_mode) == 0o600
    Queue(home).drop(7)
    Queue(home).drop(7)
    assert Queue(home).waiting() == {}


def test_one_that_was_submitted_again_is_found_under_its_old_number(home: ServerDir) -> None:
    Queue(home).put(ONE)
    assert Queue(home).moved(ONE, 9) == replace(ONE, run=9)
    assert Queue(home).waiting() == {9: replace(ONE, run=9)}
    assert queue.run_facts(home, 7) == {"again": 9}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"run": 1}', "null", "\x00"])
def test_a_file_that_holds_no_submission_costs_the_others_nothing(home: ServerDir, content: str) -> None:
    Queue(home).put(ONE)
    (home.queue / "8.json").write_text(content)
    assert Queue(home).waiting() == {7: ONE}
    assert (home.queue / "8.unreadable").exists()


def test_people_see_who_waits_for_what(home: ServerDir) -> None:
    shown = Queue(home)
    shown.show([ONE, replace(ONE, run=8, study={"task": "x" * 5}, by=None)], {8: "busi-1"}, ["busi-2"])
    facts = json.loads((home.runs / queue.SHOWN).read_text())
    rows = queue.shown(facts)
    assert rows[0][:2] == ("runs", "busi-2")
    assert rows[1][:4] == ("1", "run 7", "breast_ultrasound", "rosalind")
    assert rows[2][:4] == ("2", "busi-1", "", "")
    assert facts["at_once"] == 5


def running(home: ServerDir, *words: str) -> str:
    folder = open_study(app._of_this_server(home, conf.load([*DEPLOYED, *words])))
    folder.note(state=RUNNING, run=1)
    return folder.name


def asked(*words: str) -> Submission:
    """As a researcher submits it."""
    study = conf.load([*DEPLOYED, *words])
    return replace(ONE, study=conf.to_plain(_as_text(study, study.runtime)))  # type: ignore[arg-type]


def test_whoever_submits_a_running_study_follows_it(home: ServerDir) -> None:
    name = running(home, "seed=3")
    found = UnfinishedStudies(home)()
    assert queue.twin_of(found, asked("seed=3")) == name
    assert queue.twin_of(found, asked("seed=3", "tracking=none")) == name, "where results go does not matter"
    assert queue.twin_of(found, asked("seed=4")) is None
    assert queue.twin_of(found, asked("seed=3", "resume=never")) is None, "who wants a new one gets a new one"
    assert queue.twin_of(found, asked("seed=3", "propose=x.json")) is None


def test_what_may_differ_is_what_may_differ_when_a_study_is_resumed() -> None:
    assert queue.NOT_COMPUTED == document.NOT_COMPUTED


def test_a_study_whose_file_is_damaged_costs_the_others_nothing(home: ServerDir) -> None:
    name, other = running(home, "seed=1"), running(home, "seed=2")
    (home.path / "studies" / name / "study.json").write_text("{")
    assert set(UnfinishedStudies(home)()) == {other}


@pytest.mark.parametrize("study", [{}, {"task": 3, "propose": [], "resume": {}}, {"task": {"name": {"a": 1}}}])
def test_a_text_that_describes_no_study_breaks_nothing(home: ServerDir, study: dict[str, object]) -> None:
    running(home)
    one = replace(ONE, study=study)
    assert queue.twin_of(UnfinishedStudies(home)(), one) is None
    Queue(home).show([one], {}, [])
    assert len(queue.shown(json.loads((home.runs / queue.SHOWN).read_text()))) == 1


WORDS = ["runtime.address=localhost:8444", "runtime.authority=ca.crt", "runtime.certificate=me.pem"]


def test_a_researcher_sees_the_queue(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    one = {"run": 7, "study": "", "task": "brain_mr", "by": "[bold]rosalind", "since": "2026-11-30T10:00:00+00:00"}
    shown = {"at_once": 5, "running": ["busi-1"], "waiting": [one]}
    server = SimpleNamespace(facts=lambda path: shown if path == "runs/queue.json" else {})
    monkeypatch.setattr(superlink_client, "ServerConnection", lambda runtime: server)
    assert commands.main(["queue", *WORDS], undrawn) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("busi-1", "run 7", "brain_mr", "[bold]rosalind"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (WORDS[:1], "runtime.authority"),
        (["runtime.address=nowhere", *WORDS[1:]], "must be HOST:PORT"),
        (["runtime.adress=a:1", *WORDS[1:]], "adress"),
        ([*WORDS, "--what"], "--what"),
    ],
)
def test_a_researcher_who_names_no_server_is_told_what_is_missing(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = commands.main(["queue", *words], undrawn)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    assert code == 2
    both = capsys.readouterr()
    assert told in both.out + both.err


def test_certificates_that_are_not_there_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["queue", *WORDS], undrawn) == 2
    told = capsys.readouterr().out
    assert "runtime.authority=ca.crt: there is no such file" in told
    assert "runtime.certificate=me.pem: there is no such file" in told
