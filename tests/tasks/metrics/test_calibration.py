"""Brier score and calibration against scikit-learn and against a truth that was drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from tasks.metrics.calibration import brier, expected_calibration_error, reliability
from tasks.metrics.histogram import ScoreHistogram, score_histogram
from tests.tasks.metrics.hospitals import at_centres, calibrated, noised

BINS = 1000


@given(st.integers(0, 2**32 - 1))
def test_without_noise_all_are_scikit_learns(seed: int) -> None:
    scores, labels = at_centres(calibrated(np.random.default_rng(seed), 120, 2.0), BINS)
    histogram = ScoreHistogram(score_histogram(scores, labels, BINS))
    squared, calibration = brier(histogram), expected_calibration_error(histogram)
    assert squared is not None
    assert squared.value == pytest.approx(brier_score_loss(labels, scores))
    observed, predicted = calibration_curve(labels, scores, n_bins=10)
    groups = reliability(histogram)
    np.testing.assert_allclose([g.observed.value for g in groups], observed)
    np.testing.assert_allclose([g.predicted for g in groups], predicted)
    weights = np.array([g.patients for g in groups]) / 120
    assert calibration is not None
    assert calibration.value == pytest.approx((weights * np.abs(observed - predicted)).sum())


@pytest.mark.parametrize(("patients", "noise"), [(150, 0.0), (300, 2.0), (300, 4.0)])
def test_brier_holds_the_truth_as_often_as_it_says(patients: int, noise: float) -> None:
    rng = np.random.default_rng(4)
    truth = float(brier_score_loss(*at_centres(calibrated(rng, 300_000, 2.0), 16)[::-1]))
    told = [brier(noised(rng, calibrated(rng, patients, 2.0), 16, noise)) for _ in range(300)]
    values = np.array([(b.value, b.low, b.high) for b in told if b is not None])
    assert len(values) > 290
    assert abs(values[:, 0].mean() - truth) < 0.006
    assert 0.92 <= ((values[:, 1] <= truth) & (truth <= values[:, 2])).mean() <= 0.995


@pytest.mark.parametrize(("patients", "noise", "shift"), [(400, 0.0, 0.8), (400, 2.0, 0.8), (400, 2.0, 0.0)])
def test_the_calibration_error_holds_the_truth_and_noise_does_not_raise_it(
    patients: int, noise: float, shift: float
) -> None:
    rng = np.random.default_rng(6)
    many = noised(rng, calibrated(rng, 400_000, 2.0, shift), 20, 0.0)
    truth = expected_calibration_error(many)
    assert truth is not None
    told, exact = [], []
    for _ in range(200):
        scores = calibrated(rng, patients, 2.0, shift)
        found = expected_calibration_error(noised(rng, scores, 20, noise))
        plain = expected_calibration_error(noised(rng, scores, 20, 0.0))
        assert found is not None
        assert plain is not None
        told.append((found.value, found.low, found.high))
        exact.append(plain.value)
    value, low, high = np.array(told).T
    assert abs(value.mean() - np.mean(exact)) < 0.015
    assert ((low <= truth.value) & (truth.value <= high)).mean() >= 0.94


def test_groups_that_noise_hides_are_left_out() -> None:
    cells = np.zeros((2, 20))
    cells[:, 10] = 40, 50
    groups = reliability(ScoreHistogram(cells, 3.0))
    assert [round(g.predicted, 3) for g in groups] == [0.525]
    assert expected_calibration_error(ScoreHistogram(np.ones((2, 20)) / 4, 3.0)) is None
    assert brier(ScoreHistogram(np.zeros((2, 20)))) is None
