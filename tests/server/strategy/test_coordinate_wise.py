"""Median and trimmed mean of every weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from server.strategy.coordinate_wise import median, trimmed_mean

VALUES = st.floats(-1e3, 1e3)
ANYTHING = st.floats(-1e30, 1e30)
ROUNDS = st.integers(1, 4).flatmap(  # so many attackers among 2 f + 1
    lambda f: st.tuples(
        hnp.arrays(np.float64, (f + 1, 3), elements=VALUES), hnp.arrays(np.float64, (f, 3), elements=ANYTHING)
    )
)


def updates(rows: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{"w": row} for row in rows]


def test_rounds_by_hand() -> None:
    rows = np.array([[1.0, 0.0], [2.0, 0.0], [100.0, -5.0], [3.0, 7.0]])
    assert median(updates(rows))["w"].tolist() == [2.5, 0.0]
    assert trimmed_mean(updates(rows), 0.25)["w"].tolist() == [2.5, 0.0]
    assert trimmed_mean(updates(rows[:3]), 0.34)["w"].tolist() == [2.0, 0.0]


@settings(max_examples=150, deadline=None)
@given(ROUNDS)
def test_a_minority_cannot_push_a_weight_beyond_the_honest_ones(rows: tuple[np.ndarray, np.ndarray]) -> None:
    honest, attackers = rows
    together = updates(np.concatenate([honest, attackers]))
    trim = (len(attackers) + 0.5) / len(together)
    for result in (median(together)["w"], trimmed_mean(together, trim)["w"]):
        assert (honest.min(axis=0) <= result).all()
        assert (result <= honest.max(axis=0)).all()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float64, (7, 3), elements=VALUES),
    st.permutations(range(7)),
    hnp.arrays(np.float64, 3, elements=VALUES),
)
def test_names_do_not_matter_and_a_shift_of_all_shifts_the_result(
    rows: np.ndarray, order: list[int], shift: np.ndarray
) -> None:
    for rule in (median, lambda u: trimmed_mean(u, 0.3)):
        np.testing.assert_allclose(rule(updates(rows[order] + shift))["w"], rule(updates(rows))["w"] + shift, atol=1e-9)


@pytest.mark.parametrize("trim", [0.1, 0.2, 0.29, 0.45])
def test_the_trimmed_mean_is_that_of_scipy(trim: float) -> None:
    rows = np.random.default_rng(1).normal(size=(20, 6))
    np.testing.assert_allclose(trimmed_mean(updates(rows), trim)["w"], stats.trim_mean(rows, trim, axis=0), rtol=1e-12)


def test_29_percent_of_100_are_29() -> None:
    """0.29 * 100 is 28.999999999999996."""
    rows = np.concatenate([np.full(29, 1e9), np.zeros(71)])[:, None]
    assert trimmed_mean(updates(rows), 0.29)["w"].tolist() == [0.0]
