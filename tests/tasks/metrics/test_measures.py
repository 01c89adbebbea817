"""Figures of measured quantities from histograms against the raw numbers, and what noise does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.metrics.measures import (
    MeasureHistograms,
    coarsened,
    difference_limits,
    measure_cells,
    pooled,
    told_measures,
)

NAN = math.nan
within_range = st.floats(20, 80)


def test_a_patient_is_in_one_cell_of_each_histogram() -> None:
    counts = told_measures([20, 80, 50, NAN], [20, 90, 47, 33], 20, 80, 8)
    assert counts.sum(axis=1).tolist() == [3, 3, 3]
    assert np.flatnonzero(counts[0]).tolist() == [0, 4, 7]
    assert np.flatnonzero(counts[1]).tolist() == [0, 3, 7]  # 90 counts as 80, the end of the range
    assert np.flatnonzero(counts[2]).tolist() == [3, 4]  # -3 of 60 is below 0; the other two are 0


@given(st.lists(st.tuples(within_range, st.floats(-1e6, 1e6)), min_size=1, max_size=20), st.sampled_from([8, 128]))
def test_one_patient_more_changes_one_cell_of_each_by_one(pairs: list[tuple[float, float]], cells: int) -> None:
    values, told = (list(each) for each in zip(*pairs, strict=True))
    more = told_measures(values, told, 20, 80, cells) - told_measures(values[:-1], told[:-1], 20, 80, cells)
    assert (more >= 0).all()
    assert more.sum(axis=1).tolist() == [1, 1, 1]


@given(st.lists(st.tuples(within_range, within_range), max_size=20))
def test_counted_again_in_fewer_cells_they_are_as_counted_there_at_first(pairs: list[tuple[float, float]]) -> None:
    values, told = ([each[n] for each in pairs] for n in (0, 1))
    again = coarsened(told_measures(values, told, 20, 80, 128), 8)
    assert np.abs(again - told_measures(values, told, 20, 80, 8)).sum() <= 2e-9 * len(pairs)


def test_bins_of_differences_are_symmetric_and_those_of_many_cells_contain_those_of_few() -> None:
    few, many = difference_limits(8), difference_limits(128)
    assert np.allclose(few, -few[::-1])
    assert np.allclose(many[::16], few)
    assert (np.diff(many) > 0).all()
    assert (measure_cells(16), measure_cells(1024)) == (8, 128)


def test_values_beyond_the_range_and_what_is_no_number_are_refused() -> None:
    with pytest.raises(ValueError, match="declared range, 20 to 80"):
        told_measures([81], [50], 20, 80, 8)
    with pytest.raises(ValueError, match="must be a number"):
        told_measures([50], [NAN], 20, 80, 8)


def drawn(seed: int, patients: int = 400) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Told values and readers', from 20 to 80."""
    rng = np.random.default_rng(seed)
    true = 20 + 60 * rng.beta(2, 2, patients)
    return np.clip(26 + 0.85 * (true - 20) + rng.normal(0, 4, patients), 20, 80), true


def histograms(seed: int, patients: int = 400, noise: float = 0.0, cells: int = 128) -> MeasureHistograms:
    told, true = drawn(seed, patients)
    counts = told_measures(true, told, 20, 80, cells)
    return MeasureHistograms(counts + np.random.default_rng(seed).normal(0, noise, counts.shape), noise)


def test_exact_figures_are_those_of_the_raw_values() -> None:
    told, true = drawn(0)
    apart, figures = (told - true) / 60, histograms(0)
    limits = figures.limits_of_agreement()
    assert limits is not None
    r2, slope = 1 - (apart**2).mean() / (true / 60).var(), np.polyfit(told, true, 1)[0]
    for found, raw in (
        (figures.bias(), apart.mean()), (figures.mean_error(), np.abs(apart).mean()), (figures.spread(), apart.std()),
        (limits[0], apart.mean() - 1.96 * apart.std()), (limits[1], apart.mean() + 1.96 * apart.std()),
    ):  # fmt: skip
        assert found is not None
        assert found.value == pytest.approx(raw, abs=1e-3)
        assert found.low < raw < found.high
    for found, raw in ((figures.r_squared(), r2), (figures.slope(), slope)):
        assert found is not None
        assert found.value == pytest.approx(raw, abs=0.01)
        assert found.low < raw < found.high


def test_bins_that_hide_where_differences_lie_widen_the_limits() -> None:
    fine, coarse = histograms(0, cells=128).spread(), histograms(0, cells=8).spread()
    assert fine is not None
    assert coarse is not None
    assert coarse.low < fine.value < coarse.high
    assert coarse.high - coarse.low > fine.high - fine.low
    assert coarse.hidden > 0


def test_noise_leaves_figures_unbiased_and_in_their_intervals() -> None:
    truth = [h.value for h in (histograms(1, 100_000).bias(), histograms(1, 100_000).spread()) if h is not None]
    inside, points = [0, 0], []
    for seed in range(100):
        of = histograms(seed, 300, 3.0, 8)
        for n, found in enumerate((of.bias(), of.spread())):
            assert found is not None
            inside[n] += found.low <= truth[n] <= found.high
            points += [found.value - truth[0]] if n == 0 else []
    assert min(inside) >= 88
    assert abs(np.mean(points)) < 0.004


@pytest.mark.parametrize("cells", [8, 128])
def test_a_model_that_tells_the_readers_mean_of_everybody_explains_nothing(cells: int) -> None:
    """How its own values vary is not seen in bins: then there is no slope with a point."""
    true = drawn(0)[1]
    told = true.mean() + np.random.default_rng(1).normal(0, 0.05, 400)
    figures = MeasureHistograms(told_measures(true, told, 20, 80, cells))
    r2, slope = figures.r_squared(), figures.slope()
    assert r2 is not None
    assert r2.value == pytest.approx(0, abs=0.08)
    assert slope is None or (not slope.firm and (slope.low, slope.high) == (-1, 3))


def test_nobody_has_no_figure_and_noise_that_hides_everybody_leaves_no_point() -> None:
    nobody = MeasureHistograms(np.zeros((3, 8)))
    assert [nobody.bias(), nobody.mean_error(), nobody.spread(), nobody.r_squared(), nobody.slope()] == [None] * 5
    assert nobody.limits_of_agreement() is None
    hidden = histograms(0, 20, 40.0, 8)
    for figure in (hidden.bias(), hidden.mean_error(), hidden.spread(), hidden.r_squared(), hidden.slope()):
        assert figure is not None
        assert not figure.firm


def test_pooling_adds_patients_and_noises() -> None:
    both = pooled([histograms(0, 50, 3.0, 8), histograms(1, 50, 4.0, 8)])
    assert both.noise == pytest.approx(5.0)
    assert pooled([histograms(0, 50), histograms(1, 60)]).patients == pytest.approx(110)
