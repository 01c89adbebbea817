"""AUC from histograms against scikit-learn, and intervals against the truth they claim to hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from tasks.metrics import roc_auc, roc_auc_interval, score_histogram

BINS = 64
Histogram = NDArray[np.float64]

cells = st.lists(st.tuples(st.integers(0, BINS - 1), st.integers(0, 1)), min_size=2, max_size=60)
noised = hnp.arrays(np.float64, (2, 12), elements=st.floats(-20, 200))
counts = hnp.arrays(np.float64, (2, 12), elements=st.integers(0, 50).map(float))


@given(cells)
def test_auc_is_scikit_learns_when_the_bins_are_fine_enough(patients: list[tuple[int, int]]) -> None:
    """Scores in the middle of their bins: then binning loses nothing, and ties are ties."""
    scores = np.array([(cell + 0.5) / BINS for cell, _ in patients])
    labels = np.array([label for _, label in patients])
    assume(0 < labels.sum() < len(labels))
    auc = roc_auc(score_histogram(scores, labels, BINS))
    assert auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_binning_of_scores_costs_at_most_half_of_the_pairs_that_share_a_bin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.r_[np.zeros(50, int), np.ones(30, int)]
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.15), 0, 1)
    histogram = score_histogram(scores, labels, 16)
    binned = roc_auc(histogram)
    assert binned is not None
    shared = (histogram[0] * histogram[1]).sum() / (50 * 30)
    assert abs(binned - roc_auc_score(labels, scores)) <= shared / 2 + 1e-12


def test_auc_by_hand() -> None:
    # positives in bins 1 and 2, negatives in bins 0 and 1: of 4 pairs 3 are won and 1 is tied
    assert roc_auc(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])) == 3.5 / 4


def test_everybody_in_one_bin_is_a_coin_toss() -> None:
    histogram = np.zeros((2, 8))
    histogram[:, 3] = (7, 5)
    assert roc_auc(histogram) == 0.5


@given(noised)
def test_cells_below_zero_count_as_zero(histogram: Histogram) -> None:
    assert roc_auc(histogram) == roc_auc(np.clip(histogram, 0, None))


@given(noised)
@example(np.array([[0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 0.6, 64.0]]))  # its sums round to just above one
def test_a_noised_histogram_gives_a_number_in_range_or_none(histogram: Histogram) -> None:
    auc, interval = roc_auc(histogram), roc_auc_interval(histogram)
    assert (auc is None) == (interval is None)
    assert (auc is None) == bool((np.clip(histogram, 0, None).sum(axis=1) < 1).any())
    if auc is not None and interval is not None:
        assert interval.value == auc
        assert 0 <= interval.low <= auc + 1e-15
        assert auc - 1e-15 <= interval.high <= 1


@given(counts)
def test_turning_the_classes_round_turns_the_auc_round(histogram: Histogram) -> None:
    auc, turned = roc_auc(histogram), roc_auc(histogram[::-1])
    assert (auc is None) == (turned is None)
    if auc is not None and turned is not None:
        assert auc + turned == pytest.approx(1, abs=1e-12)


@given(counts, st.floats(1, 1e6))
def test_more_of_the_same_patients_keep_the_auc_and_narrow_the_interval(histogram: Histogram, factor: float) -> None:
    auc, more = roc_auc_interval(histogram), roc_auc_interval(histogram * factor)
    assume(auc is not None)
    assert auc is not None
    assert more is not None
    assert more.value == pytest.approx(auc.value, abs=1e-9)
    assert more.high - more.low <= auc.high - auc.low + 1e-9


@pytest.mark.parametrize("missing", [0, 1])
def test_one_class_has_no_auc(missing: int) -> None:
    histogram = np.ones((2, 5))
    histogram[missing] = 0
    assert roc_auc(histogram) is None
    assert roc_auc_interval(histogram) is None
    histogram[missing, 0] = 0.4  # noise in place of patients
    assert roc_auc(histogram) is None


def test_nobody_has_no_auc() -> None:
    assert roc_auc(np.zeros((2, 5))) is None
    assert roc_auc(-np.ones((2, 5))) is None


@pytest.mark.parametrize(("negatives", "positives"), [(1, 1), (5, 5), (40, 3), (500, 500)])
@pytest.mark.parametrize("right", [True, False])
def test_a_perfect_separation_is_inside_its_own_interval(negatives: int, positives: int, right: bool) -> None:
    histogram = np.zeros((2, 10))
    histogram[0, 0 if right else 9] = negatives
    histogram[1, 9 if right else 0] = positives
    interval = roc_auc_interval(histogram)
    assert interval is not None
    assert interval.value == (1.0 if right else 0.0)
    assert interval.low <= interval.value <= interval.high
    assert interval.high - interval.low > 0.5 / (negatives + positives)


@pytest.mark.parametrize(
    ("auc", "negatives", "positives"), [(0.6, 60, 25), (0.75, 15, 15), (0.75, 200, 100), (0.9, 60, 25), (0.97, 100, 50)]
)
def test_the_interval_holds_the_true_auc_about_as_often_as_it_says(auc: float, negatives: int, positives: int) -> None:
    """Two normal distributions of known AUC, 500 hospitals drawn from them.

    Hanley and McNeil's standard error errs towards width where separation is good; it must not err towards narrowness.
    500 draws at 95 % scatter by 1 % (one standard deviation).
    """
    rng = np.random.default_rng(20240501)
    labels = np.r_[np.zeros(negatives, int), np.ones(positives, int)]
    distance = norm.ppf(auc) * math.sqrt(2)
    inside = 0
    for _ in range(500):
        scores = norm.cdf((rng.normal(size=len(labels)) + distance * labels) / 3)
        interval = roc_auc_interval(score_histogram(scores, labels, 1024))
        assert interval is not None
        inside += interval.low <= auc <= interval.high
    assert 0.93 <= inside / 500 <= 0.998


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
