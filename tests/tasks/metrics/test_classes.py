"""Figures of classes from counts against the raw numbers, and what noise does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score

from tasks.metrics.classes import ClassTables, mean_of_dependent, pooled, rest_histograms, told_classes
from tasks.metrics.interval import Interval, mean

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


def drawn(seed: int, patients: int = 300) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities of three classes, and the class."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, patients)
    weights = rng.exponential(1, (patients, 3)) + 1.5 * np.eye(3)[true]
    return weights / weights.sum(axis=1, keepdims=True), true.astype(np.float64)


def tables(seed: int, patients: int = 300, noise: float = 0.0, bins: int = 1024) -> ClassTables:
    chances, true = drawn(seed, patients)
    rng = np.random.default_rng(seed)
    told, rest = told_classes(chances, true), rest_histograms(chances, true, bins)
    return ClassTables(told + rng.normal(0, noise, told.shape), rest + rng.normal(0, noise, rest.shape), noise)


def test_exact_figures_are_those_of_the_raw_probabilities() -> None:
    chances, true = drawn(0)
    figures, told = tables(0), chances.argmax(axis=1)
    macro, accuracy, balanced = figures.macro_auc(), figures.accuracy(), figures.balanced_accuracy()
    assert macro is not None
    assert accuracy is not None
    assert balanced is not None
    assert macro.value == pytest.approx(roc_auc_score(true, chances, multi_class="ovr"), abs=2e-3)
    assert accuracy.value == pytest.approx((told == true).mean())
    assert balanced.value == pytest.approx(balanced_accuracy_score(true, told))
    matrix = confusion_matrix(true, told, normalize="true")
    assert np.allclose([[each.value for each in row if each] for row in figures.shares()], matrix)
    assert [each.value for each in figures.sensitivities() if each] == pytest.approx(np.diag(matrix).tolist())


def test_a_class_without_a_patient_has_no_figure_and_no_mean_is_made_without_it() -> None:
    chances, true = drawn(1)
    two = chances[true < 2], true[true < 2]
    figures = ClassTables(told_classes(*two), rest_histograms(*two, 64))
    assert figures.aucs()[2] is None
    assert figures.sensitivities()[2] is None
    assert figures.macro_auc() is None
    assert figures.balanced_accuracy() is None
    assert figures.accuracy() is not None


def test_a_mean_of_figures_of_the_same_patients_is_less_sure_than_of_others() -> None:
    each = [Interval(0.8, 0.7, 0.88)] * 3
    dependent, apart = mean_of_dependent(each), mean(each)
    assert dependent is not None
    assert apart is not None
    assert apart.low > dependent.low > 0.7
    assert apart.high < dependent.high < 0.88


def test_noise_that_hides_everybody_leaves_no_point() -> None:
    hidden = tables(0, 20, 40.0, 16)
    for figure in (hidden.accuracy(), hidden.macro_auc(), hidden.balanced_accuracy()):
        assert figure is not None
        assert not figure.firm


def test_pooling_adds_patients_and_noises() -> None:
    both = pooled([tables(0, 50, 3.0), tables(1, 50, 4.0)])
    assert both.noise == pytest.approx(5.0)
    assert sum(pooled([tables(0, 50), tables(1, 60)]).sizes) == 110
