"""Thresholds and what they do, against counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve as scikit_roc

from tasks.metrics.histogram import ScoreHistogram, score_histogram
from tasks.metrics.operating import at_threshold, for_specificity, for_youden, roc_curve
from tests.tasks.metrics.hospitals import at_centres, binormal, noised

BINS = 20


@given(st.integers(0, 2**32 - 1), st.integers(0, BINS))
def test_a_threshold_gives_what_counting_gives(seed: int, edge: int) -> None:
    scores, labels = binormal(np.random.default_rng(seed), 0.8, (30, 20))
    point = at_threshold(ScoreHistogram(score_histogram(scores, labels, BINS)), edge / BINS)
    assert point.sensitivity is not None
    assert point.specificity is not None
    assert point.threshold == edge / BINS
    assert point.sensitivity.value == pytest.approx((scores[labels == 1] >= edge / BINS).mean())
    assert point.specificity.value == pytest.approx((scores[labels == 0] < edge / BINS).mean())
    assert point.sensitivity.low <= point.sensitivity.value <= point.sensitivity.high


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.99))
def test_the_chosen_thresholds_are_scikit_learns(seed: int, wanted: float) -> None:
    scores, labels = at_centres(binormal(np.random.default_rng(seed), 0.8, (60, 40)), BINS)
    histogram = ScoreHistogram(score_histogram(scores, labels, BINS))
    false_alarms, found, _ = scikit_roc(labels, scores, drop_intermediate=False)
    point = at_threshold(histogram, for_specificity(histogram, wanted))
    assert point.sensitivity is not None
    assert point.sensitivity.value == pytest.approx(found[1 - false_alarms >= wanted - 1e-12].max())
    youden = at_threshold(histogram, for_youden(histogram))
    assert youden.sensitivity is not None
    assert youden.specificity is not None
    assert youden.sensitivity.value + youden.specificity.value - 1 == pytest.approx((found - false_alarms).max())


def test_with_noise_the_curve_still_rises_from_corner_to_corner() -> None:
    rng = np.random.default_rng(1)
    histogram = noised(rng, binormal(rng, 0.8, (60, 40)), 16, 3.0)
    sensitivity, specificity = roc_curve(histogram)
    assert (sensitivity[0], specificity[0]) == (1, 0)
    assert (sensitivity[-1], specificity[-1]) == (0, 1)
    assert (np.diff(sensitivity) <= 1e-12).all()
    assert (np.diff(specificity) >= -1e-12).all()


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_with_noise_the_interval_of_sensitivity_holds_the_truth(noise: float) -> None:
    rng = np.random.default_rng(2)
    truth = float((binormal(rng, 0.85, (10, 200_000))[0][10:] >= 0.5).mean())
    inside = told = 0
    for _ in range(400):
        point = at_threshold(noised(rng, binormal(rng, 0.85, (100, 80)), 16, noise), 0.5)
        if point.sensitivity is not None:
            told += 1
            inside += point.sensitivity.low <= truth <= point.sensitivity.high
    assert told > 390
    assert 0.92 <= inside / told <= 0.995


def test_a_class_of_nobody_has_no_sensitivity() -> None:
    cells = np.zeros((2, 4))
    cells[0] = 5
    point = at_threshold(ScoreHistogram(cells), 0.5)
    assert point.sensitivity is None
    assert point.specificity is not None
    assert point.specificity.value == 0.5


def test_where_noise_has_left_nobody_of_a_class_only_the_highest_threshold_spares_everybody() -> None:
    cells = np.stack([np.full(16, -2.0), np.full(16, 3.0)])
    assert for_specificity(ScoreHistogram(cells, 2.7), 0.9) == 1.0
    assert [rate[-1] for rate in roc_curve(ScoreHistogram(cells, 2.7))] == [0.0, 1.0]
