"""What stands in a real MLflow store, and that a store which fails neither stops a study nor loses its rounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from conf import load, schema
from server.errors import TrackingFailed
from server.rounds import HospitalRound, RoundRecord
from server.study import StudyFolder, open_study
from server.tracking import MlflowTracker, NoTracker, open_tracker

HOSPITALS = ["ash", "elm"]


def record(number: int, **hospitals: HospitalRound) -> RoundRecord:
    told = {
        "ash": HospitalRound(
            epsilon=number / 2, auc=0.5 + number / 10, auc_low=0.4, auc_high=0.9, bytes_down=10, bytes_up=20
        ),
        "elm": HospitalRound(epsilon=None, auc=None, bytes_down=10, bytes_up=2),
    }
    return RoundRecord(number, 0.25, 1.5, told | hospitals, {"elm": "train: no"})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all: making one takes seconds."""
    return tmp_path_factory.mktemp("tracking")


def configuration(home: Path, name: str, *overrides: str) -> schema.Study:
    return replace(loaded(*overrides), output_dir=str(home), experiment=name)


@cache
def loaded(*overrides: str) -> schema.Study:
    return load.load(overrides)


def opened(study: schema.Study, told: list[str] | None = None) -> tuple[MlflowTracker, StudyFolder]:
    folder = open_study(study)
    tracker = open_tracker(study, folder, HOSPITALS, ["Nobody real.", "Second note."], (told or []).append)
    assert isinstance(tracker, MlflowTracker)
    return tracker, folder


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


def test_a_study_is_a_run_and_each_hospital_a_child(home: Path, tmp_path: Path) -> None:
    study = configuration(home, "whole", "training.steps=4")
    told: list[str] = []
    tracker, folder = opened(study, told)
    records = [record(1), record(2), record(3)]
    for played in (1, 2, 3):
        tracker.rounds(records[:played])
    figure, numbers, model = (tmp_path / name for name in ("auc.svg", "results.json", "round-0003.safetensors"))
    for path in (figure, numbers, model):
        path.write_text(path.name)
    tracker.finish(records, {"result/federated_auc": 0.8}, [figure, numbers, model])
    assert told == []

    runs = runs_of(home, folder)
    parent = runs.pop("")
    assert runs.keys() == set(HOSPITALS)
    assert parent.info.run_name == folder.name
    assert parent.data.tags["mlflow.note.content"] == "Nobody real.\n\nSecond note."
    assert parent.data.tags["rounds_logged"] == "3"
    for name, child in runs.items():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params == {"hospital": name, "study": folder.name}
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
    assert paths == {"figures", "results.json", "round-0003.safetensors"}
    assert [f.path for f in store(home).list_artifacts(parent.info.run_id, "figures")] == ["figures/auc.svg"]
    assert (home / "mlartifacts").is_dir()


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
    first.rounds([record(1), record(2)])
    second, again = opened(study)
    assert again.resumed
    second.rounds([record(1), record(2), record(3)])
    runs = runs_of(home, folder)
    assert len(runs) == 3
    assert [step for step, _ in steps(home, runs[""].info.run_id, "site/ash/auc")] == [1, 2, 3]
    assert [step for step, _ in steps(home, runs["ash"].info.run_id, "auc")] == [1, 2, 3]


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
        for name in ("create_run", "log_batch", "set_tag", "update_run", "search_runs"):
            patch.setattr(MlflowClient, name, counted(name))
        try:
            tracker, _ = opened(study)
            tracker.rounds([record(1)])
        except Killed:
            pass
        assert left < 0
    tracker, folder = opened(study)
    tracker.rounds([record(1), record(2)])
    client = store(home)
    experiment = client.get_experiment_by_name("breast_ultrasound")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.fl_study = '{folder.name}'")
    assert sorted(run.data.tags.get("fl_hospital", "") for run in found) == ["", "ash", "elm"]
    parent = runs_of(home, folder)[""]
    assert {step for step, _ in steps(home, parent.info.run_id, "site/ash/auc")} == {1, 2}
    assert parent.data.tags["rounds_logged"] == "2"


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


def test_a_store_that_fails_for_a_while_is_told_later(home: Path) -> None:
    study = configuration(home, "failing")
    told: list[str] = []
    folder = open_study(study)
    tracker = open_tracker(study, folder, HOSPITALS, [], told.append)
    tracker.rounds([record(1)])
    with out_of_order(home):
        tracker.rounds([record(1), record(2)])
        tracker.rounds([record(1), record(2), record(3)])
    assert len(told) == 2
    assert all("round 2" in text and "told again" in text for text in told)
    tracker.rounds([record(number) for number in (1, 2, 3, 4)])
    assert len(told) == 2
    run = runs_of(home, folder)[""].info.run_id
    assert [step for step, _ in steps(home, run, "site/ash/auc")] == [1, 2, 3, 4]


def test_a_store_that_fails_at_the_end_says_where_the_results_are(home: Path) -> None:
    study = configuration(home, "failing-late")
    told: list[str] = []
    folder = open_study(study)
    tracker = open_tracker(study, folder, HOSPITALS, [], told.append)
    with out_of_order(home):
        tracker.finish([record(1)], {"result/federated_auc": 0.8}, [])
    assert str(folder.path) in told[-1]


def test_a_round_with_infinite_figures_is_logged_without_them(home: Path) -> None:
    tracker, folder = opened(configuration(home, "infinite"))
    tracker.rounds([record(1, ash=HospitalRound(epsilon=float("inf"), auc=float("nan"), bytes_up=3))])
    run = runs_of(home, folder)[""].info.run_id
    assert steps(home, run, "site/ash/epsilon") == []
    assert steps(home, run, "site/ash/bytes_up") == [(1, 3)]


def test_many_hospitals_fit(home: Path) -> None:
    """More parameters and metrics than MLflow takes in one batch."""
    many = ", ".join(f"h{number}: {{patients: 9}}" for number in range(30))
    tracker, folder = opened(configuration(home, "many", f"+federation.hospitals={{{many}}}"))
    tracker.rounds([record(1, **{f"h{number}": HospitalRound(auc=0.5, epsilon=1.0) for number in range(300)})])
    parent = runs_of(home, folder)[""]
    assert len(parent.data.params) > 150
    assert steps(home, parent.info.run_id, "site/h299/auc") == [(1, 0.5)]


@pytest.mark.parametrize("uri", ["nonsense://x", "sqlite:////proc/nowhere/mlflow.db"])
def test_a_store_that_cannot_be_opened_is_told_before_anything_is_trained(home: Path, uri: str) -> None:
    study = configuration(home, "unusable", f"tracking.uri={uri}")
    with pytest.raises(TrackingFailed, match=r"tracking\.uri, or say tracking=none"):
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
    tracker, _ = opened(configuration(home, "where"))
    command, link = tracker.where()
    assert f"sqlite:///{home / 'mlflow.db'}" in command
    assert "MLFLOW_DISABLE_TELEMETRY=true" in command
    assert "http://127.0.0.1:5000/#/experiments/" in link
