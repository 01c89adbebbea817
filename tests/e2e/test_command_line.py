"""The researcher's command in processes of its own: interrupted as a person would, killed, and as a sweep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from client.ledger.accounting import epsilon_of
from server.study import cross_site_evaluation
from tests.federation.conftest import ground, whole
from tests.federation.embedded import HOSPITALS, TINY, Ended, entries, play
from tests.federation.test_interruption import committed_by_name, wait_until
from tests.forks import exit_code, started

__all__ = ["ground", "whole"]  # fixtures


def test_ctrl_c_keeps_what_was_committed_and_the_same_configuration_goes_on(
    ground: Path, whole: Ended, tmp_path: Path
) -> None:
    """A real process with MLflow, interrupted as a person would; what goes on is one study and one MLflow run."""
    (tmp_path / "phantoms").symlink_to(ground / "phantoms")
    uri = f"sqlite:///{ground / 'mlflow.db'}"  # making a store of its own would take seconds
    rounds = 30  # written into MLflow each takes a tenth of a second: long enough to be interrupted among them
    asked = (f"federation.rounds={rounds}", "evaluation.arms=[]", f"tracking.uri={uri}", "tracking.name=mlflow")
    command = [sys.executable, "-m", "server", *TINY, *asked, f"output_dir={tmp_path}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    try:
        wait_until(lambda: committed_by_name(tmp_path, "demo") >= 1 or process.poll() is not None, 120)
        os.killpg(process.pid, signal.SIGINT)
        shown, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, shown
    assert "Interrupted." in shown
    assert "the same command goes on from there" in shown
    assert "Traceback" not in shown
    kept = committed_by_name(tmp_path, "demo")
    assert 1 <= kept < rounds

    ended = play(tmp_path, "demo", *asked)
    assert f"Going on with {ended.folder.name}" in ended.shown
    assert len(list(tmp_path.glob("studies/*"))) == 1
    assert [record.number for record in ended.state().rounds] == list(range(1, rounds + 1))
    client = MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'breast_ultrasound'")
    runs = client.search_runs([experiment.experiment_id], f"tags.fl_study = '{ended.folder.name}'")
    assert sorted(run.data.tags.get("fl_hospital", "") for run in runs) == ["", *HOSPITALS]
    (parent,) = [run for run in runs if run.data.tags["fl_kind"] == "study"]
    history = client.get_metric_history(parent.info.run_id, "site/alder/epsilon")
    assert sorted({metric.step for metric in history}) == list(range(1, rounds + 1))
    assert parent.info.status == "FINISHED"
    for hospital in HOSPITALS:
        trained = [e for e in entries(ended.folder, hospital) if e.use.cohort == "train"]
        assert [e.use.round for e in trained if e.committed] == list(range(1, rounds + 1))
        assert epsilon_of([e.mechanism for e in trained], 1e-4) <= 8 + 1e-6


def test_a_sweep_is_one_study_for_each_combination(ground: Path, whole: Ended, tmp_path: Path) -> None:
    (tmp_path / "phantoms").symlink_to(ground / "phantoms")
    command = [sys.executable, "-m", "server", "-m", *TINY, "federation.rounds=1", "evaluation.arms=[]"]
    command += [f"output_dir={tmp_path}", "privacy.epsilon=2,8"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    studies = list(tmp_path.glob("studies/*"))
    assert len(studies) == 2
    assert all((path / "results.json").is_file() for path in studies)
    assert "epsilon 2" in ended.stdout
    assert "epsilon 8" in ended.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"phantoms", "hospitals", "studies", "sweeps"}


@pytest.mark.parametrize(
    "how", [("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), ("hydra/launcher=submitit_local",)]
)
def test_a_launcher_plays_studies_in_processes_of_its_own_and_they_are_compared(
    ground: Path, whole: Ended, tmp_path: Path, how: tuple[str, ...]
) -> None:
    """One of the three has no answer in time; the others have their turn and their page."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    ended = _swept(tmp_path, *how, "federation.deadline_s=0.001,60,61")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert len(list(tmp_path.glob("studies/*/results.json"))) == 2
    assert "Failed: federation.deadline_s=0.001: " in ended.stdout
    assert "1 of 3 studies failed" in ended.stdout
    assert len(list(tmp_path.glob("sweeps/*.html"))) == 1
    assert "Traceback" not in ended.stdout + ended.stderr


def test_optuna_looks_for_what_is_largest(ground: Path, whole: Ended, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ("hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=3")
    ended = _swept(tmp_path, *search, "training.learning_rate=tag(log,interval(0.01,32))", "objective=pooled_auc")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = [json.loads(path.read_text()) for path in tmp_path.glob("studies/*/results.json")]
    assert len(told) == 3
    best = yaml.safe_load((tmp_path / "sweeps" / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(each["details"]["federated"]["everybody"]["auc"]["value"] for each in told)


def _swept(output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", "-m", *TINY, "federation.rounds=1", "evaluation.arms=[]"]
    command += [f"output_dir={output}", *words]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=environment)


CROSSED = ("evaluation.arms=[local]", "evaluation.matrix=3")


def _play_up_to_the_second_answer(ground: Path) -> None:
    compared, right = iter((True, False)), cross_site_evaluation.auc_difference
    cross_site_evaluation.auc_difference = lambda joint: right(joint) if next(compared) else os._exit(9)
    play(ground, "crossed", *CROSSED)


def test_a_study_that_ended_while_two_models_were_compared_charges_nobody_twice(ground: Path, whole: Ended) -> None:
    """The process dies after the answer of the second of three hospitals."""
    assert exit_code(started(_play_up_to_the_second_answer, ground)) == 9
    (folder,) = (ground / "studies").glob("crossed-*")
    scored = [[e for e in entries(folder, h) if e.use.cohort == "validation"] for h in HOSPITALS]
    assert [len(each) for each in scored] == [3, 3, 2]
    ended = play(ground, "crossed", *CROSSED)
    assert ended.folder == folder
    scored = [[e for e in entries(folder, h) if e.use.cohort == "validation"] for h in HOSPITALS]
    assert [len(each) for each in scored] == [2 + 1 + 3] * 3
    assert all(entry.committed for each in scored for entry in each)
    assert ended.results.paired == sorted(HOSPITALS)
    assert ended.results.warnings == [w for w in ended.results.warnings if "did not" not in w]
