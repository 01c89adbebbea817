"""A histogram counts every patient once, and refuses what is no score."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.metrics.histogram import ScoreHistogram, prevalence, score_histogram


def test_a_histogram_counts_every_patient_once() -> None:
    histogram = score_histogram([0.0, 0.0999, 0.1, 0.5, 1.0], [0, 1, 1, 0, 1], 10)
    expected = np.zeros((2, 10))
    expected[0, 0] = expected[1, 0] = expected[1, 1] = expected[0, 5] = expected[1, 9] = 1
    np.testing.assert_array_equal(histogram, expected)
    assert histogram.dtype == np.float64


def test_no_patients_give_an_empty_histogram() -> None:
    np.testing.assert_array_equal(score_histogram([], [], 3), np.zeros((2, 3)))


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_score_that_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        score_histogram([0.5, score], [0, 1], 4)


@pytest.mark.parametrize("labels", [[0, 2], [0, -1], [0, 0.5], [0], [0, 1, 1], [0, float("nan")]])
def test_a_label_that_is_no_class_is_refused(labels: list[float]) -> None:
    with pytest.raises(ValueError, match="one label, 0 or 1"):
        score_histogram([0.2, 0.7], labels, 4)


def test_sizes_are_unbiased_and_their_noise_is_that_of_a_sum() -> None:
    rng = np.random.default_rng(0)
    exact = np.zeros((2, 16))
    exact[1, 3] = 30
    sizes = [ScoreHistogram(exact + rng.normal(0, 2, exact.shape), 2.0).size(1) for _ in range(2000)]
    assert np.mean(sizes) == pytest.approx(30, abs=1)
    assert np.std(sizes) == pytest.approx(ScoreHistogram(exact, 2.0).size_noise, rel=0.06)


def test_prevalence_is_the_fraction_of_positives() -> None:
    found = prevalence(ScoreHistogram(np.array([[30.0, 30.0], [20.0, 20.0]])))
    assert found is not None
    assert found.value == 0.4
    assert 0.3 < found.low < 0.4 < found.high < 0.5
    assert prevalence(ScoreHistogram(np.zeros((2, 2)))) is None
