"""Kill a study at any moment: the same command goes on, no round is lost and nothing is spent beside the ledger."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.ledger.accounting import epsilon_of
from server import simulation
from server.__main__ import client_app
from server.errors import CheckpointDamaged
from server.rounds.checkpoint import read_state
from server.runtime.workers import LoadApp
from tasks.protocol import wire
from tests.federation.embedded import HOSPITALS, Ended, entries, play
from tests.forks import exit_code, started

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
    """kill -9 at random moments, in forks, so that nothing has to be imported again."""
    rng = random.Random(20240607)
    a_round = min(record.seconds for record in whole.state().rounds)
    before, killed = 0, 0
    while before < ROUNDS - 1 and killed < 8:
        child = started(play, ground, "killed", *SETTINGS)
        aim = before + rng.choice([0, 0, 1])
        wait_until(lambda aim=aim: committed_by_name(ground, "killed") >= aim)  # type: ignore[misc]
        time.sleep(rng.uniform(0, a_round / 3))  # a third: they may pass faster than those that were measured
        child.kill()
        killed += exit_code(child) == -signal.SIGKILL
        now = committed_by_name(ground, "killed")
        assert now >= max(before, aim)
        before = now
    ended = play(ground, "killed", *SETTINGS)
    assert killed >= 3
    assert "Going on with" in ended.shown
    assert len(list((ground / "studies").glob("killed-*"))) == 1
    assert_whole(ended)
    lost = sum(entry.committed is None for hospital in HOSPITALS for entry in entries(ended.folder, hospital))
    assert lost <= killed  # in one process one order at a time is under way


def committed_by_name(ground: Path, name: str) -> int:
    return sum(committed(folder) for folder in (ground / "studies").glob(f"{name}-*"))


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
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


def _play_two_rounds(ground: Path) -> None:
    play(ground, "unheard", *SETTINGS, load_app=stop_after(2))


def test_an_order_that_was_answered_but_not_received_is_not_trained_again(ground: Path, whole: Ended) -> None:
    """The hospital has committed, the server dies before it hears of it: the stored reply is what it gets next time."""
    assert exit_code(started(_play_two_rounds, ground)) == 9
    (folder,) = (ground / "studies").glob("unheard-*")
    assert committed(folder) == 2
    (pending,) = [e for e in entries(folder, "alder") if e.use.cohort == "train" and e.use.round == 3]
    assert pending.committed

    assert_whole(play(ground, "unheard", *SETTINGS))
    third = [e for e in entries(folder, "alder") if e.use.cohort == "train" and e.use.round == 3]
    assert third == [pending]


COMPARED = (f"federation.rounds={ROUNDS}", "evaluation.arms=[local]")


def _play_up_to_the_comparison(ground: Path) -> None:
    simulation.baselines.compare = lambda *arguments, **named: os._exit(9)  # type: ignore[assignment]
    play(ground, "compared", *COMPARED)


def test_a_study_that_ended_during_the_comparison_repeats_no_round(ground: Path, whole: Ended) -> None:
    assert exit_code(started(_play_up_to_the_comparison, ground)) == 9
    (folder,) = (ground / "studies").glob("compared-*")
    before = [entries(folder, hospital) for hospital in HOSPITALS]
    ended = play(ground, "compared", *COMPARED)
    assert ended.folder == folder
    after = [entries(folder, hospital) for hospital in HOSPITALS]
    assert [each[:-1] for each in after] == before
    assert {each[-1].use.round for each in after} == {ROUNDS}, "both models on the same patients, after all rounds"
    assert ended.results.arms.keys() == {"local", "federated"}
