"""What a run brings to a deployed server is text: signed, never interpolated, never a path of this machine."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from conf import load as conf
from conf.schema.runtime import SuperlinkRuntime
from conf.schema.study import Study
from server import app
from server.deployment import people, pki, signing, superlink_client
from server.deployment.server_dir import Hospital, ServerDir, ServerSettings, make
from server.errors import (
    NotAdmitted,
    NotAllowed,
    NotSigned,
    ServerMisconfigured,
    ServerUnreachable,
    StudyError,
    StudyStopped,
    TrackingFailed,
    UninformativeStudy,
)
from server.study import stopped
from server.study.document import document_of, fixed_sizes, model_of, open_study, weights_file
from server.study.folder import StudyFolder
from tasks.protocol import study as documents

DEPLOYED = ("experiment=deployed", "runtime.address=a:1", "runtime.authority=/pki/ca", "runtime.certificate=/me.pem")
VIT = ("model=vit", "model.patch=32", "model.width=24", "model.layers=1", "model.heads=3")


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    made = make(tmp_path / "home", ServerSettings(host="localhost"))
    pki.create_authority(made)
    pki.issue_server(made)
    people.issue(made, "rosalind")
    made.register({name: Hospital(name, n, "k", "now", 100 * n) for n, name in enumerate(("ash", "elm"), 1)})
    return made


def handed_in(home: ServerDir, *overrides: str, by: str = "rosalind", **changes: Any) -> dict[str, Any]:
    """Play a run of a study that a researcher proposes. Gives what the run's file says."""
    values = conf.to_plain(conf.load([*DEPLOYED, "propose=x.json", *overrides])) | changes
    me = home.path / "researchers" / f"{by}.pem"
    play(home, signing.signed(values, me, me))
    return told(home)


def play(home: ServerDir, text: str) -> None:
    app.play_study(home, None, 1, text)  # type: ignore[arg-type]  # a proposal asks no hospital


def told(home: ServerDir) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((home.runs / "1.json").read_text())
    return facts


def test_a_proposed_study_has_its_sizes_and_the_name_of_who_asks(home: ServerDir) -> None:
    facts = handed_in(home)
    folder = home.path / "studies" / facts["study"]
    assert facts["asked_by"] == "rosalind"
    of_study = json.loads((folder / "study.json").read_text())
    assert (of_study["asked_by"], of_study["hospitals"], of_study["sizes"]) == (
        "rosalind", ["ash", "elm"], {"ash": 100, "elm": 200}
    )  # fmt: skip
    document = documents.read((folder / "document.json").read_text())
    assert document.sizes == {"ash": 100, "elm": 200}
    home.register({"ash": Hospital("ash", 1, "k", "now", 9), "elm": Hospital("elm", 2, "k", "now", 9)})
    (home.runs / "1.json").unlink()
    assert handed_in(home)["study"] == facts["study"]
    assert documents.read((folder / "document.json").read_text()) == document, "sizes are fixed"


def test_a_study_that_would_tell_nothing_is_not_even_proposed(home: ServerDir) -> None:
    blurred = ("evaluation.every=1", "evaluation.bins=64", "evaluation.epsilon=1")
    with pytest.raises(UninformativeStudy, match=r"ash 1\.00.*evaluation\.uninformative=allow"):
        handed_in(home, *blurred)
    folder = home.path / "studies" / told(home)["study"]
    of_study = json.loads((folder / "study.json").read_text())
    assert of_study["state"] == "failed"
    assert of_study["error"].startswith("UninformativeStudy: the figures would tell nothing")
    assert not (folder / "document.json").exists()
    with pytest.raises(UninformativeStudy):  # nor played, by who never proposed it
        handed_in(home, *blurred, propose="")
    allowed = handed_in(home, *blurred, "evaluation.uninformative=allow")
    assert (home.path / "studies" / allowed["study"] / "document.json").exists()


def test_who_proposes_reads_why_there_is_no_document(monkeypatch: pytest.MonkeyPatch) -> None:
    class Server:
        """A server that has refused the proposal of run 7, and an earlier one of run 6."""

        def facts(self, path: str) -> dict[str, Any]:
            return {"study": "s-1"} if "runs" in path else {"state": "failed", "run": 7, "error": "Uninformative: no"}

        def get(self, path: str) -> None:
            return None

    monkeypatch.setattr(superlink_client, "name_of", lambda server, run: "s-1")
    with pytest.raises(StudyError, match="Uninformative: no"):
        superlink_client.document(Server(), 7)  # type: ignore[arg-type]
    monkeypatch.setattr(superlink_client, "_WAIT_S", 0.1)
    with pytest.raises(StudyError, match="wrote no document"):
        superlink_client.document(Server(), 8)  # type: ignore[arg-type]


def test_a_hospital_of_unknown_size_is_named(home: ServerDir) -> None:
    home.register({"ash": Hospital("ash", 1, "k", "now")})
    with pytest.raises(NotAdmitted, match="no public size is known of ash: consilium-server admit"):
        handed_in(home)


def test_hospitals_see_who_asks_also_when_a_coordinator_goes_on_with_it(home: ServerDir) -> None:
    folder = home.path / "studies" / handed_in(home)["study"]
    document = documents.read((folder / "document.json").read_text())
    assert document.asked_by == "rosalind"
    people.issue(home, "grace", "coordinator")
    (home.runs / "1.json").unlink()
    assert handed_in(home, by="grace")["study"] == folder.name
    assert documents.read((folder / "document.json").read_text()) == document, "what was approved stays as it is"


def test_a_researcher_does_not_go_on_with_another_one_s_study(home: ServerDir) -> None:
    name = handed_in(home)["study"]
    before = (home.path / "studies" / name / "study.json").read_bytes()
    people.issue(home, "mallory")
    with pytest.raises(NotAllowed, match=f"{name} is rosalind's.*resume=never"):
        handed_in(home, by="mallory")
    assert told(home)["state"] == "failed"
    assert (home.path / "studies" / name / "study.json").read_bytes() == before
    assert handed_in(home, "resume=never", by="mallory")["asked_by"] == "mallory"


def test_a_study_that_was_stopped_goes_on_for_nobody(home: ServerDir) -> None:
    path = home.path / "studies" / handed_in(home)["study"]
    folder = StudyFolder(path.name, path, resumed=True)
    stopped.mark(folder, "rosalind")
    with pytest.raises(StudyStopped, match="does not go on"):
        handed_in(home)
    me = (home.certificate_key, home.certificate)
    with pytest.raises(StudyStopped):  # nor for the server itself
        play(home, signing.signed(folder.facts()["config"] | {"propose": ""}, *me))
    assert stopped.settle(folder)
    again = handed_in(home)["study"]
    assert again != path.name, "a new study, which hospitals are asked about anew"
    assert folder.facts()["state"] == "stopped"


def test_a_study_s_log_is_shown_to_who_asks_for_it(home: ServerDir) -> None:
    name = handed_in(home)["study"]
    assert [path.relative_to(home.shown).as_posix() for path in home.shown.rglob("*.log")] == [
        f"logs/rosalind/{name}/run-1.log"
    ]
    assert StudyFolder(name, home.path / "studies" / name, resumed=True).facts()["runs"] == [1]


def test_a_text_without_signature_starts_nothing_and_says_why(home: ServerDir) -> None:
    with pytest.raises(NotSigned):
        play(home, json.dumps(conf.to_plain(conf.load([*DEPLOYED, "propose=x.json"]))))
    assert told(home)["state"] == "failed"
    assert "is not signed" in told(home)["error"]
    assert not list((home.path / "studies").iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"propose": "${oc.env:SECRET}"},
        {"data_root": "${oc.env:SECRET}"},
        {"experiment": "x${oc.decode:1}"},
        {"seed": "${oc.env:SECRET}"},
        {"federation": {"kind": "enrolled", "hospitals": ["${oc.env:SECRET}"]}},
        {"federation": {"kind": "enrolled", "${oc.env:SECRET}": 1}},
        {"model": {"name": "${oc.env:SECRET}"}},
        {"x": [[{"y": "\\${seed}"}]]},
    ],
)
def test_nothing_is_interpolated(home: ServerDir, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    monkeypatch.setenv("SECRET", "a-secret")
    with pytest.raises(conf.ConfigError, match="stands for a value of the machine that reads it"):
        handed_in(home, **change)
    assert "a-secret" not in json.dumps(told(home))
    assert not any("a-secret" in path.read_text() for path in home.path.rglob("*.json"))


def test_a_configuration_without_an_end_is_refused(home: ServerDir) -> None:
    deep: list[Any] = []
    for _ in range(600):
        deep = [deep]
    with pytest.raises((conf.ConfigError, NotSigned)):
        handed_in(home, x=deep)


@pytest.mark.parametrize(
    "named", ["/dev/zero", "pki/authority.key", "/nonexistent", "../../etc/shadow", "weights/e.safetensors"]
)
def test_a_file_of_the_server_is_not_even_opened(home: ServerDir, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    def opened(path: Path, *_: object) -> None:
        pytest.fail(f"{path} was opened")

    monkeypatch.setattr("tasks.models.weights.digest_of", opened)
    with pytest.raises(conf.ConfigError, match="SHA-256 alone"):
        handed_in(home, *VIT, model=conf.to_plain(conf.load([*DEPLOYED, *VIT]))["model"] | {"weights": named})  # type: ignore[operator]


def test_weights_are_named_by_their_digest_and_found_among_plain_files_alone(home: ServerDir, tmp_path: Path) -> None:
    folder, content = home.path / "weights", save({"x": np.zeros(3, np.float32)})
    digest = hashlib.sha256(content).hexdigest()
    study = app._of_this_server(home, conf.load([*DEPLOYED, *VIT, f"model.weights={digest}"]))
    os.mkfifo(folder / "a.safetensors")  # reading it would never end
    (folder / "b.safetensors").symlink_to("/dev/zero")
    (tmp_path / "elsewhere").write_bytes(content)
    (folder / "c.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(conf.ConfigError, match="no such file in weights/"):
        weights_file(study)
    (folder / "d.safetensors").write_bytes(content)
    assert weights_file(study) == folder / "d.safetensors"
    assert model_of(study)["weights"] == digest


def test_what_a_researcher_sends_names_no_path_of_theirs(tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(save({"x": np.zeros(3, np.float32)}))
    words = [*DEPLOYED, *VIT, f"model.weights={weights}", f"output_dir={tmp_path}/out", f"propose={tmp_path}/p.json"]
    study = conf.load([*words, f"data_root={tmp_path}", f"tracking.uri=file://{tmp_path}"])
    sent = conf.to_plain(superlink_client._as_text(study, study.runtime))  # type: ignore[arg-type]
    assert str(tmp_path) not in json.dumps(sent)
    assert "/pki/ca" not in json.dumps(sent)
    assert sent["model"]["weights"] == hashlib.sha256(weights.read_bytes()).hexdigest()  # type: ignore[index]
    assert conf.from_plain(sent).propose


def test_a_study_that_is_resumed_is_text_as_well(home: ServerDir) -> None:
    study = app._of_this_server(home, conf.load(DEPLOYED))
    folder = open_study(study)
    folder.note(config=conf.to_plain(study) | {"experiment": "${oc.env:HOME}"})
    with pytest.raises(conf.ConfigError):
        conf.from_plain(folder.facts()["config"])


def begun(home: ServerDir, *words: str) -> tuple[Study, StudyFolder]:
    """A study that has invited its hospitals."""
    study = app._of_this_server(home, conf.load([*DEPLOYED, *words]))
    folder = open_study(study)
    app._invited(home, study, folder)
    return study, folder


def without(home: ServerDir, name: str) -> None:
    with home.changing() as register:
        register[:] = [replace(one, revoked="now") if one.name == name else one for one in register]


def test_a_hospital_that_was_revoked_leaves_a_study_that_has_begun(home: ServerDir) -> None:
    study, folder = begun(home)
    document = document_of(study, folder.name, fixed_sizes(folder))
    without(home, "elm")
    for _ in range(2):  # and after a restart
        assert app._invited(home, study, folder) == {"ash": 1}
        assert folder.facts()["left"] == ["elm"]
    assert folder.facts()["hospitals"] == ["ash", "elm"]
    assert document_of(study, folder.name, fixed_sizes(folder)) == document, "what was approved stays as it is"
    assert app._nodes(home) == {1}
    assert "elm" in app._notes_on_leaving(folder)[0]


def test_it_comes_back_under_its_new_number_when_it_is_admitted_again(home: ServerDir) -> None:
    study, folder = begun(home)
    without(home, "elm")
    app._invited(home, study, folder)
    with home.changing() as register:
        register.append(Hospital("elm", 7, "another key", "now", 500))
    assert app._invited(home, study, folder) == {"ash": 1, "elm": 7}
    assert folder.facts()["left"] == []
    assert fixed_sizes(folder) == {"ash": 100, "elm": 200}, "its size is the approved one"


def test_a_study_all_of_whose_hospitals_were_revoked_ends_and_says_so(home: ServerDir) -> None:
    study, folder = begun(home)
    without(home, "ash")
    without(home, "elm")
    with pytest.raises(NotAdmitted, match="all hospitals of this study were revoked: ash, elm"):
        app._invited(home, study, folder)


def test_a_study_begins_with_admitted_hospitals_only(home: ServerDir) -> None:
    without(home, "elm")
    with pytest.raises(NotAdmitted, match="not admitted, or no longer admitted: elm; admitted: ash"):
        begun(home, "federation.hospitals=[ash,elm]")
    assert list(begun(home)[1].facts()["hospitals"]) == ["ash"]


@pytest.mark.parametrize("error", [TrackingFailed("MLflow is away"), ServerMisconfigured("cannot read hospitals.json")])
def test_what_is_the_server_s_fault_does_not_end_a_study_for_good(
    home: ServerDir, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(app, "_play", fail)
    with pytest.raises(type(error)):
        handed_in(home, propose="")
    facts = json.loads((home.path / "studies" / told(home)["study"] / "study.json").read_text())
    assert facts["state"] == "running"
    assert str(error) in facts["error"]


def test_who_follows_a_study_is_told_that_it_was_stopped() -> None:
    facts = {"studies/busi-1/study.json": {"state": "stopped", "error": "It was stopped by grace for good."}}

    class Stopped:
        def facts(self, path: str) -> dict[str, Any]:
            return facts[path]

        def get(self, path: str) -> None:
            return None

    with pytest.raises(StudyStopped, match=r"stopped by grace for good\. It does not go on"):
        superlink_client.follow(Stopped(), "busi-1", lambda _: None)  # type: ignore[arg-type]


def test_a_reader_is_told_before_anything_is_sent(home: ServerDir) -> None:
    me = people.issue(home, "emmy", "reader")
    study = conf.load([*DEPLOYED, f"runtime.authority={home.authority}", f"runtime.certificate={me}"])
    with pytest.raises(NotAllowed, match="emmy is a reader"):
        superlink_client.submit(study, study.runtime)  # type: ignore[arg-type]


def test_certificates_that_are_none_are_told_before_anybody_is_asked(home: ServerDir, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("no certificate")
    for words, told in (
        (DEPLOYED, "runtime.authority=/pki/ca: there is no such file"),
        ((*DEPLOYED, f"runtime.authority={tmp_path}"), "it is a folder; name a file"),
        ((*DEPLOYED, *(f"runtime.{name}={tmp_path / 'none'}" for name in ("authority", "certificate"))), "name those"),
    ):
        study = conf.load(words)
        assert isinstance(study.runtime, SuperlinkRuntime)
        for ask in (partial(superlink_client.submit, study), superlink_client.ServerConnection):
            with pytest.raises(conf.ConfigError, match=told):
                ask(study.runtime)


@pytest.mark.parametrize(
    ("name", "facts", "told"),
    [
        ("../busi-1", {"state": "finished"}, "there is no study '../busi-1' on this server"),
        ("busi-2", {}, "there is no study 'busi-2'"),
        ("busi-1", {"state": "running"}, "busi-1 has not ended yet"),
        ("busi-1", {"state": "failed", "error": "no quorum."}, "busi-1 has failed: no quorum."),
        ("busi-1", {"state": "stopped", "error": "Ada has stopped it."}, "It does not go on"),
    ],
)
def test_what_has_not_finished_is_not_fetched(name: str, facts: dict[str, Any], told: str) -> None:
    server = Server({f"studies/{name}/study.json": facts})
    with pytest.raises(StudyError, match=told):
        superlink_client.finished(server, name)  # type: ignore[arg-type]


def test_what_has_finished_is_told() -> None:
    facts = {"state": "finished", "files": ["report.html"]}
    server = Server({"studies/busi-1/study.json": facts})
    assert superlink_client.finished(server, "busi-1") == facts  # type: ignore[arg-type]


class Server:
    """What a researcher can read of a server, which may be away for a while."""

    def __init__(self, *turns: dict[str, Any] | Exception) -> None:
        self.turns = list(turns)

    def facts(self, path: str) -> dict[str, Any]:
        turn = self.turns[0]
        if isinstance(turn, Exception):
            self.turns.pop(0)
            raise turn
        if path == "runs/queue.json" or path in turn:
            self.turns.pop(0)
        return dict(turn.get(path, {}))


def waiting(*runs: int) -> dict[str, Any]:
    return {"runs/queue.json": {"at_once": 5, "running": ["a-1"], "waiting": [{"run": run} for run in runs]}}


def test_who_follows_a_run_sees_its_place_and_finds_it_under_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superlink_client, "_POLL_S", 0.0)
    server = Server(
        waiting(3, 4, 7),
        waiting(3, 4, 7),
        ServerUnreachable("it starts again"),
        waiting(7),
        {"runs/7.json": {"again": 9}},
        waiting(9),
        {"runs/9.json": {"study": "busi-1"}},
    )
    said: list[str] = []
    assert superlink_client.name_of(server, 7, tell=said.append) == "busi-1"  # type: ignore[arg-type]
    assert ["2 before it" in said[0], "it is the next" in said[1], len(said)] == [True, True, 2]


def test_who_waits_in_the_queue_is_not_told_that_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superlink_client, "_POLL_S", 0.02)
    turns = [waiting(7) for _ in range(20)]
    server = Server(*turns, {"runs/7.json": {"study": "busi-1"}})
    assert superlink_client.name_of(server, 7, wait_s=0.05) == "busi-1"  # type: ignore[arg-type]
    with pytest.raises(ServerUnreachable, match="has not started it"):
        superlink_client.name_of(Server(*[waiting() for _ in range(20)]), 7, wait_s=0.05)  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="invalid"):
        superlink_client.name_of(Server({"runs/7.json": {"error": "invalid"}}), 7)  # type: ignore[arg-type]
