"""What stands in a real MLflow store, and that a store which fails neither stops a study nor loses its rounds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from safetensors.numpy import save

from conf import load
from conf.schema.study import Study
from server.errors import TrackingFailed
from server.rounds.checkpoint import write_state
from server.rounds.state import HospitalRound, RoundRecord, StudyState
from server.study.document import open_study
from server.study.folder import PENDING, StudyFolder
from server.tracking import tracker as tracker_module
from server.tracking.mlflow_store import MlflowStore
from server.tracking.tracker import MlflowTracker, NoTracker, open_tracker, send
from tasks.input_spec import InputSpec
from tasks.models import model_file, registry
from tasks.models.model_file import ModelHead
from tasks.models.weights import digest_of, in_folder

HOSPITALS = ["ash", "elm"]


def record(number: int, **hospitals: HospitalRound) -> RoundRecord:
    told = {
        "ash": HospitalRound(
            epsilon=number / 2,
            auc=0.5 + number / 10,
            auc_low=0.4,
            auc_high=0.9,
            bytes_down=10,
            bytes_up=20,
            update_norm=2.5 * number,
        ),
        "elm": HospitalRound(epsilon=None, auc=None, bytes_down=10, bytes_up=2),
    }
    named = {"ash": "its update is an outlier"}
    return RoundRecord(number, 0.25, 1.5, told | hospitals, {"elm": "train: no"}, named=named)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all: making one takes seconds."""
    return tmp_path_factory.mktemp("tracking")


def configuration(home: Path, name: str, *overrides: str) -> Study:
    return replace(loaded(*overrides), output_dir=str(home), experiment=name)


@cache
def loaded(*overrides: str) -> Study:
    return load.load(overrides)


def opened(study: Study) -> tuple[MlflowStore, StudyFolder]:
    """The store's calls one by one, without the thread that makes them."""
    folder = open_study(study)
    return MlflowStore(study, folder, HOSPITALS, ["Nobody real.", "Second note."]), folder


def tracked(study: Study, told: list[str]) -> tuple[MlflowTracker, StudyFolder]:
    folder = open_study(study)
    tracker = open_tracker(study, folder, HOSPITALS, [], told.append)
    assert isinstance(tracker, MlflowTracker)
    return tracker, folder


def weights_of(study: Study, folder: Path) -> Path:
    """A file with a model of the study's kind."""
    arrays = registry.arrays_of(registry.build(asdict(study.model), InputSpec((1, 128, 128)), 1).trainable)
    return packed(folder, asdict(study.model), arrays)


def packed(folder: Path, model: dict[str, Any], arrays: dict[str, Any], encoder: bytes = b"") -> Path:
    """A study's file of its model."""
    head = ModelHead("demo-1", "a" * 64, "0", "breast_ultrasound", 1, "b" * 64, model, None, None, [])
    path = folder / model_file.FILE
    path.write_bytes(model_file.pack(head, arrays, encoder))
    return path


def store(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def runs_of(home: Path, folder: StudyFolder) -> dict[str, Any]:
    client = store(home)
    experiment = client.get_experiment_by_name("breast_ultrasound")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.fl_study = '{folder.name}'")
    return {run.data.tags.get("fl_hospital", ""): run for run in found}


def steps(home: Path, run: str, metric: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in store(home).get_metric_history(run, metric)]


def test_a_study_is_a_run_and_each_hospital_a_child(home: Path) -> None:
    study = configuration(home, "whole", "training.steps=4")
    told: list[str] = []
    folder = open_study(study)
    tracker = open_tracker(study, folder, HOSPITALS, ["Nobody real.", "Second note."], told.append)
    assert isinstance(tracker, MlflowTracker)
    records = [record(1), record(2), record(3)]
    for played in (1, 2, 3):
        tracker.rounds(records[:played])
    assert tracker.settled(60)
    (folder.path / "figures").mkdir()
    figure, numbers, card = (folder.path / name for name in ("figures/auc.svg", "results.json", "model-card.md"))
    for path in (figure, numbers, card):
        path.write_text(path.name)
    model = weights_of(study, folder.path)
    tracker.finish(records, {"result/federated_auc": 0.8, "result/gate_passed": 1.0}, [figure, numbers, card, model])
    assert told == []
    assert not (folder.path / PENDING).exists()

    runs = runs_of(home, folder)
    parent = runs.pop("")
    assert runs.keys() == set(HOSPITALS)
    assert parent.info.run_name == folder.name
    assert parent.data.tags["mlflow.note.content"] == "Nobody real.\n\nSecond note."
    assert parent.data.metrics["round/number"] == 3
    assert steps(home, parent.info.run_id, "site/ash/update_norm") == [(1, 2.5), (2, 5.0), (3, 7.5)]
    assert parent.data.tags["fl_look_at.ash"] == "3 of 3 rounds, last: its update is an outlier"
    assert runs["ash"].data.tags["fl_look_at"] == parent.data.tags["fl_look_at.ash"]
    assert "fl_look_at" not in runs["elm"].data.tags
    assert parent.data.metrics["system/system_memory_usage_megabytes"] > 0
    for name, child in runs.items():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params == {"hospital": name, "study": folder.name}
        (dataset,) = child.inputs.dataset_inputs
        assert dataset.dataset.name == f"breast_ultrasound at {name}"
        assert len(dataset.dataset.digest) == 32
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}

    assert parent.data.params["training.steps"] == "4"
    assert parent.data.params["federation.hospitals.alder.patients"] == "160"
    assert steps(home, parent.info.run_id, "site/ash/auc") == [(1, 0.6), (2, 0.7), (3, 0.8)]
    assert steps(home, parent.info.run_id, "global/mean_auc") == [(1, 0.6), (2, 0.7), (3, 0.8)]
    assert steps(home, parent.info.run_id, "privacy/largest_epsilon") == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert steps(home, parent.info.run_id, "round/bytes_up") == [(1, 22), (2, 22), (3, 22)]
    assert steps(home, parent.info.run_id, "round/dropped") == [(1, 1), (2, 1), (3, 1)]
    assert steps(home, parent.info.run_id, "result/federated_auc") == [(3, 0.8)]
    assert (
        steps(home, parent.info.run_id, "site/elm/auc") == []
    )  # it has one class: no figure is better than a wrong one
    assert steps(home, runs["ash"].info.run_id, "epsilon") == [(1, 0.5), (2, 1.0), (3, 1.5)]

    paths = {file.path for file in store(home).list_artifacts(parent.info.run_id)}
    assert paths == {"figures", "model-card.md", "results.json", model_file.FILE}
    assert [f.path for f in store(home).list_artifacts(parent.info.run_id, "figures")] == ["figures/auc.svg"]
    assert (home / "mlartifacts").is_dir()
    for alias in ("candidate", "accepted"):
        version = store(home).get_model_version_by_alias("breast_ultrasound", alias)
        assert (version.run_id, version.tags["gate"]) == (parent.info.run_id, "passed")
    assert version.description == "model-card.md"


def test_the_registered_model_scores_as_the_network_does(home: Path) -> None:
    study = configuration(home, "scores")
    tracker, folder = tracked(study, [])
    tracker.finish([record(1)], {"result/gate_passed": 0.0}, [weights_of(study, folder.path)])
    uri = f"sqlite:///{home / 'mlflow.db'}"
    version = store(home).get_model_version_by_alias("breast_ultrasound", "candidate")
    assert version.tags["gate"] == "not passed"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    loaded = mlflow.pyfunc.load_model("models:/breast_ultrasound@candidate")
    images = np.random.default_rng(0).random((2, 1, 128, 128), dtype=np.float32)
    network = registry.build(asdict(study.model), InputSpec((1, 128, 128)), 1)
    assert network.features is not None
    with torch.no_grad():
        expected = torch.sigmoid(network.trainable(network.features(torch.from_numpy(images))).squeeze(-1)).numpy()
    np.testing.assert_allclose(loaded.predict(images), expected, rtol=1e-5)
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 1, 128, 128)
    example = loaded.input_example
    assert (example.shape, example.dtype) == ((1, 1, 128, 128), np.float32)
    scores = loaded.predict(example)
    with torch.no_grad():
        wanted = torch.sigmoid(network.trainable(network.features(torch.from_numpy(example))).squeeze(-1)).numpy()
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)
    needed = Path(mlflow.pyfunc.get_model_dependencies("models:/breast_ultrasound@candidate")).read_text().split()
    assert f"torch=={torch.__version__.split('+')[0]}" in needed
    assert f"consilium-fl[server]=={metadata.version('consilium-fl')}" in needed
    assert all("==" in line for line in needed)


def test_a_frozen_encoder_is_registered_with_the_model_and_its_place_is_not_told(home: Path) -> None:
    vit = {"name": "vit", "patch": 32, "width": 24, "layers": 1, "heads": 3}
    (home / "encoders").mkdir()
    file = home / "encoders" / "encoder.safetensors"
    file.write_bytes(save(registry.arrays_of(registry.build(vit, InputSpec((1, 128, 128)), 9).trainable)))
    options = [f"model.{name}={value}" for name, value in vit.items() if name != "name"]
    study = configuration(home, "frozen", "model=vit", *options, f"model.weights={file}", "model.freeze=encoder")
    tracker, folder = tracked(study, [])
    spec = vit | {"weights": digest_of(file), "freeze": "encoder"}
    last = {"weight": np.ones((1, 24), np.float32), "bias": np.zeros(1, np.float32)}
    weights = packed(folder.path, spec, last, file.read_bytes())
    tracker.finish([record(1)], {"result/gate_passed": 0.0}, [weights])
    assert runs_of(home, folder)[""].data.params["model.weights"] == digest_of(file)
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    loaded = mlflow.pyfunc.load_model("models:/breast_ultrasound@candidate")
    images = np.random.default_rng(0).random((2, 1, 128, 128), dtype=np.float32)
    network = registry.build(spec, InputSpec((1, 128, 128)), find=in_folder(file.parent))
    assert network.features is not None
    expected = torch.sigmoid(network.features(torch.from_numpy(images)).sum(dim=1)).numpy()
    np.testing.assert_allclose(loaded.predict(images), expected, rtol=1e-5)


def test_a_model_of_which_a_part_stays_at_the_hospitals_is_not_registered(home: Path) -> None:
    study = configuration(home, "partial")
    tracker, folder = tracked(study, told := [])
    part = packed(folder.path, asdict(study.model), {"bias": np.zeros(1, np.float32)})
    tracker.finish([record(1)], {}, [part])
    assert told == []
    assert not store(home).search_model_versions(f"run_id = '{runs_of(home, folder)[''].info.run_id}'")


def test_nothing_in_the_store_names_a_place_or_a_password(home: Path) -> None:
    uri = f"sqlite:///{home / 'mlflow.db'}"
    study = configuration(home, "places", "data_root=/secret/place", f'tracking.uri="{uri}?timeout=77"')
    _, folder = opened(study)
    params = runs_of(home, folder)[""].data.params
    assert not [key for key, value in params.items() if str(home) in value or "secret" in value or "77" in value]
    assert params["seed"] == "1"


def test_a_resumed_study_goes_on_in_its_run_and_logs_no_round_twice(home: Path) -> None:
    study = configuration(home, "resumed")
    first, folder = opened(study)
    first.send([record(1), record(2)])
    second, again = opened(study)
    assert again.resumed
    assert second.logged == 2
    second.send([record(1), record(2), record(3)])
    second.logged = 0
    second.send([record(1), record(2), record(3)])  # as if the store had not told that it has them
    runs = runs_of(home, folder)
    assert len(runs) == 3
    assert [step for step, _ in steps(home, runs[""].info.run_id, "site/ash/auc")] == [1, 2, 3]


@pytest.mark.parametrize("allowed", range(8))
def test_a_kill_at_any_request_leaves_runs_that_the_next_process_finds(
    home: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """The process ends at its n-th call into the store; BaseException, so nothing in between can catch it."""
    study = configuration(home, f"killed-{allowed}")
    left = allowed

    class Killed(BaseException):
        pass

    def counted(name: str) -> Any:
        original = getattr(MlflowClient, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return original(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("create_run", "log_batch", "log_inputs", "update_run", "search_runs"):
            patch.setattr(MlflowClient, name, counted(name))
        with suppress(Killed):
            opened(study)[0].send([record(1)])
        assert left < 0
    again, folder = opened(study)
    again.send([record(1), record(2)])
    client = store(home)
    experiment = client.get_experiment_by_name("breast_ultrasound")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.fl_study = '{folder.name}'")
    assert sorted(run.data.tags.get("fl_hospital", "") for run in found) == ["", "ash", "elm"]
    parent = runs_of(home, folder)[""]
    assert {step for step, _ in steps(home, parent.info.run_id, "site/ash/auc")} == {1, 2}
    assert parent.data.metrics["round/number"] == 2


@contextmanager
def out_of_order(home: Path) -> Iterator[None]:
    """The store cannot take metrics for a while."""
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        database.execute("ALTER TABLE metrics RENAME TO metrics_elsewhere")
        database.commit()
        try:
            yield
        finally:
            database.execute("ALTER TABLE metrics_elsewhere RENAME TO metrics")
            database.commit()


def test_a_store_that_fails_for_a_while_is_told_later(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "_FIRST_PAUSE_S", 0.05)
    tracker, folder = tracked(configuration(home, "failing"), told := [])
    tracker.rounds([record(1)])
    assert tracker.settled(60)
    with out_of_order(home):
        tracker.rounds([record(1), record(2)])
        tracker.rounds([record(1), record(2), record(3)])
        assert not tracker.settled(2)
    tracker.rounds([record(number) for number in (1, 2, 3, 4)])
    assert tracker.settled(60)
    assert len(told) == 1
    assert "sent again" in told[0]
    run = runs_of(home, folder)[""].info.run_id
    assert [step for step, _ in steps(home, run, "site/ash/auc")] == [1, 2, 3, 4]


def test_results_that_a_store_did_not_take_are_sent_by_a_later_process(home: Path, tmp_path: Path) -> None:
    study = replace(
        configuration(home, "failing-late", f"tracking.uri=sqlite:///{home}/mlflow.db"), output_dir=str(tmp_path)
    )
    tracker, folder = tracked(study, told := [])
    records = [record(1)]
    write_state(folder.path / "federated", StudyState({}, records))
    with out_of_order(home):
        tracker.finish(records, {"result/federated_auc": 0.8}, [weights_of(study, folder.path)])
    assert str(folder.path) in told[-1]
    assert "consilium send" in told[-1]
    assert (folder.path / PENDING).exists()

    following, _ = tracked(configuration(tmp_path, "next", f"tracking.uri=sqlite:///{home}/mlflow.db"), told)
    following.rounds([record(1)])
    assert following.settled(60)  # the next study of the folder has sent it
    assert len(told) == 2
    assert not (folder.path / PENDING).exists()
    parent = runs_of(home, folder)[""]
    assert parent.info.status == "FINISHED"
    assert steps(home, parent.info.run_id, "result/federated_auc") == [(1, 0.8)]
    assert send(tmp_path, told.append) == []


def test_the_run_of_a_study_that_is_ended_here_ends_and_goes_on_when_it_is_resumed(home: Path) -> None:
    study = configuration(home, "interrupted")
    tracker, folder = tracked(study, [])
    tracker.rounds([record(1)])
    tracker.broken_off("KILLED")
    found = runs_of(home, folder)
    assert {run.info.status for run in found.values()} == {"KILLED"}
    assert len(steps(home, found[""].info.run_id, "site/ash/auc")) == 1
    MlflowStore(study, folder, HOSPITALS, [])
    assert runs_of(home, folder)[""].info.status == "RUNNING"


@pytest.mark.parametrize(("state", "status"), [("stopped", "KILLED"), ("failed", "FAILED"), ("running", "RUNNING")])
@pytest.mark.parametrize("rounds", [0, 2])
def test_the_run_of_a_study_that_ended_without_results_ends_as_well(
    home: Path, tmp_path: Path, state: str, status: str, rounds: int
) -> None:
    study = replace(
        configuration(home, f"{state}-{rounds}", f"tracking.uri=sqlite:///{home}/mlflow.db"), output_dir=str(tmp_path)
    )
    _, folder = tracked(study, told := [])
    if rounds:
        write_state(folder.path / "federated", StudyState({}, [record(number + 1) for number in range(rounds)]))
    folder.note(state=state)
    ended = state != "running"
    assert send(tmp_path, told.append) == ([folder.name] if ended else [])
    assert told == []
    found = runs_of(home, folder)
    assert {run.info.status for run in found.values()} == {status}
    assert len(found) == 3
    if ended and rounds:
        assert len(steps(home, found[""].info.run_id, "site/ash/auc")) == rounds
    assert (folder.path / PENDING).exists() is not ended
    assert send(tmp_path, told.append) == []


class Door(BaseHTTPRequestHandler):
    """A tracking server that always gives one answer."""

    status = 503

    def do_POST(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def door(status: int) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("This", (Door,), {"status": status}))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_is_down_holds_up_nothing_and_its_study_waits_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "_LAST_S", 0.0)
    with door(503) as uri:
        study = configuration(tmp_path, "down", f"tracking.uri={uri}")
        tracker, folder = tracked(study, told := [])
        tracker.rounds([record(1)])
        assert "does not answer (status 503)" in told[0]
        assert "consilium send" in tracker.where()[0]
    assert json.loads((folder.path / PENDING).read_text())["hospitals"] == HOSPITALS


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_is_told_before_anything_is_trained(tmp_path: Path, status: int) -> None:
    with door(status) as uri:
        study = configuration(tmp_path, "refused", f"tracking.uri={uri}")
        with pytest.raises(TrackingFailed, match="MLFLOW_TRACKING_USERNAME"):
            open_tracker(study, open_study(study), HOSPITALS, [], pytest.fail)


def test_a_round_is_one_batch(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, _ = opened(configuration(home, "batches"))
    calls: list[str] = []
    for name in ("log_batch", "log_metric", "set_tag", "log_param", "log_artifact"):
        monkeypatch.setattr(MlflowClient, name, lambda *given, name=name, **named: calls.append(name))
    kept.send([record(1)])
    assert calls == ["log_batch"]


def test_a_round_with_infinite_figures_is_logged_without_them(home: Path) -> None:
    kept, folder = opened(configuration(home, "infinite"))
    kept.send([record(1, ash=HospitalRound(epsilon=float("inf"), auc=float("nan"), bytes_up=3))])
    run = runs_of(home, folder)[""].info.run_id
    assert steps(home, run, "site/ash/epsilon") == []
    assert steps(home, run, "site/ash/bytes_up") == [(1, 3)]


def test_many_hospitals_fit(home: Path) -> None:
    """More parameters and metrics than MLflow takes in one batch."""
    many = ", ".join(f"h{number}: {{patients: 9}}" for number in range(30))
    kept, folder = opened(configuration(home, "many", f"+federation.hospitals={{{many}}}"))
    kept.send([record(1, **{f"h{number}": HospitalRound(auc=0.5, epsilon=1.0) for number in range(300)})])
    parent = runs_of(home, folder)[""]
    assert len(parent.data.params) > 150
    assert steps(home, parent.info.run_id, "site/h299/auc") == [(1, 0.5)]


@pytest.mark.parametrize("uri", ["nonsense://x", "sqlite:////proc/nowhere/mlflow.db"])
def test_a_store_that_cannot_be_opened_is_told_before_anything_is_trained(home: Path, uri: str) -> None:
    study = configuration(home, "unusable", f"tracking.uri={uri}")
    with pytest.raises(TrackingFailed, match=r"tracking\.uri, or set tracking=none"):
        open_tracker(study, open_study(study), HOSPITALS, [], lambda text: None)


def test_without_tracking_nothing_is_made(tmp_path: Path) -> None:
    study = configuration(tmp_path, "none", "tracking=none")
    tracker = open_tracker(study, open_study(study), HOSPITALS, [], pytest.fail)
    assert isinstance(tracker, NoTracker)
    tracker.rounds([record(1)])
    tracker.finish([record(1)], {}, [])
    assert tracker.where() == []
    assert {path.name for path in tmp_path.iterdir()} == {"studies"}


def test_a_person_is_told_where_to_look(home: Path) -> None:
    kept, _ = opened(configuration(home, "where"))
    command, link, report = kept.where()
    assert report.startswith("report: http://127.0.0.1:5000/#/experiments/")
    assert f"sqlite:///{home / 'mlflow.db'}" in command
    assert "MLFLOW_DISABLE_TELEMETRY=true" in command
    assert "http://127.0.0.1:5000/#/experiments/" in link
