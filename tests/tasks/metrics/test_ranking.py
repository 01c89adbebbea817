"""AUC and average precision against scikit-learn, and intervals against the truth they claim to hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from tasks.metrics.histogram import (
    ScoreHistogram,
    pooled,
    range_edges,
    range_histogram,
    range_quantiles,
    score_histogram,
)
from tasks.metrics.ranking import average_precision, hospital_alone, roc_auc, unbinned
from tests.tasks.metrics.hospitals import Scores, at_centres, binormal, noised, raw_auc

BINS = 64
Histogram = NDArray[np.float64]

patients = st.lists(st.tuples(st.integers(0, BINS - 1), st.integers(0, 1)), min_size=2, max_size=60)
anything = hnp.arrays(np.float64, (2, 12), elements=st.floats(-20, 200))
counts = hnp.arrays(np.float64, (2, 12), elements=st.integers(0, 50).map(float))


def of(scores: Scores, bins: int) -> ScoreHistogram:
    return ScoreHistogram(score_histogram(*scores, bins))


def value(histogram: ScoreHistogram) -> float:
    found = roc_auc(histogram)
    assert found is not None
    return found.value


@given(patients)
def test_both_are_scikit_learns_when_the_bins_are_fine_enough(cells: list[tuple[int, int]]) -> None:
    """Scores in the middle of their bins: then binning loses nothing, and ties are ties."""
    scores = np.array([(cell + 0.5) / BINS for cell, _ in cells])
    labels = np.array([label for _, label in cells])
    assume(0 < labels.sum() < len(labels))
    histogram = of((scores, labels), BINS)
    assert value(histogram) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert raw_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    precision = average_precision(histogram, draws=2)
    assert precision is not None
    assert precision.value == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_binning_of_scores_costs_at_most_half_of_the_pairs_that_share_a_bin(seed: int) -> None:
    scores, labels = binormal(np.random.default_rng(seed), 0.8, (50, 30))
    histogram = of((scores, labels), 16)
    shared = (histogram.cells[0] * histogram.cells[1]).sum() / (50 * 30)
    assert abs(value(histogram) - roc_auc_score(labels, scores)) <= shared / 2 + 1e-12


def test_auc_by_hand() -> None:
    # positives in bins 1 and 2, negatives in bins 0 and 1: of 4 pairs 3 are won and 1 is tied
    assert value(ScoreHistogram(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))) == 3.5 / 4


def test_average_precision_by_hand() -> None:
    # from the top: a positive (precision 1), then one of each (2 of 3), each half of the recall
    found = average_precision(ScoreHistogram(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])))
    assert found is not None
    assert found.value == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found.low < found.value < found.high


def test_everybody_in_one_bin_is_a_coin_toss() -> None:
    histogram = np.zeros((2, 8))
    histogram[:, 3] = (7, 5)
    assert value(ScoreHistogram(histogram)) == 0.5


@given(anything, st.sampled_from([0.0, 0.3, 2.0, 30.0]))
def test_any_noised_histogram_gives_an_interval_in_range_or_none(cells: Histogram, noise: float) -> None:
    histogram = ScoreHistogram(cells, noise)
    for found in (roc_auc(histogram), average_precision(histogram, draws=5)):
        assert (found is None) == (not histogram.has_both_classes())
        if found is not None:
            assert 0 <= found.low <= found.value <= found.high <= 1


@given(counts)
def test_turning_the_classes_round_turns_the_auc_round(cells: Histogram) -> None:
    auc, turned = roc_auc(ScoreHistogram(cells)), roc_auc(ScoreHistogram(cells[::-1]))
    assert (auc is None) == (turned is None)
    if auc is not None and turned is not None:
        assert auc.value + turned.value == pytest.approx(1, abs=1e-12)
        assert auc.low + turned.high == pytest.approx(1, abs=0.002)


@given(counts, st.integers(2, 1000))
def test_more_of_the_same_patients_keep_the_auc_and_narrow_the_interval(cells: Histogram, factor: int) -> None:
    auc, more = roc_auc(ScoreHistogram(cells)), roc_auc(ScoreHistogram(cells * factor))
    assume(auc is not None)
    assert auc is not None
    assert more is not None
    assert more.value == pytest.approx(auc.value, abs=1e-9)
    assert more.high - more.low <= auc.high - auc.low + 0.001


@given(counts)
def test_noise_widens_the_interval(cells: Histogram) -> None:
    exact, noisy = roc_auc(ScoreHistogram(cells)), roc_auc(ScoreHistogram(cells, 1.0))
    if exact is not None and noisy is not None:
        # DeLong's part is a little smaller once the noise is taken off it
        assert noisy.high - noisy.low >= (exact.high - exact.low) - 0.02


@pytest.mark.parametrize("missing", [0, 1])
def test_one_class_has_no_auc(missing: int) -> None:
    cells = np.ones((2, 5))
    cells[missing] = 0
    assert roc_auc(ScoreHistogram(cells)) is None
    assert average_precision(ScoreHistogram(cells)) is None
    cells[missing, 0] = 7  # under so much noise, seven may be nobody: there is an interval, and no point
    found = roc_auc(ScoreHistogram(cells, 2.0))
    assert found is not None
    assert not found.firm
    assert found.high - found.low > 0.5


@pytest.mark.parametrize(("negatives", "positives"), [(1, 1), (5, 5), (40, 3), (500, 500)])
@pytest.mark.parametrize("right", [True, False])
def test_a_perfect_separation_is_inside_its_own_interval(negatives: int, positives: int, right: bool) -> None:
    cells = np.zeros((2, 10))
    cells[0, 0 if right else 9] = negatives
    cells[1, 9 if right else 0] = positives
    interval = roc_auc(ScoreHistogram(cells))
    assert interval is not None
    assert interval.value == (1.0 if right else 0.0)
    assert interval.high - interval.low > 0.5 / (negatives + positives)


@pytest.mark.parametrize(
    ("auc", "sizes", "spread", "bins", "noise"),
    [
        (0.6, (60, 25), 1.0, 1024, 0.0),
        (0.75, (15, 15), 1.0, 1024, 0.0),
        (0.9, (60, 25), 1.0, 1024, 0.0),
        (0.97, (100, 50), 1.0, 1024, 0.0),
        (0.8, (200, 20), 2.5, 1024, 0.0),  # where Newcombe's variance alone covers 85 %
        (0.8, (20, 200), 0.4, 1024, 0.0),
        (0.75, (60, 40), 1.0, 16, 2.0),
        (0.75, (200, 100), 1.0, 16, 2.0),
        (0.9, (60, 40), 1.0, 16, 2.0),
        (0.9, (200, 100), 1.0, 16, 4.0),
        (0.8, (400, 100), 2.5, 16, 3.0),
    ],
)
def test_the_interval_holds_the_true_auc_about_as_often_as_it_says(
    auc: float, sizes: tuple[int, int], spread: float, bins: int, noise: float
) -> None:
    """300 hospitals of known AUC, with privacy noise or without; 95 % of 300 scatters by 1.3 % (one sd)."""
    rng = np.random.default_rng(20240501)
    inside = bias = told = 0.0
    for _ in range(300):
        scores = binormal(rng, auc, sizes, spread)
        interval = roc_auc(noised(rng, scores, bins, noise))
        if interval is not None:
            told += 1
            inside += interval.low <= auc <= interval.high
            bias += interval.value - raw_auc(*scores)
    assert told >= 290
    assert 0.915 <= inside / told <= 0.998
    assert abs(bias / told) <= (0.02 if noise else 0.0015)


@pytest.mark.parametrize(("sizes", "noise"), [((60, 40), 0.0), ((200, 100), 1.0), ((200, 100), 3.0)])
def test_average_precision_is_told_without_the_bias_of_noise(sizes: tuple[int, int], noise: float) -> None:
    """The truth is the mean of scikit-learn's figure over the same hospitals without noise."""
    rng = np.random.default_rng(5)
    told, exact = [], []
    for _ in range(150):
        scores = at_centres(binormal(rng, 0.85, sizes), 16)
        found = average_precision(noised(rng, scores, 16, noise), draws=100)
        assert found is not None
        told.append((found.value, found.low, found.high))
        exact.append(average_precision_score(scores[1], scores[0]))
    value, low, high = np.array(told).T
    truth = np.mean(exact)
    assert abs(value.mean() - truth) <= 0.03  # -0.028 is left in the last case
    assert 0.88 <= np.mean((low <= truth) & (truth <= high)) <= 1.0


def test_pooling_adds_patients_and_noise() -> None:
    both = pooled([ScoreHistogram(np.ones((2, 4)), 3.0), ScoreHistogram(2 * np.ones((2, 4)), 4.0)])
    np.testing.assert_array_equal(both.cells, 3 * np.ones((2, 4)))
    assert both.noise == 5.0


def hospital(negatives: int, positives: int, noise: float = 0.0) -> ScoreHistogram:
    cells = np.zeros((2, 8))
    cells[:, 3] = negatives, positives
    return ScoreHistogram(cells, noise)


def test_the_hospital_alone_is_the_auc_of_its_prevalence() -> None:
    """Scikit-learn nearly agrees, given each patient the fraction of positives at the hospital."""
    hospitals = [(80, 20), (50, 50), (10, 90)]
    labels = np.concatenate([np.r_[np.zeros(n), np.ones(p)] for n, p in hospitals])
    scores = np.concatenate([np.full(n + p, p / (n + p)) for n, p in hospitals])
    found = hospital_alone([hospital(*counts) for counts in hospitals])
    assert found is not None
    assert found.auc == pytest.approx(roc_auc_score(labels, scores), abs=0.01)
    assert found.p < 1e-6


def test_the_hospital_alone_tells_nothing_where_hospitals_are_alike_or_unknown() -> None:
    alike = hospital_alone([hospital(50, 50), hospital(100, 100)])
    assert alike is not None
    assert alike.auc == pytest.approx(0.5, abs=0.01)
    assert alike.p > 0.9
    assert hospital_alone([hospital(50, 50)]) is None
    hidden = hospital_alone([hospital(5, 5, noise=9.0), hospital(5, 5, noise=9.0)])
    assert hidden is not None
    assert hidden.p > 0.9


@pytest.mark.parametrize(("count", "patients", "share", "noise"), [(5, 20, 0.3, 0.0), (10, 40, 0.1, 2.0)])
def test_equal_hospitals_seldom_seem_to_predict_the_label(
    count: int, patients: int, share: float, noise: float
) -> None:
    """The AUC of hospitals in the order of their own prevalences is above 0.6 in 37 and 83 % of these cases."""
    rng, alarms = np.random.default_rng(3), 0
    for _ in range(100):
        positives = rng.binomial(patients, share, count)
        cells = [np.pad([[patients - p], [p]], ((0, 0), (0, 7))) + rng.normal(0, noise, (2, 8)) for p in positives]
        found = hospital_alone([ScoreHistogram(each, noise) for each in cells])
        assert found is not None
        alarms += found.p < 0.05 and found.auc >= 0.6
    assert alarms <= 12


@pytest.mark.parametrize(("squeeze", "edges"), [(0.1, False), (0.25, False), (0.1, True)])
def test_squeezed_scores_keep_their_auc_inside_the_interval(squeeze: float, edges: bool) -> None:
    """Ten in a hundred positive, true AUC 0.80, logits times 0.1 or 0.25 in 16 bins: equally wide ones read 0.53 and
    0.70. Quantiles of an earlier look lose next to nothing, and hide next to nothing."""
    rng, inside, bias, hidden = np.random.default_rng(5), 0, 0.0, 0.0
    for _ in range(80):
        labels = (np.arange(400) < 40).astype(np.int64)
        logits = norm.ppf(0.8) * np.sqrt(2) * (rng.standard_normal(400) + 1.19 * labels) - 2.9
        scores = 1 / (1 + np.exp(-squeeze * logits))
        between = np.array(range_quantiles(range_histogram(scores, 32), 16)) if edges else None
        found = roc_auc(ScoreHistogram(score_histogram(scores, labels, 16, between), 0.0, between))
        assert found is not None
        inside += found.low <= 0.8 <= found.high
        bias, hidden = bias + found.value - 0.8, hidden + found.hidden
    assert inside >= 72
    if edges:
        assert abs(bias / 80) < 0.015
        assert hidden / 80 < 0.01


def test_what_bins_hide_is_found_again() -> None:
    """Against a large sample of two normal distributions: counted in three bins and in a thousand."""
    scores = binormal(np.random.default_rng(2), 0.85, (200_000, 100_000))
    coarse = of(scores, 3)
    assert value(coarse) < 0.83
    assert unbinned(coarse, value(coarse)) == pytest.approx(0.85, abs=0.01)
    pair = ScoreHistogram(np.array([[19.0, 1.0], [0.0, 1.0]]))
    assert unbinned(pair, value(pair)) <= value(pair) + 1 / 40, "one pair of twenty is tied"
    fine = of(scores, 1000)
    assert unbinned(fine, value(fine)) == value(fine), "nothing to add"


@given(counts, st.floats(0.01, 0.99))
def test_a_finer_auc_is_farther_from_a_coin_toss(cells: Histogram, auc: float) -> None:
    finer = unbinned(ScoreHistogram(cells), auc)
    assert 0 <= finer <= 1
    assert (finer - auc) * (auc - 0.5) >= -1e-3


def test_public_edges_are_the_same_for_everybody_and_finest_in_the_middle() -> None:
    edges = range_edges(32)
    assert edges.shape == (31,)
    assert np.all(np.diff(edges) > 0)
    np.testing.assert_allclose(edges + edges[::-1], 1)
    assert np.diff(edges)[15] < 0.03
