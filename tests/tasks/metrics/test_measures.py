"""Figures of measured quantities from histograms against the raw numbers, and what noise does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.metrics.measures import coarsened, difference_limits, measure_cells, told_measures

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
