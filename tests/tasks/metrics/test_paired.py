"""The paired comparison against DeLong's and the bootstrap on raw scores, and its intervals against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from tasks.metrics.histogram import ScoreHistogram, are_edges, quantiles, score_histogram
from tasks.metrics.interval import difference
from tasks.metrics.paired import JointHistogram, auc_difference, joint_histogram
from tasks.metrics.ranking import roc_auc
from tests.tasks.metrics.hospitals import raw_auc

EVEN = np.tile(np.arange(1, 8) / 8, (2, 1))

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]


def two_models(
    rng: np.random.Generator,
    aucs: tuple[float, float],
    correlation: float,
    sizes: tuple[int, int],
    widths: tuple[float, float] = (1.0, 1.0),
) -> tuple[Scores, Labels]:
    """Scores of shape (2, patients) with these true AUCs; ``widths`` crowd or spread them without changing ranks."""
    labels = np.r_[np.zeros(sizes[0], np.int64), np.ones(sizes[1], np.int64)]
    normal = rng.normal(size=(2, len(labels)))
    normal[1] = correlation * normal[0] + np.sqrt(1 - correlation**2) * normal[1]
    distance = np.sqrt(2) * norm.ppf(aucs)
    return norm.cdf((normal + distance[:, None] * (labels - 0.5)) * np.array(widths)[:, None] / 3), labels


def delong(scores: Scores, labels: Labels) -> tuple[float, float]:
    """Difference of AUCs and its standard error from raw scores: DeLong et al. 1988, written out pair by pair."""
    positive, negative = scores[:, labels == 1], scores[:, labels == 0]
    wins = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (positive[:, :, None] == negative[:, None, :])
    gain = wins[0] - wins[1]
    by_positive, by_negative = gain.mean(axis=1), gain.mean(axis=0)
    variance = by_positive.var(ddof=1) / len(by_positive) + by_negative.var(ddof=1) / len(by_negative)
    return float(gain.mean()), float(np.sqrt(variance))


def released(rng: np.random.Generator, scores: Scores, labels: Labels, bins: int, noise: float) -> JointHistogram:
    """What leaves a hospital, with edges from histograms that left before."""
    of_each = [score_histogram(each, labels, 16 if noise else 1024) for each in scores]
    before = [ScoreHistogram(h + rng.normal(0, noise, h.shape) if noise else h, noise) for h in of_each]
    counts = joint_histogram(*scores, labels, np.stack([quantiles(h, bins) for h in before]))
    return JointHistogram(counts + rng.normal(0, noise, counts.shape) if noise else counts, noise)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 1)), min_size=4, max_size=60))
def test_it_is_scikit_learns_difference_and_delongs_width_where_bins_lose_nothing(
    patients: list[tuple[int, int, int]],
) -> None:
    first, second, labels = np.array(patients).T
    scores = (np.stack([first, second]) + 0.5) / 8
    joint = JointHistogram(joint_histogram(*scores, labels, EVEN))
    found = auc_difference(joint)
    if not 0 < labels.sum() < len(labels):
        assert found is None
        return
    assert found is not None
    expected = roc_auc_score(labels, scores[0]) - roc_auc_score(labels, scores[1])
    assert found.value == pytest.approx(expected, abs=1e-12)
    if min(labels.sum(), len(labels) - labels.sum()) >= 2:
        value, error = delong(scores, labels)
        n, p = len(labels) - labels.sum(), labels.sum()
        least = 0.25 * np.hypot(1 / n, 1 / p)
        low, high = (value + sign * 1.96 * max(error, least) for sign in (-1, 1))
        assert found.low == pytest.approx(max(low * (64 / 63 if low < 0 else 1), -1), abs=1e-3)
        assert found.high == pytest.approx(min(high * (64 / 63 if high > 0 else 1), 1), abs=1e-3)


def test_by_hand() -> None:
    # the first model puts the positive above both negatives, the second above one of them and level with the other
    joint = joint_histogram([0.1, 0.2, 0.9], [0.4, 0.1, 0.4], [0, 0, 1], np.array([[0.5], [0.3]]))
    np.testing.assert_array_equal(joint, [[[1, 1], [0, 0]], [[0, 0], [0, 1]]])
    found = auc_difference(JointHistogram(joint))
    assert found is not None
    assert found.value == 1 - 0.75


@given(hnp.arrays(np.float64, (2, 5, 5), elements=st.floats(-20, 200)), st.sampled_from([0.0, 0.3, 2.0, 30.0]))
def test_any_noised_histogram_gives_an_interval_in_range_or_none(cells: NDArray[np.float64], noise: float) -> None:
    joint = JointHistogram(cells, noise)
    found = auc_difference(joint)
    assert (found is None) == (not joint.has_both_classes())
    if found is not None:
        assert -1 <= found.low <= found.value <= found.high <= 1


@given(hnp.arrays(np.float64, (2, 5, 5), elements=st.integers(0, 50).map(float)), st.sampled_from([0.0, 1.0]))
def test_turning_the_models_round_turns_the_difference_round(cells: NDArray[np.float64], noise: float) -> None:
    one = auc_difference(JointHistogram(cells, noise))
    other = auc_difference(JointHistogram(cells.transpose(0, 2, 1), noise))
    if one is None or other is None:
        assert one is other
        return
    assert one.value == pytest.approx(-other.value, abs=1e-12)
    assert one.low == pytest.approx(-other.high, abs=1e-3)


@pytest.mark.parametrize("sizes", [(1, 1), (5, 5), (40, 10), (400, 400)])
def test_models_that_agree_on_all_patients_are_not_equal_beyond_doubt(sizes: tuple[int, int]) -> None:
    scores = np.linspace(0.1, 0.9, sum(sizes))
    joint = joint_histogram(scores, scores, np.repeat([0, 1], sizes), EVEN)
    found = auc_difference(JointHistogram(joint))
    assert found is not None
    assert found.value == 0
    assert found.low < -0.3 / min(sizes)
    assert found.high > 0.3 / min(sizes)


@pytest.mark.parametrize(
    ("aucs", "correlation", "sizes", "bins", "noise"),
    [
        ((0.8, 0.8), 0.9, (40, 25), 32, 0.0),
        ((0.85, 0.75), 0.6, (200, 100), 32, 0.0),
        ((0.75, 0.65), 0.3, (15, 15), 32, 0.0),
        ((0.97, 0.95), 0.5, (15, 15), 32, 0.0),  # where DeLong's own interval holds the truth in 89 %
        ((0.85, 0.8), 0.6, (500, 300), 4, 3.0),
        ((0.85, 0.8), 0.6, (200, 100), 4, 2.0),
        ((0.9, 0.75), 0.8, (2000, 1000), 4, 3.0),
    ],
)
def test_the_interval_holds_the_true_difference_about_as_often_as_it_says(
    aucs: tuple[float, float], correlation: float, sizes: tuple[int, int], bins: int, noise: float
) -> None:
    """200 hospitals of two models each; 95 % of 200 scatters by 1.5 % (one sd)."""
    rng = np.random.default_rng(20241125)
    truth, inside, bias = aucs[0] - aucs[1], 0, 0.0
    for _ in range(200):
        scores, labels = two_models(rng, aucs, correlation, sizes)
        found = auc_difference(released(rng, scores, labels, bins, noise))
        assert found is not None
        inside += found.low <= truth <= found.high
        bias += found.value - (raw_auc(scores[0], labels) - raw_auc(scores[1], labels))
    assert 0.915 <= inside / 200 <= 0.995
    assert abs(bias / 200) <= (0.02 if noise else 0.001)


def test_without_noise_it_is_as_narrow_as_the_bootstrap_of_raw_scores() -> None:
    """And a third narrower than the interval that knows nothing of the pairing."""
    rng = np.random.default_rng(7)
    scores, labels = two_models(rng, (0.85, 0.8), 0.6, (200, 100))
    found = auc_difference(released(rng, scores, labels, 32, 0.0))
    drawn = []
    for _ in range(500):
        chosen = np.r_[rng.integers(0, 200, 200), rng.integers(200, 300, 100)]
        drawn.append(delong(scores[:, chosen], labels[chosen])[0])
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found is not None
    assert found.high - found.low == pytest.approx(high - low, rel=0.12)
    one, other = (roc_auc(ScoreHistogram(score_histogram(each, labels, 1024))) for each in scores)
    assert one is not None
    assert other is not None
    apart = difference(one, other)
    assert found.high - found.low < 0.72 * (apart.high - apart.low)


@pytest.mark.parametrize("widths", [(0.1, 1.0), (1.0, 8.0), (0.1, 8.0)])
def test_crowded_and_saturated_scores_are_compared_as_fairly_as_others(widths: tuple[float, float]) -> None:
    """With four bins of equal width instead, the second pair of models would differ by 0.04 more than it does."""
    rng = np.random.default_rng(3)
    scores, labels = two_models(rng, (0.85, 0.8), 0.6, (2000, 2000), widths)
    found = auc_difference(released(rng, scores, labels, 4, 0.0))
    assert found is not None
    assert abs(found.value - delong(scores, labels)[0]) < 0.01


def test_sixteen_bins_under_noise_are_nothing_but_noise() -> None:
    """Why a noised joint histogram has four bins a model."""
    rng = np.random.default_rng(4)
    widths = []
    for bins in (4, 16):
        scores, labels = two_models(rng, (0.85, 0.8), 0.6, (500, 500))
        found = auc_difference(released(rng, scores, labels, bins, 3.0))
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[1] > 2.5 * widths[0]


@given(hnp.arrays(np.float64, (2, 12), elements=st.floats(-20, 200)), st.integers(1, 64))
def test_quantiles_are_edges_whatever_the_histogram(cells: NDArray[np.float64], bins: int) -> None:
    edges = quantiles(ScoreHistogram(cells, 1.0), bins)
    assert edges.shape == (bins - 1,)
    assert are_edges(edges[None])


def test_bins_between_quantiles_hold_about_equally_many() -> None:
    rng = np.random.default_rng(1)
    scores, labels = two_models(rng, (0.8, 0.8), 0.5, (500, 300), (0.2, 4.0))
    edges = np.stack([quantiles(ScoreHistogram(score_histogram(each, labels, 1024)), 8) for each in scores])
    joint = joint_histogram(*scores, labels, edges)
    for axis in (1, 2):
        held = joint.sum(axis=(0, 3 - axis))
        assert abs(held - 100).max() <= 15


@pytest.mark.parametrize(
    ("first", "labels", "edges"),
    [
        ([0.1, 1.1], [0, 1], EVEN),
        ([0.1, np.nan], [0, 1], EVEN),
        ([0.1, 0.2], [0, 2], EVEN),
        ([0.1, 0.2], [0], EVEN),
        ([0.1, 0.2], [0, 1], EVEN[:, ::-1]),
        ([0.1, 0.2], [0, 1], EVEN * 2),
        ([0.1, 0.2], [0, 1], EVEN * np.nan),
        ([0.1, 0.2], [0, 1], EVEN[:1]),
    ],
)
def test_what_cannot_be_counted_is_refused(first: list[float], labels: list[int], edges: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="must be"):
        joint_histogram(first, [0.5, 0.5], labels, edges)
