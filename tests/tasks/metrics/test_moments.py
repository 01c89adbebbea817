"""Ratios of products of sums: against numpy, unbiased under noise, and never surer than the noise permits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.metrics.moments import Moments, product

VALUES = np.linspace(0, 1, 7)
ROWS = np.stack([np.ones(7), VALUES, VALUES**2])
VARIANCE = product(3, (1, 0, 2), (-1, 1, 1))
SQUARE = product(3, (1, 0, 0))


@given(st.lists(st.integers(0, 30), min_size=7, max_size=7).filter(lambda cells: sum(cells) >= 2))
def test_exact_ratios_are_those_of_the_raw_numbers(cells: list[int]) -> None:
    raw = np.repeat(VALUES, cells)
    found = Moments(np.array(cells, np.float64), ROWS).ratio(VARIANCE, SQUARE)
    assert found is not None
    assert found.value == pytest.approx(raw.var(), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_products_of_noised_sums_are_unbiased() -> None:
    """Noise adds to both factors alike: the square of eight patients reads 120 in 7 cells with noise 4."""
    cells, rng = np.array([0, 1, 2, 2, 2, 1, 0.0]), np.random.default_rng(2)
    noised = [Moments(cells + rng.normal(0, 4, 7), ROWS, 4.0) for _ in range(4000)]
    for form in (VARIANCE, SQUARE):
        seen, exact = np.array([each.unbiased(form) for each in noised]), Moments(cells, ROWS).unbiased(form)
        assert seen.mean() == pytest.approx(exact, abs=4 * seen.std() / 63)
    naive = np.array([each.patients**2 for each in noised])
    assert naive.mean() == pytest.approx(64 + 16 * 7, rel=0.1)


def test_noise_that_hides_everybody_leaves_no_point_and_tells_nothing() -> None:
    cells = np.array([0, 1, 2, 3, 2, 1, 0.0]) + np.random.default_rng(0).normal(0, 30, 7)
    found = Moments(cells, ROWS, 30.0).ratio(VARIANCE, SQUARE)
    assert found is not None
    assert not found.firm
    assert found.high - found.low > 0.9


def test_few_patients_who_agree_by_chance_are_not_beyond_doubt() -> None:
    cells = np.array([0, 0, 0, 3, 1, 0, 0.0])
    plain, normal = (Moments(cells, ROWS).ratio(VARIANCE, SQUARE, normal=k) for k in (0.0, 2.0))
    assert plain is not None
    assert normal is not None
    assert normal.high >= plain.high


def test_nobody_and_nothing_to_divide_by_have_no_figure() -> None:
    assert Moments(np.eye(7)[3], ROWS).ratio(VARIANCE, SQUARE) is None
    assert Moments(9 * np.eye(7)[3], ROWS).ratio(SQUARE, VARIANCE) is None
