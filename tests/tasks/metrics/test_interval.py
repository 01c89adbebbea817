"""Intervals of ratios against Wilson's, with noise against simulation; sums and differences of intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tasks.metrics.interval import Interval, difference, mean, ratio, repeated

FIRST, ALL = np.array([1.0, 0.0]), np.array([1.0, 1.0])


@given(st.integers(1, 500), st.integers(0, 500))
def test_without_noise_a_proportion_has_wilsons_interval(total: int, part: int) -> None:
    part = min(part, total)
    found = ratio(np.array([part, total - part], float), FIRST, ALL, 0.0, proportion=True)
    wilson = binomtest(part, total).proportion_ci(method="wilson")
    assert found is not None
    assert found.value == part / total
    assert found.low == pytest.approx(wilson.low, abs=0.0006)
    assert found.high == pytest.approx(wilson.high, abs=0.0006)


@pytest.mark.parametrize(("truth", "patients", "noise"), [(0.5, 40, 3.0), (0.9, 100, 5.0), (0.98, 60, 2.0)])
def test_with_noise_it_holds_the_truth_as_often_as_it_says(truth: float, patients: int, noise: float) -> None:
    rng = np.random.default_rng(3)
    inside = told = 0
    for _ in range(800):
        part = rng.binomial(patients, truth)
        cells = np.array([part, patients - part]) + rng.normal(0, noise, 2)
        found = ratio(cells, FIRST, ALL, noise, proportion=True)
        if found is not None:
            told += 1
            inside += found.low <= truth <= found.high
    assert told > 780
    assert 0.92 <= inside / told <= 0.995


def test_what_noise_hides_has_an_interval_and_no_point() -> None:
    hidden = ratio(np.array([2.0, 2.0]), FIRST, ALL, 5.0, proportion=True)
    assert hidden is not None
    assert not hidden.firm
    assert (hidden.low, hidden.high) == (0, 1)
    assert ratio(np.array([0.0, 0.0]), FIRST, ALL, 0.0, proportion=True) is None


@given(st.lists(st.floats(-30, 200), min_size=4, max_size=4), st.sampled_from([0.0, 0.5, 3.0, 20.0]), st.booleans())
def test_the_closed_form_keeps_what_is_not_rejected(cells: list[float], noise: float, proportion: bool) -> None:
    """Against every candidate of a fine grid, with the variance written out."""
    counts = np.array(cells) if noise else np.maximum(cells, 0)
    part, whole = np.array([0.0, 1.0, 1.0, 0.0]) if proportion else np.array([0.0, 0.2, 0.7, 1.0]), np.ones(4)
    found = ratio(counts, part, whole, noise, proportion=proportion)
    if found is None:
        assert noise == 0
        return
    assert 0 <= found.low <= found.value <= found.high <= 1
    if proportion:
        top, bottom, grid = (counts * part).sum(), counts.sum(), np.linspace(0, 1, 4001)
        apart = np.array([((part - x) ** 2).sum() for x in grid])
        variance = max(bottom, 0.0) * grid * (1 - grid) + noise**2 * apart
        kept = grid[(top - grid * bottom) ** 2 <= 1.959963984540054**2 * variance]
        if len(kept):
            assert found.low <= kept[0] + 1e-6
            assert found.high >= kept[-1] - 1e-6
            assert found.low >= min(kept[0] - 0.0003, found.value)
            assert found.high <= max(kept[-1] + 0.0003, found.value)


def test_a_small_mean_has_a_narrow_interval_and_not_a_point() -> None:
    """Of 400 distances of 0.3 % of the diagonal; half a thousandth was the finest candidate once."""
    rng = np.random.default_rng(2)
    values = rng.gamma(2, 0.0015, 400)
    found = ratio(np.ones(400), values, np.ones(400), 0.0)
    assert found is not None
    normal = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - normal, abs=0.1 * normal)
    assert found.high == pytest.approx(values.mean() + normal, abs=0.1 * normal)


def test_a_mean_of_hospitals_is_narrower_than_each() -> None:
    found = mean([Interval(0.8, 0.7, 0.9), Interval(0.6, 0.5, 0.7)])
    assert found is not None
    assert found.value == pytest.approx(0.7)
    assert found.high - found.value == pytest.approx(0.1 * 2**0.5 / 2)
    assert mean([]) is None


def test_a_difference_is_wider_than_each() -> None:
    found = difference(Interval(0.9, 0.8, 0.95), Interval(0.7, 0.6, 0.8))
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2 - 0.1 * 2**0.5)
    assert found.high == pytest.approx(0.2 + (0.05**2 + 0.1**2) ** 0.5)


def test_the_mean_of_models_that_scatter_holds_their_scatter_and_the_drawing_of_patients() -> None:
    one = Interval(0.4, 0.3, 0.55)
    assert repeated([]) is None
    assert repeated([one]) == Interval(0.4, pytest.approx(0.3), pytest.approx(0.55))
    alike = repeated([one] * 5)
    assert alike == Interval(pytest.approx(0.4), pytest.approx(0.3), pytest.approx(0.55))
    astray = [Interval(value, value - 0.1, value + 0.1) for value in (0.3, 0.5, 0.7)]
    found = repeated(astray)
    assert found is not None
    # Student's t of two degrees of freedom: 4.303 * 0.2 / sqrt(3)
    assert found.value == pytest.approx(0.5)
    assert found.high == pytest.approx(min(0.5 + np.hypot(4.303 * 0.2 / np.sqrt(3), 0.1), 1), abs=1e-3)
    assert found.low == pytest.approx(max(0.5 - np.hypot(4.303 * 0.2 / np.sqrt(3), 0.1), 0), abs=1e-3)


def test_the_mean_of_repetitions_holds_the_truth_at_least_as_often_as_it_says() -> None:
    rng = np.random.default_rng(9)
    inside = 0
    for _ in range(400):
        shared, values = rng.normal(0, 0.05), 0.5 + rng.normal(0, 0.1, 5)
        found = repeated([Interval(v + shared, v + shared - 0.098, v + shared + 0.098) for v in values])
        assert found is not None
        inside += found.low <= 0.5 <= found.high
    assert 0.93 <= inside / 400 <= 0.995
