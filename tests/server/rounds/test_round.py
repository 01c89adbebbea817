"""A round with hospitals that behave and hospitals that do not, through the real grid and codec."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from server.errors import RoundFailed
from server.rounds import checkpoint
from server.rounds.ledger_witness import Witness
from server.rounds.round import run_rounds
from server.rounds.state import RoundRecord, StudyState
from server.runtime.local_grid import LocalGrid
from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.ranking import roc_auc
from tasks.protocol import wire
from tasks.protocol.wire import Arrays, EvaluateOrder, TrainOrder
from tests.server import scripted

QUIET = ("federation.deadline_s=20",)


def play(
    folder: Path, *overrides: str, start: StudyState | None = None, workers: int = 0, **behaviours: Any
) -> StudyState:
    """Run the scripted study; what was published is checked to be what is returned."""
    asked = scripted.study(*QUIET, *overrides)
    published: list[StudyState] = []
    with LocalGrid(scripted.sites(folder, **behaviours), scripted.load_app, workers) as grid:
        state = start or StudyState(scripted.WEIGHTS)
        roster = replace(scripted.roster(asked, grid), witness=Witness(state.ledger_heads))
        ended = run_rounds(asked, roster, grid, state, published.append)
    assert [len(state.rounds) for state in published] == list(range(len(state.rounds) + 1, len(ended.rounds) + 1))
    return ended


def by_hand(names: list[str], rounds: int) -> Arrays:
    """FedAvg of honest hospitals of equal size, in numpy."""
    weights = {key: value.astype(np.float64) for key, value in scripted.WEIGHTS.items()}
    asked = scripted.study(*QUIET)
    with LocalGrid({}, scripted.load_app) as grid:
        document = scripted.roster(asked, grid).document
    for number in range(1, rounds + 1):
        given = {key: value.astype(np.float32) for key, value in weights.items()}
        updates = [scripted.honest_update(name, TrainOrder(document, number, given)) for name in names]
        weights = {key: given[key] + np.mean([u[key].astype(np.float64) for u in updates], axis=0) for key in given}
    return {key: value.astype(np.float32) for key, value in weights.items()}


def assert_close(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype == np.float32
        np.testing.assert_allclose(value, other[key], rtol=1e-6, atol=1e-7)


def test_honest_hospitals_give_the_mean_of_their_updates(tmp_path: Path) -> None:
    ended = play(tmp_path, ash="well", elm="well", oak="well")
    assert_close(ended.weights, by_hand(["ash", "elm", "oak"], 3))
    assert [record.number for record in ended.rounds] == [1, 2, 3]
    for record in ended.rounds:
        assert record.dropped == {}
        assert record.seconds > 0
        assert record.update_norm > 0
        assert record.hospitals.keys() == {"ash", "elm", "oak"}
        for name, figures in record.hospitals.items():
            assert figures.epsilon == 1.0
            auc = roc_auc(ScoreHistogram(scripted.honest_histogram(name, 8)["histogram"]))
            assert auc is not None
            assert (figures.auc, figures.auc_low, figures.auc_high) == (auc.value, auc.low, auc.high)
            assert figures.bytes_down > 2 * 4 * 7
            assert figures.bytes_up > 4 * 7


def test_a_hospital_with_twice_the_noise_counts_a_quarter_where_weights_follow_the_noise(tmp_path: Path) -> None:
    overrides = ("federation.rounds=1", "strategy.weighting=inverse_noise_variance")
    ended = play(tmp_path, *overrides, ash="well", elm={"train": "twice the noise"})
    ash, elm = (by_hand([name], 1) for name in ("ash", "elm"))
    assert_close(ended.weights, {key: np.float32(0.8) * ash[key] + np.float32(0.2) * elm[key] for key in ash})


def test_a_hospital_three_times_as_large_counts_three_times(tmp_path: Path) -> None:
    """By the size that the study's document gives it."""
    asked = scripted.study(*QUIET, "federation.rounds=1")
    with LocalGrid(scripted.sites(tmp_path, ash="well", elm="well"), scripted.load_app) as grid:
        equal = scripted.roster(asked, grid)
        sized = replace(equal, document=replace(equal.document, sizes={"ash": 2000, "elm": 6000}))
        ended = run_rounds(asked, sized, grid, StudyState(scripted.WEIGHTS), lambda state: None)
    ash, elm = (by_hand([name], 1) for name in ("ash", "elm"))
    assert_close(ended.weights, {key: np.float32(0.25) * ash[key] + np.float32(0.75) * elm[key] for key in ash})


def test_a_study_that_was_interrupted_goes_on_identically(tmp_path: Path) -> None:
    whole = play(tmp_path, ash="well", elm="well")
    begun = play(tmp_path, "federation.rounds=1", ash="well", elm="well")
    # the document names the rounds, so the first part is played as the same study would have been
    resumed = play(tmp_path, start=begun, ash="well", elm="well")
    for key, value in whole.weights.items():
        assert value.tobytes() == resumed.weights[key].tobytes()
    assert [strip(record) for record in whole.rounds][1:] == [strip(record) for record in resumed.rounds][1:]


def strip(record: RoundRecord) -> RoundRecord:
    return replace(record, seconds=0.0)


BAD_UPDATES = [
    ("nan", "weight has values that are not finite"),
    ("infinite", "weight has values that are not finite"),
    ("minus infinite", "weight has values that are not finite"),
    ("wrong tensor shape", "(3, 2)"),
    ("broadcast", "(1, 3)"),
    ("wrong tensor dtype", "float64"),
    ("missing tensor", "weight"),
    ("another tensor", "hook"),
    ("no noise", "it reports no noise, but the study is private"),
    ("another study", "other-1"),
    ("another round", "round 2"),
    ("another kind", "EvaluateReport"),
    ("refuse", "BUDGET_EXHAUSTED"),
    ("not held", "refused with NOT_HELD"),  # also of the whole model, which is sent once
    ("no records", "not a Consilium message"),
    ("markup", "where TrainReport or Refusal is due"),
    ("text for numbers", "dtype"),
    ("npz", "is not an array"),
    ("raise", "its client failed"),
    ("panic", "its client failed"),
    ("leave", "its client failed"),
]


@pytest.mark.parametrize(("behaviour", "told"), BAD_UPDATES)
def test_a_bad_answer_is_dropped_by_name_and_leaves_no_trace_in_the_model(
    tmp_path: Path, behaviour: str, told: str
) -> None:
    ended = play(tmp_path, ash="well", birch={"train": {"1": behaviour}}, elm="well")
    first, second, third = ended.rounds
    assert first.dropped.keys() == {"birch"}
    assert first.dropped["birch"].startswith("train: ")
    assert told in first.dropped["birch"]
    assert first.hospitals["birch"].epsilon is None  # it was evaluated all the same
    assert first.hospitals["birch"].auc is not None
    assert second.dropped == third.dropped == {}
    without = play(tmp_path, "federation.rounds=1", ash="well", elm="well")
    with_it = play(tmp_path, "federation.rounds=1", ash="well", birch=behaviour, elm="well")
    assert_close(with_it.weights, without.weights)


def test_what_a_hospital_says_in_an_exception_does_not_reach_the_record(tmp_path: Path) -> None:
    ended = play(tmp_path, ash="well", birch="raise", elm="well")
    assert "4711" not in str(ended.rounds)
    assert "secret" not in str(ended.rounds)


def test_no_answer_makes_a_record_long(tmp_path: Path) -> None:
    ended = play(tmp_path, ash="well", birch="markup", elm="well")
    assert all(len(record.dropped["birch"]) < 500 for record in ended.rounds)


def test_a_gigantic_update_neither_ends_the_study_nor_reaches_the_model(tmp_path: Path) -> None:
    ended = play(tmp_path, ash="well", birch="gigantic", elm="well")
    assert all("birch" in record.dropped for record in ended.rounds)
    assert_close(ended.weights, by_hand(["ash", "elm"], 3))


BAD_HISTOGRAMS = [
    "nan", "gigantic", "whole numbers", "too few bins", "one row", "no histogram", "another study", "another round",
    "refuse", "no records", "text for numbers", "raise", "npz",
]  # fmt: skip


@pytest.mark.parametrize("behaviour", BAD_HISTOGRAMS)
def test_a_bad_evaluation_is_dropped_by_name_and_its_training_still_counts(tmp_path: Path, behaviour: str) -> None:
    ended = play(tmp_path, ash="well", birch={"train": "well", "evaluate": behaviour}, elm="well")
    assert_close(ended.weights, by_hand(["ash", "birch", "elm"], 3))
    for record in ended.rounds:
        assert record.dropped.keys() == {"birch"}
        assert record.dropped["birch"].startswith("evaluate: ")
        assert record.hospitals["birch"].auc is None
        assert record.hospitals["birch"].epsilon == 1.0
        mean = record.mean_auc()
        assert mean is not None
        assert math.isfinite(mean)


def test_a_hospital_that_fails_twice_is_told_with_both_stages(tmp_path: Path) -> None:
    ended = play(tmp_path, ash="well", birch={"train": "raise", "evaluate": "raise"}, elm="well")
    told = ended.rounds[0].dropped["birch"]
    assert "train: " in told
    assert "evaluate: " in told


def test_one_class_has_no_auc_and_is_no_fault(tmp_path: Path) -> None:
    ended = play(tmp_path, ash={"evaluate": "one class"}, elm="well")
    assert ended.rounds[-1].hospitals["ash"].auc is None
    assert ended.rounds[-1].dropped == {}
    assert ended.rounds[-1].mean_auc() == ended.rounds[-1].hospitals["elm"].auc


@pytest.mark.parametrize(("quorum", "enough"), [("0.67", False), ("0.6", False), ("0.5", False), ("0.3", True)])
def test_a_round_below_the_quorum_is_no_round(tmp_path: Path, quorum: str, enough: bool) -> None:
    """Of three hospitals one behaves from round 2 on."""
    bad = {"train": {"2": "nan", "3": "nan"}}
    behaviours = {"ash": "well", "birch": bad, "elm": bad}
    if enough:
        assert len(play(tmp_path, f"federation.quorum={quorum}", **behaviours).rounds) == 3
        return
    committed: list[StudyState] = []
    asked = scripted.study(*QUIET, f"federation.quorum={quorum}")
    with LocalGrid(scripted.sites(tmp_path, **behaviours), scripted.load_app) as grid:
        roster = scripted.roster(asked, grid)
        with pytest.raises(RoundFailed) as caught:
            run_rounds(asked, roster, grid, StudyState(scripted.WEIGHTS), committed.append)
    assert [len(state.rounds) for state in committed] == [1]
    assert (caught.value.round, caught.value.stage) == (2, "train")
    assert caught.value.dropped.keys() == {"birch", "elm"}
    message = str(caught.value)
    assert all(part in message for part in ("scripted-1", "round 2", "train", "birch", "elm", "not finite", "quorum"))


def test_a_round_that_trained_nobody_fails_whatever_the_quorum(tmp_path: Path) -> None:
    with pytest.raises(RoundFailed, match="1 usable"):
        play(tmp_path, "federation.quorum=0.01", ash="refuse", elm="raise")


def test_the_weights_before_the_failed_round_are_not_touched(tmp_path: Path) -> None:
    before = {key: value.copy() for key, value in scripted.WEIGHTS.items()}
    with pytest.raises(RoundFailed):
        play(tmp_path, ash="nan", elm="nan")
    for key, value in before.items():
        np.testing.assert_array_equal(scripted.WEIGHTS[key], value)


class Deaf(LocalGrid):
    """A grid on which one hospital never answers."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        silent = {name for name, order in self._waiting.items() if order.metadata.dst_node_id == self.nodes["birch"]}
        return super().pull_messages(set(message_ids) - silent)


def test_a_hospital_that_does_not_answer_is_left_behind_at_the_deadline(tmp_path: Path) -> None:
    asked = scripted.study("federation.deadline_s=1.5", "federation.rounds=2")
    started = time.monotonic()
    with Deaf(scripted.sites(tmp_path, ash="well", birch="well"), scripted.load_app) as grid:
        ended = run_rounds(asked, scripted.roster(asked, grid), grid, StudyState(scripted.WEIGHTS), lambda state: None)
    assert time.monotonic() - started >= 4 * 1.5  # it was waited for, twice a round
    for record in ended.rounds:
        assert record.hospitals["ash"].epsilon == 1.0
        assert record.dropped["birch"] == "train: no answer within 1.5 s; evaluate: no answer within 1.5 s"


@pytest.mark.parametrize(("every", "evaluated"), [(1, [1, 2, 3]), (2, [2, 3]), (5, [3])])
def test_the_model_is_evaluated_as_often_as_asked_and_at_the_end(
    tmp_path: Path, every: int, evaluated: list[int]
) -> None:
    ended = play(tmp_path, f"evaluation.every={every}", ash="well", elm="well")
    assert [record.number for record in ended.rounds if record.mean_auc() is not None] == evaluated


class Recording(LocalGrid):
    """A grid that notes which orders to evaluate it was given, and whose replies arrive in this order."""

    def __init__(self, sites: dict[str, Path], backwards: bool = False) -> None:
        super().__init__(sites, scripted.load_app)
        self._backwards, self.evaluated, self._here = backwards, list[str](), list[Message]()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = list(messages)
        self.evaluated += [
            wire.digest(wire.decode(one.content, EvaluateOrder))
            for one in pushed
            if one.metadata.message_type == "evaluate"
        ]
        return super().push_messages(pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = set(message_ids)
        while asked - {one.metadata.reply_to_message_id for one in self._arrived(asked)}:
            time.sleep(0.01)
        replies = sorted(self._arrived(asked), key=lambda one: one.metadata.src_node_id, reverse=self._backwards)
        self._here.clear()
        return replies

    def _arrived(self, asked: set[str]) -> list[Message]:
        self._here += super().pull_messages(asked)
        return self._here


class Killed(Exception):
    """The server's process ends between the evaluation of a round and its commit."""


def test_a_server_killed_before_a_commit_has_the_same_model_evaluated_again(tmp_path: Path) -> None:
    """Hospitals then return what they have answered, and charge nothing. Neither the order in which updates arrive
    next time nor a hospital that was revoked meanwhile may change the model."""
    asked = scripted.study(*QUIET)
    sites = scripted.sites(tmp_path, ash="well", elm="well", oak="well", yew="well")

    def killed(state: StudyState) -> None:
        raise Killed

    with Recording(sites) as grid, pytest.raises(Killed):
        run_rounds(asked, scripted.roster(asked, grid), grid, StudyState(scripted.WEIGHTS), killed, tmp_path / "kept")
    first = set(grid.evaluated)
    assert len(first) == 1
    published: list[StudyState] = []
    with Recording(sites, backwards=True) as grid:
        roster = scripted.roster(asked, grid)
        left = replace(roster, nodes={name: roster.nodes[name] for name in ("ash", "elm", "oak")})
        ended = run_rounds(asked, left, grid, StudyState(scripted.WEIGHTS), published.append, tmp_path / "kept")
    assert first == set(grid.evaluated[:3])
    assert ended.rounds[0].hospitals["yew"].epsilon == 1.0  # its update is in that model
    assert ended.rounds[0].hospitals["yew"].auc is None
    assert "yew" not in ended.rounds[1].hospitals
    assert not list((tmp_path / "kept").rglob("*.*")), "what is committed is not kept twice"


def test_what_was_kept_of_another_round_is_not_used(tmp_path: Path) -> None:
    """It was killed between the commit and the moment in which the round was forgotten."""
    asked = scripted.study(*QUIET)
    with LocalGrid(scripted.sites(tmp_path, ash="well", elm="well"), scripted.load_app) as grid:
        roster = scripted.roster(asked, grid)
        whole = run_rounds(asked, roster, grid, StudyState(scripted.WEIGHTS), lambda state: None)
        checkpoint.keep_trained(tmp_path, replace(whole, rounds=whole.rounds[:1]))
        assert checkpoint.read_trained(tmp_path, 1) is None
        ended = run_rounds(asked, roster, grid, replace(whole, rounds=whole.rounds[:1]), lambda state: None, tmp_path)
    assert [record.number for record in ended.rounds] == [1, 2, 3]
