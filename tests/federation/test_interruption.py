"""Kill a study at any moment: the same command goes on, no round is lost and nothing is spent beside the ledger."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from mlflow import MlflowClient

from client.ledger.accounting import epsilon_of
from server import simulation
from server.__main__ import client_app
from server.errors import CheckpointDamaged
from server.rounds.checkpoint import read_state
from server.runtime.workers import LoadApp
from server.study import cross_site_evaluation
from tasks.protocol import wire
from tests.federation.embedded import HOSPITALS, TINY, Ended, entries, play

ROUNDS = 20
"""So many that a study is still under way when it is interrupted: a round takes a twentieth of a second."""
SETTINGS = (f"federation.rounds={ROUNDS}", "evaluation.arms=[]")


def committed(folder: Path) -> int:
    """Rounds of a study that may be writing its checkpoint at this moment, which moves files away under a reader."""
    for _ in range(100):
        try:
            state = read_state(folder / "federated")
            return 0 if state is None else len(state.rounds)
        except (CheckpointDamaged, FileNotFoundError):
            time.sleep(0.005)
    raise AssertionError(f"{folder} cannot be read, however often it is tried")


def assert_whole(ended: Ended) -> None:
    """As many rounds as without an interruption, each trained once by every hospital, every loss in the ledger."""
    assert [record.number for record in ended.state().rounds] == list(range(1, ROUNDS + 1))
    assert ended.results.dropped == {}
    for hospital in HOSPITALS:
        trained = [entry for entry in entries(ended.folder, hospital) if entry.use.cohort == "train"]
        assert [e.use.round for e in trained if e.committed] == list(range(1, ROUNDS + 1))
        assert {e.use.study for e in trained} == {ended.folder.name}
        spent = epsilon_of([entry.mechanism for entry in trained], 1e-4)  # reservations that were lost are spent
        assert ended.results.epsilon[hospital] == pytest.approx(spent)
        assert spent <= 8 + 1e-6


def test_a_study_that_is_killed_again_and_again_ends_as_if_it_had_not_been(ground: Path, whole: Ended) -> None:
    """kill -9 at random moments, in children of this process so that nothing has to be imported again."""
    rng = random.Random(20240607)
    a_round = min(record.seconds for record in whole.state().rounds)
    before, killed = 0, 0
    while before < ROUNDS - 1 and killed < 8:
        child = os.fork()
        if child == 0:
            try:
                play(ground, "killed", *SETTINGS)
            finally:
                os._exit(0)
        aim = before + rng.choice([0, 0, 1])
        _wait_until(lambda aim=aim: _committed_by_name(ground, "killed") >= aim)  # type: ignore[misc]
        time.sleep(rng.uniform(0, a_round))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        now = _committed_by_name(ground, "killed")
        assert now >= max(before, aim)
        before = now
    ended = play(ground, "killed", *SETTINGS)
    assert killed >= 3
    assert "Going on with" in ended.shown
    assert len(list((ground / "studies").glob("killed-*"))) == 1
    assert_whole(ended)
    lost = sum(entry.committed is None for hospital in HOSPITALS for entry in entries(ended.folder, hospital))
    assert lost <= killed  # in one process one order at a time is under way


def _committed_by_name(ground: Path, name: str) -> int:
    return sum(committed(folder) for folder in (ground / "studies").glob(f"{name}-*"))


def _wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


def stop_after(rounds: int) -> LoadApp:
    """An app whose process ends, without any clean-up, when the first hospital is asked for one round more."""

    def load_app() -> ClientApp:
        real, app = client_app(), ClientApp()

        def train(message: Message, context: Context) -> Message:
            reply = real(message, context)
            if wire.decode(message.content, wire.TrainOrder).round > rounds:
                os._exit(9)
            return reply

        app.train()(train)
        app.evaluate()(lambda message, context: real(message, context))
        return app

    return load_app


def test_an_order_that_was_answered_but_not_received_is_not_trained_again(ground: Path, whole: Ended) -> None:
    """The hospital has committed, the server dies before it hears of it: the stored reply is what it gets next time."""
    child = os.fork()
    if child == 0:
        try:
            play(ground, "unheard", *SETTINGS, load_app=stop_after(2))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (folder,) = (ground / "studies").glob("unheard-*")
    assert committed(folder) == 2
    (pending,) = [e for e in entries(folder, "alder") if e.use.cohort == "train" and e.use.round == 3]
    assert pending.committed

    ended = play(ground, "unheard", *SETTINGS)
    assert_whole(ended)
    third = [e for e in entries(folder, "alder") if e.use.cohort == "train" and e.use.round == 3]
    assert third == [pending]


def test_a_study_that_ended_during_the_comparison_repeats_no_round(ground: Path, whole: Ended) -> None:
    settings = (f"federation.rounds={ROUNDS}", "evaluation.arms=[local]")
    child = os.fork()
    if child == 0:
        simulation.baselines.compare = lambda *arguments, **named: os._exit(9)  # type: ignore[assignment]
        try:
            play(ground, "compared", *settings)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (folder,) = (ground / "studies").glob("compared-*")
    before = [entries(folder, hospital) for hospital in HOSPITALS]
    ended = play(ground, "compared", *settings)
    assert ended.folder == folder
    after = [entries(folder, hospital) for hospital in HOSPITALS]
    assert [each[:-1] for each in after] == before
    assert {each[-1].use.round for each in after} == {ROUNDS}, "both models on the same patients, after all rounds"
    assert ended.results.arms.keys() == {"local", "federated"}


def test_a_study_that_ended_while_two_models_were_compared_charges_nobody_twice(ground: Path, whole: Ended) -> None:
    """The process dies after the answer of the second of three hospitals."""
    settings = ("evaluation.arms=[local]", "evaluation.matrix=3")
    child = os.fork()
    if child == 0:
        compared = iter((True, False))
        right = cross_site_evaluation.auc_difference
        cross_site_evaluation.auc_difference = lambda joint: right(joint) if next(compared) else os._exit(9)
        try:
            play(ground, "crossed", *settings)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (folder,) = (ground / "studies").glob("crossed-*")
    scored = [[e for e in entries(folder, h) if e.use.cohort == "validation"] for h in HOSPITALS]
    assert [len(each) for each in scored] == [3, 3, 2]
    ended = play(ground, "crossed", *settings)
    assert ended.folder == folder
    scored = [[e for e in entries(folder, h) if e.use.cohort == "validation"] for h in HOSPITALS]
    assert [len(each) for each in scored] == [2 + 1 + 3] * 3
    assert all(entry.committed for each in scored for entry in each)
    assert ended.results.paired == sorted(HOSPITALS)
    assert ended.results.warnings == [w for w in ended.results.warnings if "did not" not in w]


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
        _wait_until(lambda: _committed_by_name(tmp_path, "demo") >= 1 or process.poll() is not None, 120)
        os.killpg(process.pid, signal.SIGINT)
        shown, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, shown
    assert "Interrupted." in shown
    assert "the same command goes on from there" in shown
    assert "Traceback" not in shown
    kept = _committed_by_name(tmp_path, "demo")
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
