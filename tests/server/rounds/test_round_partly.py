"""Rounds in which not everybody takes part to the end: turns, late answers, an early end, another model handed over."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from server.errors import RoundFailed
from server.rounds.checkpoint import model_file, read_state, write_state
from server.rounds.round import run_rounds
from server.rounds.state import StudyState
from server.runtime.local_grid import LocalGrid
from tasks.protocol import wire
from tasks.protocol.wire import Arrays, TrainOrder
from tests.server import scripted

NAMES = ("ash", "birch", "elm", "fir")


def play(folder: Path, *overrides: str, grid: type[LocalGrid] = LocalGrid, **behaviours: Any) -> StudyState:
    asked = scripted.study("federation.deadline_s=20", *overrides)
    behaviours = behaviours or dict.fromkeys(NAMES, "well")
    with grid(scripted.sites(folder, **behaviours), scripted.load_app) as hospitals:
        roster = scripted.roster(asked, hospitals)
        return run_rounds(asked, roster, hospitals, StudyState(scripted.WEIGHTS), lambda state: None)


def assert_equal(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


class Slow(LocalGrid):
    """A grid on which one hospital's answer to each order is there when nobody waits for it any more."""

    def __exit__(self, *error: Any) -> None:
        assert self._waiting == {}, "orders that nobody waits for are withdrawn"
        super().__exit__(*error)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        late = {name for name, order in self._waiting.items() if order.metadata.dst_node_id == self.nodes["birch"]}
        given = list(super().pull_messages(set(message_ids) - late))
        return given or super().pull_messages(message_ids)


def test_hospitals_take_turns_and_all_are_evaluated(tmp_path: Path) -> None:
    ended = play(tmp_path, "federation.participation=0.5", "federation.rounds=4")
    asked = Counter(name for record in ended.rounds for name in record.invited)
    assert asked == dict.fromkeys(NAMES, 2)
    for record in ended.rounds:
        assert len(record.invited) == 2
        trained = {name for name, figures in record.hospitals.items() if figures.epsilon is not None}
        assert trained == set(record.invited)
        assert all(figures.auc is not None for figures in record.hospitals.values())
        assert record.hospitals.keys() == set(NAMES)
        assert record.dropped == {}


def test_a_round_closes_with_as_many_as_are_wanted_and_whoever_is_late_is_named(tmp_path: Path) -> None:
    overrides = ("federation.participation=0.75", "federation.over_selection=0.34", "evaluation.every=9")
    started = time.monotonic()
    ended = play(tmp_path, *overrides, grid=Slow)
    assert time.monotonic() - started < 15, "nobody waited for the deadline"
    for record in ended.rounds:
        assert sorted(record.invited) == sorted(NAMES)
        assert record.dropped == {"birch": "train: the round closed once 3 had answered"}
        trained = {name for name, figures in record.hospitals.items() if figures.epsilon is not None}
        assert trained == set(NAMES) - {"birch"}


def test_a_late_answer_is_never_taken_for_an_answer_to_a_later_round(tmp_path: Path) -> None:
    """Birch's orders of every round lie there unanswered; what the others sent is what the model is made of."""
    overrides = ("federation.participation=0.75", "federation.over_selection=0.34")
    late = play(tmp_path / "late", *overrides, grid=Slow) if (tmp_path / "late").mkdir() is None else None
    (tmp_path / "without").mkdir()
    without = play(tmp_path / "without", **dict.fromkeys(("ash", "elm", "fir"), "well"))
    assert late is not None
    assert_equal(late.weights, without.weights)


def test_an_order_that_no_worker_has_begun_is_withdrawn_and_a_late_reply_is_not_kept(tmp_path: Path) -> None:
    asked = scripted.study()
    with LocalGrid(scripted.sites(tmp_path, **dict.fromkeys(NAMES, "well")), scripted.load_app, workers=1) as hospitals:
        order = TrainOrder(scripted.roster(asked, hospitals).document, 1, scripted.WEIGHTS)
        messages = [hospitals.create_message(wire.encode(order), "train", n, "1") for n in hospitals.nodes.values()]
        begun, *rest = hospitals.push_messages(messages)
        assert hospitals.withdraw([begun, *rest[1:]]) == {begun}
        hospitals.forget([begun])
        replies: list[Message] = []
        while not replies:
            replies += hospitals.pull_messages([rest[0]])
        assert [reply.metadata.reply_to_message_id for reply in replies] == [rest[0]]
        assert hospitals._replies == {}
        assert list(hospitals.pull_messages([begun, *rest])) == []


def test_over_selection_makes_up_for_those_who_fail(tmp_path: Path) -> None:
    overrides = ("federation.participation=0.75", "federation.over_selection=0.34", "federation.quorum=1")
    ended = play(tmp_path, *overrides, ash="well", birch={"train": "nan"}, elm="well", fir="well")
    assert all("not finite" in record.dropped["birch"] for record in ended.rounds)
    with pytest.raises(RoundFailed, match="3 usable"):
        play(tmp_path, *overrides, ash="well", birch={"train": "nan"}, elm={"train": "refuse"}, fir="well")


def test_cyclic_asks_one_after_the_other(tmp_path: Path) -> None:
    behaviours = dict.fromkeys(("alder", "birch", "cedar"), "well")
    ended = play(tmp_path, "strategy=cyclic", "federation.rounds=6", **behaviours)
    assert [record.invited for record in ended.rounds] == [["alder"], ["birch"], ["cedar"]] * 2


def test_the_study_ends_early_when_nothing_is_gained(tmp_path: Path) -> None:
    """The scripted histograms are the same in every round."""
    ended = play(tmp_path, "federation.rounds=9", "evaluation.patience=2")
    assert len(ended.rounds) == 3
    resumed = play(tmp_path, "federation.rounds=9", "evaluation.patience=2")
    assert len(resumed.rounds) == 3


def test_the_best_model_is_handed_over_and_survives_a_checkpoint(tmp_path: Path) -> None:
    whole = play(tmp_path, "federation.rounds=3", "evaluation.deliver=best")
    first = play(tmp_path, "federation.rounds=1")
    assert whole.chosen == 1
    assert whole.outcome.number == 1
    assert_equal(whole.model, first.weights)
    assert not np.array_equal(whole.weights["weight"], first.weights["weight"])
    write_state(tmp_path / "c", whole)
    read = read_state(tmp_path / "c")
    assert read is not None
    assert (read.chosen, read.rounds) == (1, whole.rounds)
    assert_equal(read.model, whole.model)
    assert model_file(tmp_path / "c", read).name == "best-0003.safetensors"
    assert model_file(tmp_path / "c", read).is_file()


def test_a_moving_average_is_what_is_handed_over_and_training_goes_on_from_the_last(tmp_path: Path) -> None:
    plain = [play(tmp_path, f"federation.rounds={rounds}") for rounds in (1, 2, 3)]
    ended = play(tmp_path, "federation.rounds=3", "strategy.ema=0.5")
    assert_equal(ended.weights, plain[-1].weights)
    one, two, three = (state.weights["weight"] for state in plain)
    np.testing.assert_allclose(ended.model["weight"], one / 4 + two / 4 + three / 2, atol=1e-7)
    write_state(tmp_path / "c", ended)
    read = read_state(tmp_path / "c")
    assert read is not None
    assert_equal(read.model, ended.model)
    assert model_file(tmp_path / "c", read).name == "average-0003.safetensors"
