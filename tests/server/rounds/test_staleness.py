"""Updates that come when their round has closed: folded into a later round at a discount, in both runtimes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp import Grid
from hypothesis import given
from hypothesis import strategies as st

from conf import load
from server.rounds.aggregation import with_late
from server.rounds.round import run_rounds
from server.rounds.staleness import OverdueOrders, discount, discounted
from server.rounds.state import HospitalRound, StudyState
from server.run_study import summary
from server.runtime.local_grid import LocalGrid
from server.runtime.superlink_grid import SuperlinkGrid
from tasks.protocol.wire import Arrays, TrainOrder
from tests.server import scripted
from tests.server.delaying import Delaying

NAMES = ("ash", "birch", "elm")
TWO_OF_THREE = ("federation.participation=0.67", "federation.over_selection=0.5", "federation.deadline_s=20")


class VeryLate(Delaying):
    until = 3


def play(
    folder: Path, grid: type[Delaying], *overrides: str, behind_superlink: bool = False, **behaviours: object
) -> StudyState:
    asked = scripted.study(*TWO_OF_THREE, *overrides)
    behaviours = dict.fromkeys(NAMES, "well") | behaviours
    with grid(scripted.sites(folder, **behaviours), scripted.load_app) as hospitals:
        roster = scripted.roster(asked, hospitals)
        used: Grid = SuperlinkGrid(hospitals, 0, 20) if behind_superlink else hospitals
        return run_rounds(asked, roster, used, StudyState(scripted.WEIGHTS), lambda state: None)


def updates(names: tuple[str, ...], round: int, weights: Arrays) -> list[Arrays]:
    with LocalGrid({}, scripted.load_app) as grid:
        document = scripted.roster(scripted.study(*TWO_OF_THREE), grid).document
    return [scripted.honest_update(name, TrainOrder(document, round, weights)) for name in names]


def moved(weights: Arrays, several: list[Arrays]) -> Arrays:
    """The model after the plain mean of some updates."""
    return {
        name: (value + np.mean([np.float64(u[name]) for u in several], axis=0)).astype(np.float32)
        for name, value in weights.items()
    }


def scaled(update: Arrays, factor: float) -> Arrays:
    return {name: value * factor for name, value in update.items()}


def assert_close(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("behind_superlink", [False, True])
def test_a_late_update_is_folded_into_the_next_round_at_a_discount(tmp_path: Path, behind_superlink: bool) -> None:
    """The update is of the model of round 1, and two hospitals of round 2 stand beside it, each with weight 1."""
    overrides = ("federation.late_rounds=1", "federation.rounds=2")
    ended = play(tmp_path, Delaying, *overrides, behind_superlink=behind_superlink)
    first = moved(scripted.WEIGHTS, updates(("ash", "birch"), 1, scripted.WEIGHTS))
    late = scaled(updates(("elm",), 1, scripted.WEIGHTS)[0], 1 / math.sqrt(2))
    assert_close(ended.weights, moved(first, [*updates(("ash", "birch"), 2, first), late]))
    one, two = ended.rounds
    assert one.dropped == {"elm": "train: the round closed once 2 had answered"}
    assert one.carried == {}
    assert two.carried == {"elm": 1}
    assert two.invited == ["ash", "birch"], "elm was still at the order of round 1"
    assert two.dropped == {}
    assert summary(two).endswith("epsilon 1.00  late: elm")
    assert two.hospitals["elm"].epsilon == 1.0
    assert two.hospitals["elm"].bytes_up > two.hospitals["ash"].bytes_up / 2


def test_whoever_has_answered_late_is_asked_again(tmp_path: Path) -> None:
    ended = play(tmp_path, Delaying, "federation.late_rounds=1", "federation.rounds=3")
    assert [record.invited for record in ended.rounds] == [list(NAMES), ["ash", "birch"], list(NAMES)]


def test_what_is_older_than_the_study_allows_is_not_taken_and_its_hospital_is_asked_anew(tmp_path: Path) -> None:
    one_round, none = (play(tmp_path, VeryLate, f"federation.late_rounds={n}", "federation.rounds=4") for n in (1, 0))
    assert_close(one_round.weights, none.weights)
    assert [record.carried for record in one_round.rounds] == [{}] * 4
    assert [len(record.invited) for record in one_round.rounds] == [3, 2, 3, 3]
    assert [len(record.invited) for record in none.rounds] == [3, 3, 3, 3]
    two_rounds = play(tmp_path, VeryLate, "federation.late_rounds=2", "federation.rounds=3")
    assert two_rounds.rounds[2].carried == {"elm": 1}
    weights = scripted.WEIGHTS
    for number in (1, 2):
        weights = moved(weights, updates(("ash", "birch"), number, weights))
    late = scaled(updates(("elm",), 1, scripted.WEIGHTS)[0], 1 / math.sqrt(3))
    assert_close(two_rounds.weights, moved(weights, [*updates(("ash", "birch"), 3, weights), late]))


def test_a_late_update_is_checked_like_any_other_and_makes_no_quorum(tmp_path: Path) -> None:
    overrides = ("federation.late_rounds=1", "federation.rounds=2", "federation.quorum=1")
    ended = play(tmp_path, Delaying, *overrides, elm={"train": {"1": "nan"}})
    assert ended.rounds[1].dropped == {
        "elm": "train: its late update of round 1: weight has values that are not finite"
    }
    first = moved(scripted.WEIGHTS, updates(("ash", "birch"), 1, scripted.WEIGHTS))
    assert_close(ended.weights, moved(first, updates(("ash", "birch"), 2, first)))


def test_an_order_behind_a_superlink_lives_until_its_late_update_is_of_no_use(tmp_path: Path) -> None:
    """Flower drops an order and its reply once the order's time to live is over."""
    lives: list[float] = []

    class Noting(Delaying):
        def push_messages(self, messages):  # type: ignore[no-untyped-def]
            together = list(messages)
            lives.extend(m.metadata.ttl for m in together if m.metadata.message_type == "train")
            return super().push_messages(together)

    play(tmp_path, Noting, "federation.late_rounds=2", "federation.rounds=1", behind_superlink=True)
    assert lives == [20 * 5 + 5] * 3
    lives.clear()
    play(tmp_path, Noting, "federation.rounds=1", behind_superlink=True)
    assert lives == [20 + 5] * 3


def test_a_hospital_in_a_process_of_its_own_that_misses_the_deadline_is_heard_in_the_next_round(tmp_path: Path) -> None:
    """Real processes and the real clock: elm takes four seconds for round 1, which closes after three."""
    asked = scripted.study("federation.deadline_s=3", "federation.rounds=4", "federation.late_rounds=3")
    slow_next = {"train": {"2": "nap", "3": "nap", "4": "nap"}}
    sites = scripted.sites(tmp_path, ash=slow_next, elm={"train": {"1": "sleep"}})
    with LocalGrid(sites, scripted.load_app, workers=2) as hospitals:
        list(hospitals.send_and_receive(orders(hospitals, asked), timeout=60))  # both processes are there
        roster = scripted.roster(asked, hospitals)
        ended = run_rounds(asked, roster, hospitals, StudyState(scripted.WEIGHTS), lambda state: None)
    assert ended.rounds[0].dropped["elm"] == "train: no answer within 3 s"
    (heard,) = [record for record in ended.rounds if "elm" in record.carried]
    assert heard.carried["elm"] == 1
    assert heard.hospitals["elm"].epsilon == 1.0
    assert "elm" not in ended.rounds[1].invited


def orders(grid: LocalGrid, asked):  # type: ignore[no-untyped-def]
    from tasks.protocol import wire

    content = wire.encode(wire.EvaluateOrder(scripted.roster(asked, grid).document, 9, scripted.WEIGHTS))
    return [grid.create_message(content, "evaluate", node, "9") for node in grid.get_node_ids()]


def test_replies_that_nobody_wants_are_fetched_from_a_superlink_and_thrown_away(tmp_path: Path) -> None:
    """Otherwise the SuperLink keeps them, a model long each, until the run ends."""
    asked = scripted.study(*TWO_OF_THREE)
    with LocalGrid(scripted.sites(tmp_path, ash="well", elm="well"), scripted.load_app) as hospitals:
        grid = SuperlinkGrid(hospitals, 0, 20)
        one, other = grid.push_messages(orders(hospitals, asked))
        assert grid.withdraw([one, other]) == {one, other}, "nobody can take an order back"
        grid.forget([one])
        seen = [reply.metadata.reply_to_message_id for _ in range(2) for reply in grid.pull_messages([other])]
        assert seen == [other]
        assert hospitals._waiting == {}
        assert hospitals._replies == {}


@given(st.integers(0, 50), st.integers(0, 50))
def test_the_discount_falls_with_age_and_leaves_what_is_in_time(one: int, other: int) -> None:
    assert discount(0) == 1
    assert 0 < discount(one) <= 1
    assert (discount(one) < discount(other)) == (one > other)
    update = {"a": np.ones(3, np.float32), "b": np.full((2, 2), -2.0, np.float32)}
    result = discounted(dict(update), one)
    for name, value in result.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, update[name] * discount(one), rtol=1e-6)


def test_answers_that_were_there_when_their_round_closed_are_given_once() -> None:
    from flwr.app import Message, RecordDict

    from server.runtime.flower_private import claim_identity

    claim_identity()
    late = OverdueOrders(1)
    message = Message(RecordDict(), 1, "train")
    late.keep({"m": "elm"}, 1, [message])
    assert late.waits_for("elm")
    assert late.unread() == [message]
    assert late.unread() == []
    assert late.too_old_for(2) == []
    taken = late.take("m")
    assert taken is not None
    assert (taken.hospital, taken.round) == ("elm", 1)
    assert not late.waits_for("elm")
    late.keep({"n": "elm"}, 2)
    assert late.too_old_for(4) == ["n"]
    assert late.take("n") is None


@pytest.mark.parametrize(
    "strategy", ["scaffold", "cyclic", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"]
)
def test_strategies_that_can_use_no_late_update_say_why(strategy: str) -> None:
    with pytest.raises(load.ConfigError, match=rf"federation.late_rounds=1: {strategy} .*federation.late_rounds=0"):
        load.load([f"strategy={strategy}", "federation.late_rounds=1"])


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedprox", "norm_bounding", "ditto"])
def test_mean_type_strategies_take_late_updates(strategy: str) -> None:
    assert load.load([f"strategy={strategy}", "federation.late_rounds=3"]).federation.late_rounds == 3


def test_who_answers_two_orders_in_one_round_has_spent_the_larger_of_both() -> None:
    first, second = HospitalRound(2.0, bytes_down=1, bytes_up=10, update_norm=0.5), HospitalRound(3.0, bytes_up=20)
    assert with_late(None, first) == first
    assert with_late(first, second) == HospitalRound(3.0, bytes_down=1, bytes_up=30, update_norm=0.5)
    without = HospitalRound(None, bytes_down=2, bytes_up=5, update_norm=0.1)
    assert with_late(without, first).epsilon == with_late(first, without).epsilon == 2.0
    assert with_late(without, without) == HospitalRound(None, bytes_down=4, bytes_up=10, update_norm=0.1)
