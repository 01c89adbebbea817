"""One process a run, so many at once, the others in a queue; and what becomes of runs that die."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from server.deployment import people, pki, queue, register, signing, stopping, superexec
from server.deployment.server_dir import ServerDir, ServerSettings, make
from server.deployment.superexec import SuperExec, _Playing
from server.runtime.flower_private import Control, ControlRefused, RunAcquirer, RunStatus
from server.study.folder import StudyFolder, locked
from tasks.protocol import enrolment
from tests.server.deployment.superlink import Acquirer, SuperLink


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    settings = ServerSettings(host="localhost", superlink_port=1, studies_of_one_person=5)  # nobody listens there
    made = make(tmp_path / "home", settings)
    pki.create_authority(made)
    return made


def alone(home: ServerDir) -> SuperExec:
    """With a SuperLink that does not answer."""
    acquirer = RunAcquirer(home.superlink, home.authority, home.superexec_secret.read_bytes())
    return SuperExec(home, acquirer, Control(home.superlink, home.authority))


def ended(run: int, code: int) -> _Playing:
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait(60)
    return _Playing(run, process)


def test_who_asked_for_a_run_that_died_before_it_had_a_study_is_told(home: ServerDir) -> None:
    superexec = alone(home)
    superexec._playing.append(ended(7, 2))
    superexec._reap()
    error = json.loads((home.runs / "7.json").read_text("utf-8"))["error"]
    assert "code 2" in error
    assert "run-7.log" in error
    assert superexec._playing == []


def test_a_run_that_has_named_its_study_keeps_it(home: ServerDir) -> None:
    superexec = alone(home)
    (home.runs / "8.json").write_text('{"study": "busi-1"}', "utf-8")
    superexec._playing += [ended(8, 1), ended(9, 0)]
    superexec._reap()
    assert json.loads((home.runs / "8.json").read_text("utf-8")) == {"study": "busi-1"}
    assert not (home.runs / "9.json").exists(), "it ended well"


class Sleeping:
    """In place of the program that plays a run: it sleeps, and its exit is in our hands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        real = subprocess.Popen

        def popen(words: list[str], **options: Any) -> subprocess.Popen[bytes]:
            options.pop("preexec_fn")
            process = real([words[0], "-c", "import time; time.sleep(600)"], **options)
            self.started.append(process)
            return process

        monkeypatch.setattr(superexec.subprocess, "Popen", popen)

    def running(self) -> int:
        return sum(process.poll() is None for process in self.started)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()


class Played:
    """A SuperExec with Flower's real list of keys and scripted runs; each ``step`` is one turn of its loop."""

    def __init__(self, home: ServerDir, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.superlink = home, SuperLink()
        self.acquirer = Acquirer(self.superlink)
        self.processes = Sleeping(monkeypatch)
        self.now = 1e6
        monkeypatch.setattr(superexec.os, "cpu_count", lambda: 100)
        self.anew()

    def anew(self) -> None:
        """As after a restart of the program."""
        self.superexec = SuperExec(self.home, cast(RunAcquirer, self.acquirer), cast(Control, self.superlink))

    def ask(self, by: str = "rosalind", **study: object) -> int:
        """A researcher's study, signed."""
        me = self.home.path / "researchers" / f"{by}.pem"
        return self.superlink.start(
            signing.signed({"resume": "auto", "seed": len(self.superlink.texts)} | study, me, me)
        )

    def asked_to_stop(self, wanted: str, name: str = "rosalind") -> int:
        me = self.home.path / "researchers" / f"{name}.pem"
        return self.superlink.start(signing.signed(stopping.text(wanted), me, me))

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.superexec._due.clear()
            self.superexec._leases.renew_all()
            self.superexec._step()

    def status(self, run: int, status: str) -> None:
        self.superlink.statuses[run] = RunStatus(status, "", "")

    def name(self, run: int, study: str) -> None:
        """What the process of a run does first: its study has a folder."""
        folder = self.home.path / "studies" / study
        folder.mkdir(exist_ok=True)
        config = {"seed": study, "experiment": "x", "resume": "auto"}
        facts = {"study": study, "finished": False, "config": config, "state": "running", "run": run}
        (folder / "study.json").write_text(json.dumps(facts))
        (self.home.runs / f"{run}.json").write_text(json.dumps({"study": study}))
        self.status(run, "running")

    def playing(self) -> list[int]:
        return [one.run for one in self.superexec._playing]

    def kill(self, run: int) -> None:
        process = next(one.process for one in self.superexec._playing if one.run == run)
        process.kill()
        process.wait()


@pytest.fixture
def played(home: ServerDir, monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    pki.issue_server(home)
    people.issue(home, "rosalind")
    made = Played(home, monkeypatch)
    yield made
    made.processes.close()


def told_of(home: ServerDir, run: int) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((home.runs / f"{run}.json").read_text())
    return facts


def test_so_many_run_and_the_others_wait_in_order(played: Played) -> None:
    runs = [played.ask() for _ in range(8)]
    played.step(3)
    assert played.playing() == runs[:5]
    facts = json.loads((played.home.runs / "queue.json").read_text())
    assert [one["run"] for one in facts["waiting"]] == runs[5:]
    assert {one["by"] for one in facts["waiting"]} == {"rosalind"}
    played.name(runs[0], "a-1")
    played.step(2)
    assert len(played.playing()) == 5, "a study keeps the place of its process"
    shutil.rmtree(played.home.path / "studies" / "a-1")
    played.status(runs[0], "finished")
    played.kill(runs[0])
    played.step(2)
    assert played.playing() == runs[1:6]


def test_one_person_leaves_a_place_to_others(played: Played) -> None:
    """Also after a restart, when the server itself has submitted what goes on."""
    people.issue(played.home, "grace")
    played.home = replace(played.home, settings=played.home.settings.model_copy(update={"studies_of_one_person": None}))
    played.anew()
    runs = [played.ask() for _ in range(7)]
    played.step(3)
    assert played.playing() == runs[:4], "the fifth place is free"
    theirs = [played.ask("grace") for _ in range(2)]
    played.step(2)
    assert played.playing() == [*runs[:4], theirs[0]]
    for number, run in enumerate(played.playing()):
        played.name(run, f"a-{number}")
        folder = StudyFolder(f"a-{number}", played.home.path / "studies" / f"a-{number}", resumed=True)
        folder.note(asked_by="grace" if run == theirs[0] else "rosalind")
    for run in played.playing():
        played.kill(run)
        played.status(run, "finished")
    for run in (*runs[4:], theirs[1]):
        played.acquirer.lapse(run)
    played.anew()
    played.step(3)
    assert {told_of(played.home, run)["study"] for run in played.playing()} == {f"a-{number}" for number in range(5)}
    grace = next(run for run in played.playing() if told_of(played.home, run)["study"] == "a-4")
    shutil.rmtree(played.home.path / "studies" / "a-4")
    played.status(grace, "finished")
    played.kill(grace)
    played.step(3)
    assert played.playing()[4:] == [theirs[1]], "rosalind's came first, and four of hers run already"


def test_whose_one_study_at_a_time_it_is_has_that_place(home: ServerDir) -> None:
    assert ServerSettings(host="x", studies_at_once=1).most_of_one_person == 1
    assert ServerSettings(host="x").most_of_one_person == 4
    assert home.settings.most_of_one_person == 5


def test_a_claim_is_renewed_until_the_process_has_begun_and_no_longer(played: Played) -> None:
    run = played.ask()
    played.step(3)
    assert run in played.superexec._leases._tokens
    played.name(run, "a-1")
    played.step()
    assert run not in played.superexec._leases._tokens


def test_a_run_that_comes_again_has_one_process(played: Played) -> None:
    """The wrong version starts another one beside it, and stops the run with the failure of the first."""
    run = played.ask()
    played.step()
    for _ in range(3):
        played.acquirer.lapse(run)
        played.step()
        assert played.playing() == [run]
        assert played.processes.running() == 1
    assert played.superlink.stopped == []


def test_what_had_begun_goes_on_before_what_waits(played: Played) -> None:
    waiting = [played.ask() for _ in range(3)]
    played.step()
    for number in range(5):
        played.name(900 + number, f"b-{number}")
        played.status(900 + number, "running")  # by a process that was killed with the whole server
    for one in list(played.superexec._playing):
        played.kill(one.run)
        played.status(one.run, "pending")
    played.anew()
    played.step(2)
    assert len(played.playing()) == 5
    assert not set(played.playing()) & set(waiting)
    assert {told_of(played.home, run)["study"] for run in played.playing()} == {f"b-{number}" for number in range(5)}


@pytest.mark.parametrize("how", ["process died", "database lost", "everything died"])
def test_nothing_that_was_accepted_dies_unborn(played: Played, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = played.ask(seed=5)
    played.step()
    played.kill(run)
    if how == "database lost":
        played.superlink.lose()
    if how == "everything died":
        played.anew()
        played.status(run, "finished")
    played.step()
    monkeypatch.setattr(superexec.time, "time", lambda: 1e10)
    played.step(2)
    again = told_of(played.home, run)["again"]
    assert played.playing() == [again]
    monkeypatch.undo()
    asked = signing.read(played.home, again, played.superlink.texts[again])
    assert (asked.name, asked.study["seed"]) == ("rosalind", 5)


def test_what_dies_every_time_is_given_up_and_says_why(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    run = played.ask()
    later = iter(range(10**10, 10**11, 10**6))
    monkeypatch.setattr(superexec.time, "time", lambda: float(next(later)))
    for _ in range(4 * superexec.MOST_BIRTHS):
        played.step()
        for one in played.playing():
            played.kill(one)
    while "again" in (facts := told_of(played.home, run)):
        run = facts["again"]
    assert "code -9 before the study started" in facts["error"]
    assert len(played.processes.started) == superexec.MOST_BIRTHS
    assert not list(played.home.queue.iterdir())


def test_who_submits_a_running_study_again_follows_it_without_a_process(played: Played) -> None:
    run = played.ask()
    played.step()
    played.name(run, "a-1")
    again = played.superlink.start(
        signing.signed({"seed": "a-1", "experiment": "x", "resume": "auto"},
                       *[played.home.path / "researchers" / "rosalind.pem"] * 2)
    )  # fmt: skip
    played.step(2)
    assert told_of(played.home, again) == {"study": "a-1", "asked_by": "rosalind"}
    assert again in played.superlink.stopped
    assert len(played.processes.started) == 1


def test_a_study_that_its_researcher_stops_is_ended_and_never_resumed(played: Played) -> None:
    run = played.ask()
    played.step()
    played.name(run, "a-1")
    folder = StudyFolder("a-1", played.home.path / "studies" / "a-1", resumed=True)
    folder.note(asked_by="rosalind")
    asked = played.asked_to_stop("a-1")
    with locked(folder):  # as its process does, which the SuperLink's own stop does not reach here
        played.step(2)
        assert told_of(played.home, asked) == {"stopped": "a-1"}
        assert asked in played.superlink.stopped
        assert played.processes.started[0].wait(20) == -9
    played.step(3)
    assert (folder.facts()["state"], folder.facts()["stopped"]["by"]) == ("stopped", "rosalind")
    played.anew()
    played.step(3)
    assert (len(played.processes.started), len(played.superlink.texts)) == (1, 2)


def test_nobody_else_stops_it_nor_what_waits(played: Played) -> None:
    people.issue(played.home, "mallory")
    people.issue(played.home, "emmy", "reader")
    runs = [played.ask() for _ in range(6)]
    played.step(2)
    played.name(runs[0], "a-1")
    StudyFolder("a-1", played.home.path / "studies" / "a-1", resumed=True).note(asked_by="rosalind")
    for name in ("mallory", "emmy"):
        for wanted in ("a-1", str(runs[0]), str(runs[5])):
            asked = played.asked_to_stop(wanted, name)
            played.step(2)
            assert told_of(played.home, asked)["state"] == "failed", (name, wanted)
    assert played.processes.running() == 5
    assert sorted(queue.Queue(played.home).waiting()) == runs
    asked = played.asked_to_stop(str(runs[5]))
    played.step(2)
    played.kill(runs[1])  # there is a place
    played.step(3)
    assert told_of(played.home, asked) == {"stopped": f"run {runs[5]}"}
    assert "stopped by rosalind while it waited" in told_of(played.home, runs[5])["error"]
    assert runs[5] not in queue.Queue(played.home).waiting()


def test_a_proposal_does_not_wait_behind_studies(played: Played) -> None:
    for _ in range(7):
        played.ask()
    proposal = played.ask(propose="document.json")
    played.step(2)
    assert proposal in played.playing()
    assert len(played.playing()) == 6


@pytest.mark.parametrize("text", ["", "{}", "\x00", "[" * 5000, '{"text": "{}", "certificate": "", "signature": ""}'])
def test_a_text_that_nobody_signed_costs_no_process(played: Played, text: str) -> None:
    run, good = played.superlink.start(text), played.ask()
    played.step(2)
    assert "is not known who submits it" in told_of(played.home, run)["error"]
    assert played.playing() == [good]


@pytest.mark.parametrize("depth", [50, 180, 900, 20_000])
def test_a_text_without_an_end_costs_its_sender_the_study_and_nobody_else(played: Played, depth: int) -> None:
    run = played.ask(x=nested(min(depth, 900))) if depth <= 900 else played.superlink.start("[" * depth)
    good = played.ask()
    played.step(2)
    assert "nested" in told_of(played.home, run)["error"] or "not signed" in told_of(played.home, run)["error"]
    assert played.playing() == [good]
    played.anew()
    played.step()


def test_a_text_that_cannot_be_fetched_holds_up_nobody_else(played: Played) -> None:
    run, good = played.ask(), played.ask()
    fetch = played.superlink.text

    def fetched(number: int) -> str:
        if number == run:
            raise ControlRefused("HTTP 500")
        return fetch(number)

    played.superexec._control.text = fetched  # type: ignore[method-assign]
    played.step(2)
    assert played.playing() == [good]
    played.superexec._control.text = fetch  # type: ignore[method-assign]
    played.step()
    assert played.playing() == [good, run]


def test_what_somebody_stops_while_it_waits_is_not_submitted_again(played: Played) -> None:
    runs = [played.ask() for _ in range(7)]
    played.step(2)
    played.superlink.stop(runs[6])
    played.acquirer.tokens = {token: run for token, run in played.acquirer.tokens.items() if run != runs[6]}
    played.step(3)
    assert "stopped while it waited" in told_of(played.home, runs[6])["error"]
    assert played.superlink.texts.keys() == set(runs), "nothing was submitted again"
    assert [one["run"] for one in json.loads((played.home.runs / "queue.json").read_text())["waiting"]] == [runs[5]]


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def test_a_process_that_the_superlink_has_given_up_is_ended(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    run = played.ask()
    played.step()
    played.name(run, "a-1")
    played.step()
    played.status(run, "finished")  # its heartbeats stopped, although it lives: SIGSTOP
    monkeypatch.setattr(superexec, "_DEAF_S", -1.0)
    played.step(2)
    played.superexec._playing[0].process.wait(20)
    played.step(3)
    assert told_of(played.home, played.playing()[0])["study"] == "a-1"
    assert played.playing() != [run]


def test_hospitals_are_registered_before_any_study_goes_on(played: Played) -> None:
    request = enrolment.request("alder", enrolment.new_key(), 200)
    register.admit(played.home, cast(Control, played.superlink), request)
    played.superlink.lose()
    played.superlink.away = True
    run = played.superexec
    with pytest.raises(ControlRefused):
        run._step()
    assert not run._registered
    played.superlink.away = False
    played.ask()
    played.step()
    assert played.superlink.may_join(request.public_key.encode())
    assert len(played.playing()) == 1


def test_a_full_disk_loses_no_submission(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    run = played.ask()
    with monkeypatch.context() as full:

        def write(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        for module in (queue, register, signing):
            full.setattr(module, "write_whole", write, raising=False)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                played.step()
        assert played.playing() == []
    played.step(2)
    assert played.playing() == [run]


def test_whatever_a_text_provokes_costs_its_sender_that_text(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of 5,000 digits is no number to Python; an odd certificate has errors of its own kind."""
    long, odd = played.asked_to_stop("9" * 5000), played.ask()
    read = signing.read

    def stumbling(home: ServerDir, run: int, text: str) -> signing.Asked:
        if run == odd:
            raise LookupError("of a kind that nobody thought of")
        return read(home, run, text)

    monkeypatch.setattr(superexec.signing, "read", stumbling)
    honest = played.ask()
    played.step()
    assert played.playing() == [honest]
    assert "no study" in queue.run_facts(played.home, long)["error"]
    assert queue.run_facts(played.home, odd) == {
        "state": "failed", "error": "Its text cannot be processed (LookupError)"
    }  # fmt: skip
    assert not played.superexec._claimed


def test_nobody_fills_the_queue_and_those_of_whom_fewer_run_come_first(played: Played) -> None:
    people.issue(played.home, "hedy")
    mine = [played.ask() for _ in range(superexec.MOST_WAITING + 7)]
    played.step(4)
    refused = [run for run in mine if "wait already" in queue.run_facts(played.home, run).get("error", "")]
    at_once = played.home.settings.studies_at_once
    assert len(refused) >= 7 - at_once
    assert len(queue.Queue(played.home).waiting()) <= superexec.MOST_WAITING
    me = played.home.path / "researchers" / "hedy.pem"
    hers = played.superlink.start(signing.signed({"resume": "auto", "seed": 999}, me, me))
    played.step()
    assert next(played.superexec._in_order()).run == hers
    assert hers not in played.playing()
