"""From a configuration to the table, through everything that a deployed study goes through but the network."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from safetensors.numpy import load_file

from client.ledger.accounting import epsilon_of
from conf.load import ConfigError
from server.__main__ import client_app, provision_hospitals
from server.launch import run_study
from tests.federation.embedded import HOSPITALS, Ended, configure, console, entries, folder_of, play


def test_it_ends_with_the_comparison(whole: Ended) -> None:
    assert whole.results.arms.keys() == {"local", "federated", "pooled", "shuffled"}
    for figures in whole.results.arms.values():
        assert figures.keys() == set(HOSPITALS)
        for hospital in figures.values():
            assert hospital.auc is not None
            assert hospital.auc_low is not None
            assert hospital.auc_high is not None
            assert 0 <= hospital.auc_low <= hospital.auc <= hospital.auc_high <= 1
    assert whole.results.dropped == {}
    shown = whole.shown
    headings = (*HOSPITALS, "local", "federated", "pooled", "epsilon 8", "no noise", "mean", "kB", "federation")
    assert [word for word in headings if word not in shown] == []
    assert "phantoms" in shown
    assert "mlflow server --backend-store-uri" in shown
    assert str(whole.folder) in shown
    assert {path.name for path in (whole.folder / "figures").iterdir()} == {
        "comparison.svg", "convergence.svg", "gains.svg", "privacy.svg", "reliability.svg", "roc.svg"
    }  # fmt: skip


def test_results_json_is_the_same_as_numbers(whole: Ended) -> None:
    numbers = whole.numbers()
    assert numbers["study"] == whole.folder.name
    assert numbers["epsilon"] == whole.results.epsilon
    assert numbers["arms"]["federated"]["alder"]["auc"] == whole.results.arms["federated"]["alder"].auc
    assert numbers["seconds"] > 0
    assert set(numbers["bytes_up"]) == set(HOSPITALS)
    assert json.loads((whole.folder / "study.json").read_text())["finished"] is True


def test_both_rounds_are_committed_with_the_model(whole: Ended) -> None:
    state = whole.state()
    assert [record.number for record in state.rounds] == [1, 2]
    (model,) = (whole.folder / "federated").glob("round-*.safetensors")
    weights = load_file(model)
    assert all(np.isfinite(value).all() for value in weights.values())
    assert any(value.any() for value in weights.values())


@pytest.mark.parametrize("hospital", HOSPITALS)
def test_the_ledger_holds_every_round_and_what_was_reported(whole: Ended, hospital: str) -> None:
    found = entries(whole.folder, hospital)
    trained = [entry for entry in found if entry.use.cohort == "train"]
    assert [entry.use.round for entry in trained] == [1, 2]
    assert all(entry.committed for entry in found)
    assert {entry.mechanism.count for entry in trained} == {3}
    assert all(entry.mechanism.noise_multiplier > 0 for entry in trained)
    spent = epsilon_of([entry.mechanism for entry in trained], 1e-4)
    assert whole.results.epsilon[hospital] == pytest.approx(spent)
    assert 7 < spent <= 8


@pytest.mark.parametrize("hospital", [*HOSPITALS, "pooled"])
def test_the_comparison_arms_have_records_of_their_own(whole: Ended, hospital: str) -> None:
    settings = (whole.folder / "sites-alone" / f"{hospital}.yaml").read_text()
    assert "without_privacy: true" in settings
    own = whole.folder / "sites-alone" / f"{hospital}.ledger.sqlite"
    assert own.is_file()
    assert "without_privacy: false" in (whole.folder / "sites" / "alder.yaml").read_text()


def test_mlflow_has_the_study_its_hospitals_and_its_files(whole: Ended, ground: Path) -> None:
    client = MlflowClient(f"sqlite:///{ground / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("breast_ultrasound")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.fl_study = '{whole.folder.name}'")
    by_hospital = {run.data.tags.get("fl_hospital", ""): run for run in runs}
    assert by_hospital.keys() == {"", *HOSPITALS}
    parent = by_hospital[""].info.run_id
    assert {run.info.status for run in runs} == {"FINISHED"}
    for hospital in HOSPITALS:
        assert by_hospital[hospital].data.tags["mlflow.parentRunId"] == parent
        steps = [(m.step, m.value) for m in client.get_metric_history(parent, f"site/{hospital}/epsilon")]
        told = [record.hospitals[hospital].epsilon for record in whole.state().rounds]
        assert steps == [(1, told[0]), (2, told[1])]
    paths = {file.path for file in client.list_artifacts(parent)}
    assert paths == {"figures", "model-card.md", "report.html", "results.json", "model.safetensors"}
    figures = {file.path for file in client.list_artifacts(parent, "figures")}
    assert figures == {
        f"figures/{name}.svg" for name in ("comparison", "convergence", "gains", "privacy", "reliability", "roc")
    }


def test_no_patient_and_no_place_is_in_what_the_server_keeps(whole: Ended, ground: Path) -> None:
    """PatientIDs, UIDs and hospitals' folders stay where the hospitals' own files are."""
    phantoms = ground / "phantoms"
    forbidden = {str(phantoms).encode(), b"site.yaml", b".dcm"}
    for hospital in HOSPITALS:
        rows = (folder_of(phantoms, hospital) / "labels.csv").read_text().splitlines()[1:]
        forbidden |= {part.encode() for row in rows for part in row.split(",")[:2]}
    kept = list((whole.folder / "federated").iterdir())
    kept += [whole.folder / name for name in ("results.json", "report.html", "model-card.md")] + [ground / "mlflow.db"]
    for path in kept:
        content = path.read_bytes()
        assert not [word for word in forbidden if word in content], path.name
    with closing(sqlite3.connect(ground / "mlflow.db")) as database:
        params = [value for (value,) in database.execute("SELECT value FROM params")]
    assert not [value for value in params if str(ground) in value]


def test_it_runs_a_second_time_without_complaint(ground: Path, whole: Ended) -> None:
    again = play(ground, "whole", "tracking=mlflow")
    assert again.folder != whole.folder
    assert again.folder.name == whole.folder.name.removesuffix("-1") + "-2"
    assert again.results.dropped == {}
    assert [len(entries(again.folder, hospital)) for hospital in HOSPITALS] == [5, 5, 5]  # one more to compare models
    weights = [load_file(next((e.folder / "federated").glob("round-*.safetensors"))) for e in (whole, again)]
    assert not np.array_equal(weights[0]["weight"], weights[1]["weight"])  # the noise is never seeded


def test_without_privacy_two_runs_are_equal_to_the_last_digit(ground: Path) -> None:
    open_to_all = ("privacy=none", "wire.up=int8", "evaluation.arms=[local]", "evaluation.repeats=3")
    one, other = (play(ground, name, *open_to_all) for name in ("first", "other"))
    assert other.folder != one.folder
    files = [next((ended.folder / "federated").glob("round-*.safetensors")) for ended in (one, other)]
    assert files[0].read_bytes() == files[1].read_bytes()
    apart = {"study", "seconds", "asked_by"}
    numbers, again = ({k: v for k, v in ended.numbers().items() if k not in apart} for ended in (one, other))
    assert numbers == again
    reseeded = play(ground, "another-seed", *open_to_all, "evaluation.repeats=1", "evaluation.arms=[]", "seed=2")
    assert next((reseeded.folder / "federated").glob("round-*.safetensors")).read_bytes() != files[0].read_bytes()
    assert any(half > 0 for half in one.results.spread["federated"].values()), "a repetition draws other patients"


def test_processes_play_the_same_study(ground: Path) -> None:
    ended = play(ground, "processes", "runtime.workers=2", "evaluation.arms=[]")
    assert ended.results.dropped == {}
    assert ended.results.arms.keys() == {"federated"}
    assert [len(entries(ended.folder, hospital)) for hospital in HOSPITALS] == [4, 4, 4]


def test_evaluation_with_noise_is_charged_to_the_validation_patients(ground: Path) -> None:
    ended = play(ground, "noised", "evaluation.epsilon=4", "evaluation.bins=8", "evaluation.arms=[]")
    for hospital in HOSPITALS:
        scored = [e.mechanism for e in entries(ended.folder, hospital) if e.use.cohort == "validation"]
        assert len(scored) == 2
        assert 3 < epsilon_of(scored, 1e-4) <= 4
        told = ended.state().rounds[-1].hospitals[hospital].evaluation_epsilon
        assert told == pytest.approx(epsilon_of(scored, 1e-4))


def test_every_model_at_every_hospital_is_charged_to_those_who_are_scored(ground: Path) -> None:
    """A first look, one evaluation, one joint histogram that noise would drown and that is not asked for, three
    models."""
    asked = ("evaluation.epsilon=60", "evaluation.bins=8", "evaluation.arms=[local]", "evaluation.matrix=3")
    ended = play(ground, "matrix", *asked)
    for hospital in HOSPITALS:
        scored = [e.mechanism for e in entries(ended.folder, hospital) if e.use.cohort == "validation"]
        look, *others = scored
        assert [mechanism.count for mechanism in others] == [1, 1, 1, 1]
        assert len({mechanism.noise_multiplier for mechanism in others}) == 1, "planned together, before the first"
        assert look.noise_multiplier == pytest.approx(3 * others[0].noise_multiplier), "where scores lie"
        assert ended.results.validation_epsilon[hospital] == pytest.approx(epsilon_of(scored, 1e-4))
        assert epsilon_of(scored, 1e-4) <= 60
    matrix = ended.numbers()["matrix"]
    assert matrix.keys() == {*HOSPITALS, "federated"}
    assert all(set(each) == set(HOSPITALS) for each in matrix.values())
    assert (ended.folder / "figures" / "matrix.svg").is_file()
    assert "Every model at every hospital" in (ended.folder / "report.html").read_text("utf-8")
    assert ended.results.paired == []


def test_a_matrix_of_another_size_is_refused_before_anything_is_trained(ground: Path) -> None:
    """A study that names its hospitals is refused while it is read; of others the number is known only once founded."""
    study = configure(ground, "wrong-matrix")
    study.evaluation.matrix = 2
    with pytest.raises(ConfigError, match="there are 3 hospitals"):
        run_study(study, provision_hospitals, client_app, console()[0])
    (folder,) = (ground / "studies").glob("wrong-matrix-*")
    assert not (folder / "federated").exists()


def test_steps_that_sample_nobody_are_steps_of_noise_and_cost_what_they_cost(ground: Path) -> None:
    """With eight patients and a rate of 1/500 nearly every draw is empty."""
    ended = play(ground, "nobody", "training.sample_rate=0.002", "evaluation.arms=[]")
    assert ended.results.dropped == {}
    for hospital in HOSPITALS:
        trained = [e.mechanism for e in entries(ended.folder, hospital) if e.use.cohort == "train"]
        assert [mechanism.count for mechanism in trained] == [3, 3]
        spent = ended.results.epsilon[hospital]
        assert spent is not None
        assert 0 < spent <= 8
    state = ended.state()
    assert all(record.update_norm > 0 and math.isfinite(record.update_norm) for record in state.rounds)


def test_a_study_without_privacy_says_so(ground: Path) -> None:
    ended = play(ground, "open", "privacy=none", "evaluation.arms=[]")
    assert set(ended.results.epsilon.values()) == {None}
    assert "no noise" in ended.shown
    assert "epsilon 8" not in ended.shown
    assert not (ended.folder / "figures" / "privacy.svg").exists()
