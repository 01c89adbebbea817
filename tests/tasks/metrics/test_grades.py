"""Figures of ordered grades from a table against the raw numbers, and what noise does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from tasks.metrics.grades import GradeTable, pooled, told_grades


def test_patients_are_counted_by_their_grade_and_the_told_one() -> None:
    assert told_grades([0, 2, 1, 1], [0, 1, 1, math.nan], 3).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_grades_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        told_grades([3], [0], 3)


def drawn(seed: int, patients: int = 300) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Told grades and readers', of five."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 5, patients)
    return np.clip(true + rng.integers(-1, 2, patients), 0, 4).astype(np.float64), true.astype(np.float64)


def test_exact_figures_are_those_of_the_raw_grades() -> None:
    told, true = drawn(0)
    table = GradeTable(told_grades(told, true, 5))
    kappa, error, accuracy = table.kappa(), table.mean_error(), table.accuracy()
    assert kappa is not None
    assert error is not None
    assert accuracy is not None
    assert kappa.value == pytest.approx(cohen_kappa_score(true, told, weights="quadratic"))
    assert error.value == pytest.approx(np.abs(told - true).mean())
    assert accuracy.value == pytest.approx((told == true).mean())
    assert all(each.low < each.value < each.high for each in (kappa, error, accuracy))
    assert table.sizes == [float((true == grade).sum()) for grade in range(5)]


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_the_interval_of_kappa_holds_it_about_as_often_as_it_says(noise: float) -> None:
    many, inside = drawn(1, 200_000), 0
    truth = cohen_kappa_score(many[1], many[0], weights="quadratic")
    for seed in range(150):
        counts = told_grades(*drawn(seed, 150), 5)
        counts = counts + np.random.default_rng(seed).normal(0, noise, counts.shape)
        kappa = GradeTable(counts, noise).kappa()
        assert kappa is not None
        inside += kappa.low <= truth <= kappa.high
    assert 0.9 <= inside / 150 <= 1


def test_pooling_adds_patients_and_noises() -> None:
    both = pooled([GradeTable(np.eye(3), 3.0), GradeTable(np.eye(3), 4.0)])
    assert both.noise == pytest.approx(5.0)
    assert both.sizes == [2, 2, 2]


def test_one_grade_only_has_no_kappa_and_nobody_no_figure() -> None:
    assert GradeTable(np.diag([9.0, 0, 0])).kappa() is None
    nobody = GradeTable(np.zeros((3, 3)))
    assert (nobody.kappa(), nobody.mean_error(), nobody.accuracy()) == (None, None, None)


def test_noise_that_hides_everybody_leaves_no_point() -> None:
    hidden = GradeTable(np.eye(3) + np.random.default_rng(0).normal(0, 40, (3, 3)), 40.0)
    for figure in (hidden.kappa(), hidden.mean_error(), hidden.accuracy()):
        assert figure is not None
        assert not figure.firm


@pytest.mark.parametrize("told", [np.diag([7.0, 8.0, 5.0]), np.outer([7.0, 8.0, 5.0], [0, 1, 0])])
def test_twenty_patients_all_told_rightly_or_all_the_same_leave_doubt(told: NDArray[np.float64]) -> None:
    """Nothing varies there, so drawing the same patients anew would give the same kappa: 1, or 0."""
    kappa = GradeTable(told).kappa()
    assert kappa is not None
    assert kappa.high - kappa.low > 0.05
