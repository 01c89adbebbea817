"""How well scores put positive patients above negative ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, expit, logit, ndtr, ndtri

from tasks.metrics.cells import without_negatives
from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.interval import CANDIDATES, Interval, Z, not_rejected
from tasks.metrics.resampling import SEED, bootstrapped

_FEWEST = 2
_DRAWS = 200
_NEGLIGIBLE = 0.002
_FINE = 200
"""With more bins than this the top of a precision-recall curve loses nothing that matters."""
_APART = np.linspace(-4.8, 4.8, 49)
"""Distances between two normal distributions."""
_FINE_AUCS = ndtr(_APART / math.sqrt(2))
"""Their AUCs, from 0.0003 to 0.9997."""


def roc_auc(histogram: ScoreHistogram) -> Interval | None:
    """Area under the ROC curve: the probability that a positive patient scores above a negative one.

    The Mann-Whitney statistic with half weight for pairs in one bin. Both class sizes and the statistic are sums, and
    the noises of the two classes are independent, so all three are unbiased whatever the noise. The variance of drawing
    patients is the larger of Newcombe's (Stat Med 25:559, 2006, method 5), which holds for few patients and perfect
    separation, and DeLong's (Biometrics 44:837, 1988), which holds for scores of any shape. What pairs in one bin may
    hide is added to the limits, away from 0.5; see ``unbinned``.

    Returns:
        ``None`` where exact counts have a class without a patient. Where noise hides a class, an interval without a
        point.

    >>> from tasks.metrics.histogram import score_histogram
    >>> cells = score_histogram(scores=[0.1, 0.2, 0.6, 0.4, 0.7, 0.9], labels=[0, 0, 0, 1, 1, 1], bins=100)
    >>> auc = roc_auc(ScoreHistogram(cells))
    >>> f"{auc.value:.3f} ({auc.low:.2f} to {auc.high:.2f})"
    '0.889 (0.40 to 0.99)'
    >>> roc_auc(ScoreHistogram(cells, noise=5.0)).firm  # so much noise hides six patients
    False
    """
    if not histogram.has_both_classes():
        return None
    negative, positive = histogram.cells
    n, p = float(negative.sum()), float(positive.sum())
    won_by_negative = np.cumsum(positive[::-1])[::-1] - positive / 2  # positives above each bin
    won_by_positive = np.cumsum(negative) - negative / 2
    wins = float((positive * won_by_positive).sum())
    auc = min(max(wins / (n * p), 0.0), 1.0) if min(n, p, n * p) > 0 else 0.5
    drawing = _newcombe(max(n, 1.0), max(p, 1.0))
    near = int(np.abs(CANDIDATES - min(max(auc, 0.02), 0.98)).argmin())
    drawing = drawing * max(1.0, _delong(histogram, won_by_negative, won_by_positive, auc) / drawing[near])
    noise = _noise(histogram, won_by_negative, won_by_positive)
    found = not_rejected(auc, wins - CANDIDATES * n * p, drawing + noise, histogram.is_firm)
    in_bins = _in_bins(histogram)
    low = min(found.low, _without_bins(histogram, in_bins, found.low))
    high = max(found.high, _without_bins(histogram, in_bins, found.high))
    return replace(found, low=low, high=high, hidden=high - found.high)


def unbinned(histogram: ScoreHistogram, auc: float) -> float:
    """The AUC of scores that, counted in the histogram's bins, have this one.

    A binormal model is fitted to grouped data (Dorfman and Alf, J Math Psychol 6:487, 1969): two normal distributions
    of equal width, as far apart as the AUC in bins needs, cut where each bin's share of all patients ends. Exact counts
    say how many pairs share a bin: then it differs by no more than half of these, whatever the scores are.
    """
    return _without_bins(histogram, _in_bins(histogram), auc)


def _without_bins(histogram: ScoreHistogram, in_bins: NDArray[np.float64] | None, auc: float) -> float:
    if in_bins is None:
        return auc
    finer = float(np.interp(auc, in_bins, _FINE_AUCS))
    if auc >= in_bins[-1] or auc <= in_bins[0]:
        finer = 1.0 if auc > 0.5 else 0.0 if auc < 0.5 else auc
    most = _tied(histogram) / 2 if histogram.noise == 0 else 1.0
    return min(max(finer, auc - most), auc + most)


def _tied(histogram: ScoreHistogram) -> float:
    """Of all pairs of a positive and a negative patient, the share in one bin."""
    sizes, cells = np.maximum(histogram.cells.sum(axis=1), 1.0), without_negatives(histogram.cells)
    return float((cells[0] * cells[1]).sum() / (sizes[0] * sizes[1]))


def _in_bins(histogram: ScoreHistogram) -> NDArray[np.float64] | None:
    """AUC in the histogram's bins for each distance of ``_APART``; ``None`` where bins hide next to nothing."""
    if _tied(histogram) < _NEGLIGIBLE:
        return None
    sizes, cells = np.maximum(histogram.cells.sum(axis=1), 1.0), without_negatives(histogram.cells)
    share = min(max(float(sizes[1] / sizes.sum()), 0.02), 0.98)
    below = np.clip(np.cumsum(cells.sum(axis=0)) / max(float(cells.sum()), 1e-12), 0, 1)
    negative, positive = _normal_cells(below, share, _APART)
    won = (positive * (np.cumsum(negative, axis=1) - negative / 2)).sum(axis=1)
    return np.asarray(np.maximum.accumulate(won))


def _normal_cells(
    below: NDArray[np.float64], share: float, apart: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each class's share in each bin, for two normal distributions so far apart, of which the upper one holds this
    share of patients; shape (distances, bins).

    Args:
        below: share of all patients up to the upper end of each bin.
    """
    at = np.linspace(-10, 10, 801)
    mixed = (1 - share) * ndtr(at) + share * ndtr(at - apart[:, None])
    cuts = np.stack([np.interp(below, row, at) for row in mixed])
    cuts[:, below >= 1], cuts[:, below <= 0] = np.inf, -np.inf
    return tuple(np.diff(ndtr(each), axis=1, prepend=0.0) for each in (cuts, cuts - apart[:, None]))  # type: ignore[return-value]


def _newcombe(negatives: float, positives: float) -> NDArray[np.float64]:
    """Variance of the number of pairs won, for each candidate AUC."""
    a, pairs = CANDIDATES, negatives * positives
    more = max((negatives + positives) / 2 - 1, 0.0)
    return np.asarray(a * (1 - a) * (1 + more * ((1 - a) / (2 - a) + a / (1 + a))) * pairs)


def _delong(
    histogram: ScoreHistogram, by_negative: NDArray[np.float64], by_positive: NDArray[np.float64], auc: float
) -> float:
    """The same from how unequally single patients win, minus the contribution of the noise."""
    (negative, positive), ranks = histogram.cells, np.arange(histogram.bins)
    won, tied, lost = (1 - auc) ** 2, (0.5 - auc) ** 2, auc**2
    of_negative = histogram.noise**2 * (ranks[::-1] * won + tied + ranks * lost)
    of_positive = histogram.noise**2 * (ranks * won + tied + ranks[::-1] * lost)
    return float(
        (negative * ((by_negative - auc * positive.sum()) ** 2 - of_negative)).sum()
        + (positive * ((by_positive - auc * negative.sum()) ** 2 - of_positive)).sum()
    )


def _noise(
    histogram: ScoreHistogram, by_negative: NDArray[np.float64], by_positive: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Variance that the noise gives to (pairs won - candidate * pairs): a product of two noised vectors.

    For a + e and b + f with a matrix M between them it is s^2 (|Mb|^2 + |M'a|^2) + s^4 |M|^2. The noised vectors show
    the first two too long by s^2 |M|^2 each.
    """
    bins, a = histogram.bins, CANDIDATES
    n, p = histogram.size(0), histogram.size(1)
    lengths = sum(
        (won**2).sum() - 2 * a * other * won.sum() + a**2 * other**2 * bins
        for won, other in ((by_negative, p), (by_positive, n))
    )
    of_matrix = bins * (bins - 1) / 2 * ((1 - a) ** 2 + a**2) + bins * (0.5 - a) ** 2
    s2 = histogram.noise**2
    return np.asarray(np.maximum(s2 * lengths - s2**2 * of_matrix, s2**2 * of_matrix))


def average_precision(histogram: ScoreHistogram, draws: int = 400) -> Interval | None:
    """Area under the precision-recall curve as scikit-learn's ``average_precision_score`` sums it.

    The interval is symmetric on the logit scale, with the variance 1 / (positives * AP (1 - AP)) (Boyd, Eng and Page,
    ECML 2013), or that of drawing all patients anew, class sizes as well, where it is larger; half a positive patient
    keeps it open at 0 and 1. Average precision is no ratio of sums, so noise biases it: what noise does on average is
    measured by drawing again and taken off, and is in the interval besides. What bins hide is added to the upper limit,
    see ``unbinned``.

    Returns:
        ``None`` under the conditions of ``roc_auc``; everything from 0 to 1, without a point, where noise hides a
        class.
    """
    if not histogram.has_both_classes():
        return None
    if not histogram.is_firm:
        return Interval(0.5, 0.0, 1.0, firm=False)
    drawn = bootstrapped(histogram, _average_precision, draws)
    positives = histogram.size(1)
    at = (drawn.value * positives + 0.5) / (positives + 1)
    spread = Z * math.hypot(max(1 / math.sqrt(positives * at * (1 - at)), drawn.drawing), drawn.noise)
    low, high = (float(expit(logit(at) + side * (spread + abs(drawn.bias)))) for side in (-1, 1))
    hidden = _precision_hidden(histogram)
    top = min(max(high, drawn.value) + hidden, 1.0)
    return Interval(drawn.value, min(low, drawn.value), top, hidden=top - max(high, drawn.value))


def _precision_hidden(histogram: ScoreHistogram) -> float:
    """By how much average precision is smaller in these bins than in fine ones, for the binormal model of ``unbinned``
    that fits best; with noise, for any in the interval of the AUC."""
    auc = roc_auc(histogram)
    if auc is None or histogram.bins > _FINE:
        return 0.0
    fitting = np.array([unbinned(histogram, auc.value)]) if histogram.noise == 0 else np.linspace(auc.low, auc.high, 5)
    cells, sizes = without_negatives(histogram.cells), np.maximum(histogram.cells.sum(axis=1), 1.0)
    below = np.clip(np.cumsum(cells.sum(axis=0)) / max(float(cells.sum()), 1e-12), 0, 1)
    fine, share = np.union1d(below, np.linspace(0, 1, 401)[1:]), float(sizes[1] / sizes.sum())

    def precision(bins: NDArray[np.float64], distance: float) -> float:
        negative, positive = _normal_cells(bins, share, np.array([distance]))
        return float(_average_precision(np.concatenate([negative * (1 - share), positive * share])))

    apart = math.sqrt(2) * ndtri(np.clip(fitting, 0.001, 0.999))
    return max(0.0, *(precision(fine, d) - precision(below, d) for d in apart))


def _average_precision(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of histograms without negative cells, shape (..., 2, bins)."""
    reached = np.cumsum(cells[..., ::-1], axis=-1)
    flagged = reached.sum(axis=-2)
    precision = np.divide(reached[..., 1, :], flagged, out=np.zeros_like(flagged), where=flagged > 0)
    positives = reached[..., 1, -1:]
    recall = np.divide(cells[..., 1, ::-1], positives, out=np.zeros_like(flagged), where=positives > 0)
    return np.asarray((recall * precision).sum(axis=-1))


@dataclass(frozen=True)
class HospitalAlone:
    """How far the hospital by itself predicts the finding.

    Attributes:
        auc: pooled AUC of a model that looks at no image and gives each patient the hospital's prevalence, as it would
            be on other patients of these hospitals.
        p: probability of prevalences that differ as much, if all hospitals have the same.
    """

    auc: float
    p: float


def hospital_alone(histograms: Sequence[ScoreHistogram]) -> HospitalAlone | None:
    """Whether prevalences differ between hospitals, and what a model could gain by recognising the hospital.

    The test is Cochran's (Biometrics 10:417, 1954): squared distances from the common prevalence, in units of the
    variance of drawing patients and of noise, against chi squared. The AUC of hospitals ordered by their own
    prevalences is above 0.5 even where these are equal, since the order was made by the patients that are judged; what
    that adds is measured by drawing hospitals anew, and taken off (Efron, JASA 78:316, 1983).

    Returns:
        ``None`` with fewer than two hospitals that have a patient each.
    """
    sizes = np.array([[h.size(0), h.size(1)] for h in histograms]).reshape(-1, 2)
    noise = np.array([h.size_noise for h in histograms])
    known = (sizes.sum(axis=1) >= 1) | (noise > 0)
    sizes, noise = sizes[known], noise[known]
    if len(sizes) < _FEWEST or sizes.sum() < 1:
        return None
    common, between = _homogeneity(sizes, noise)
    p = float(chdtrc(len(sizes) - 1, between))
    people = np.maximum(sizes.sum(axis=1), 1.0)
    heterogeneity = max(0.0, 1 - (len(sizes) - 1) / max(between, 1e-9))  # I squared (Higgins, BMJ 327:557, 2003)
    own = np.clip(sizes[:, 1] / people, 0, 1)
    rates = common + heterogeneity * (own - common)  # shrunk towards the common one, as far as they differ by chance
    apparent = _ordered(own, people, own)
    optimism = _optimism(rates, people, noise)
    return HospitalAlone(min(max(apparent - optimism, 0.5), 1.0), p)


def _homogeneity(sizes: NDArray[np.float64], noise: NDArray[np.float64]) -> tuple[float, float]:
    """The common prevalence that fits best, and Cochran's Q. Every hospital's distance is its positives less those due,
    so noise enters by a known variance and nothing is divided by a noised size."""
    people = sizes.sum(axis=1)
    common = min(max(float(sizes[:, 1].sum() / people.sum()), 1e-4), 1 - 1e-4)
    for _ in range(5):
        variance = np.maximum(people, 1.0) * common * (1 - common) + noise**2 * ((1 - common) ** 2 + common**2)
        better = float((people * sizes[:, 1] / variance).sum() / (people**2 / variance).sum())
        common = min(max(better, 1e-4), 1 - 1e-4)
    variance = np.maximum(people, 1.0) * common * (1 - common) + noise**2 * ((1 - common) ** 2 + common**2)
    return common, float(((sizes[:, 1] - common * people) ** 2 / variance).sum())


def _ordered(by: NDArray[np.float64], people: NDArray[np.float64], rates: NDArray[np.float64]) -> float:
    """AUC of hospitals in this order, with these sizes and prevalences; equal ones tie."""
    _, place = np.unique(by, return_inverse=True)
    negative, positive = (np.bincount(place, weights=people * each) for each in (1 - rates, rates))
    pairs = negative.sum() * positive.sum()
    return float((positive * (np.cumsum(negative) - negative / 2)).sum() / pairs) if pairs > 0 else 0.5


def _optimism(rates: NDArray[np.float64], people: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    rng = np.random.default_rng(SEED)
    lost = []
    for _ in range(_DRAWS):
        positive = rng.binomial(np.round(people).astype(np.int64), rates) + rng.normal(0, 1, len(rates)) * noise
        size = np.maximum(np.round(people) + rng.normal(0, 1, len(rates)) * noise, 1.0)
        own = np.clip(positive / size, 0, 1)
        lost.append(_ordered(own, size, own) - _ordered(own, people, rates))
    return float(np.mean(lost))
