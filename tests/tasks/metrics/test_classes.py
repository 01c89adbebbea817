"""Figures of classes from counts against the raw numbers, and what noise does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.metrics.classes import rest_histograms, told_classes

NAN = math.nan


def test_patients_are_counted_by_their_class_and_the_most_probable_one() -> None:
    chances = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.1, 0.1, 0.8]]
    assert told_classes(chances, [0, 2, 1, NAN]).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    rest = rest_histograms(chances, [0, 2, 1, NAN], 10)
    assert rest.shape == (3, 2, 10)
    assert rest.sum(axis=(1, 2)).tolist() == [3, 3, 3]
    assert np.flatnonzero(rest[0, 1]).tolist() == [6]
    assert np.flatnonzero(rest[0, 0]).tolist() == [2, 4]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**20)), min_size=1, max_size=15))
def test_one_patient_more_changes_one_cell_of_each_by_one(patients: list[tuple[int, int]]) -> None:
    chances = np.stack([np.random.default_rng(seed).dirichlet(np.ones(4)) for _, seed in patients])
    classes = np.array([each for each, _ in patients], dtype=np.float64)
    more = told_classes(chances, classes) - told_classes(chances[:-1], classes[:-1])
    assert sorted(np.unique(more).tolist()) == [0.0, 1.0]
    assert more.sum() == 1
    each = rest_histograms(chances, classes, 8) - rest_histograms(chances[:-1], classes[:-1], 8)
    assert each.sum(axis=(1, 2)).tolist() == [1, 1, 1, 1]
    assert (each >= 0).all()


@pytest.mark.parametrize("indices", [[3.0], [-1.0], [0.5]])
def test_classes_that_are_none_are_refused(indices: list[float]) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        told_classes([[0.2, 0.3, 0.5]], indices)


def test_numbers_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="softmax"):
        told_classes([[2.0, -1.0]], [0])
