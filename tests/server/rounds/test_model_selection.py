"""Which model is handed over, and when a study has seen enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from server.rounds.model_selection import averaged, best_round, fallen, has_ended, with_the_best
from server.rounds.state import HospitalRound, RoundRecord, StudyState
from tests.server import scripted


def rounds(*aucs: float | None) -> list[RoundRecord]:
    return [RoundRecord(n, 0.0, 0.0, {"ash": HospitalRound(auc=auc)}) for n, auc in enumerate(aucs, start=1)]


@pytest.mark.parametrize(
    ("aucs", "least_gain", "best"),
    [
        ((), 0.0, 0),
        ((None, None), 0.0, 0),
        ((0.6, 0.7, 0.7), 0.0, 2),
        ((0.6, 0.7, 0.705, 0.72), 0.02, 4),
        ((0.6, 0.7, 0.705, 0.715), 0.02, 2),
        ((0.6, None, 0.5, 0.61), 0.0, 4),
    ],
)
def test_the_best_round_is_the_last_that_gained_enough(
    aucs: tuple[float | None, ...], least_gain: float, best: int
) -> None:
    assert best_round(rounds(*aucs), least_gain) == best


def curve(error: float, *aucs: float) -> list[RoundRecord]:
    """Rounds of two hospitals whose AUCs have intervals of this standard error."""
    reach = 1.96 * error
    each = [HospitalRound(auc=auc, auc_low=auc - reach, auc_high=auc + reach) for auc in aucs]
    return [RoundRecord(n, 0.0, 0.0, {"ash": one, "elm": one}) for n, one in enumerate(each, start=1)]


@pytest.mark.parametrize(
    ("error", "aucs", "told"),
    [
        (0.09, (0.65, 0.69, 0.78, 0.88, 0.78, 0.63, 0.52), (4, 7)),
        (0.09, (0.65, 0.69, 0.78, 0.84, 0.78, 0.73, 0.74), None),
        (0.02, (0.70, 0.80, 0.85), None),
        (0.02, (0.80, 0.70), (1, 2)),
        (0.02, (0.80,), None),
        (0.02, (), None),
    ],
)
def test_a_fall_is_told_where_chance_does_not_explain_it(
    error: float, aucs: tuple[float, ...], told: tuple[int, int] | None
) -> None:
    found = fallen(curve(error, *aucs))
    assert (None if found is None else (found[0].number, found[1].number)) == told


@pytest.mark.parametrize(
    ("aucs", "delivered"),
    [((0.7, 0.9, 0.6), 2), ((0.7, 0.9, 0.88), 3), ((0.9, 0.6, 0.91), 3), ((0.7, 0.8, 0.9), 3), ((0.9, 0.7, 0.71), 1)],
)
def test_the_best_round_is_delivered_where_the_last_is_worse_than_chance_explains(
    aucs: tuple[float, ...], delivered: int
) -> None:
    study = scripted.study("federation.rounds=3", "evaluation.deliver=better")
    state, records = StudyState({}), curve(0.03, *aucs)
    for number in range(1, 4):
        weights = {"w": np.full(1, number, np.float32)}
        state = with_the_best(study, replace(state, weights=weights, rounds=records[:number]))
    assert state.model["w"][0] == delivered
    assert state.outcome.number == delivered


def test_the_best_of_many_equal_rounds_is_no_fall() -> None:
    """Ten rounds that differ by chance alone; at the limit for a single pair 20 % of studies would be told of."""
    rng = np.random.default_rng(4)
    told = sum(fallen(curve(0.05, *rng.normal(0.75, 0.05 / np.sqrt(2), 10))) is not None for _ in range(400))
    assert told <= 33, "at most 5 %, three standard deviations allowed"


@pytest.mark.parametrize(
    ("aucs", "patience", "ended"),
    [
        ((0.6, 0.5), 0, False),
        ((0.6, 0.5, 0.5), 3, False),
        ((0.6, 0.5, None, 0.5, 0.5), 3, True),
        ((0.6, 0.5, 0.5, 0.7), 3, False),
        ((None, None, None), 2, False),
        ((0.6,) * 20, 0, True),
    ],
)
def test_patience_counts_evaluations_without_a_gain(aucs: tuple[float | None, ...], patience: int, ended: bool) -> None:
    study = scripted.study("federation.rounds=20", f"evaluation.patience={patience}")
    assert has_ended(study, rounds(*aucs)) is ended


def test_the_average_by_hand() -> None:
    one, two = {"w": np.array([1.0], np.float32)}, {"w": np.array([3.0], np.float32)}
    first = averaged({}, one, 0.75)
    assert first["w"].tolist() == [1.0]
    second = averaged(first, two, 0.75)
    assert second["w"].tolist() == [1.5]
    assert second["w"].dtype == np.float32
    assert averaged(second, one, 0.0) == {}


def test_the_state_hands_over_what_was_asked_for() -> None:
    weights, average, best = ({"w": np.full(1, value)} for value in (1.0, 2.0, 3.0))
    played = rounds(0.5, 0.7, 0.6)
    assert StudyState(weights, played).model is weights
    assert StudyState(weights, played, average=average).model is average
    chosen = StudyState(weights, played, average=average, best=best, chosen=2)
    assert chosen.model is best
    assert chosen.outcome.mean_auc() == 0.7
    assert StudyState(weights, played).outcome.mean_auc() == 0.6
