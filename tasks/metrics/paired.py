"""Two models on the same patients: by how much the AUC of one is above that of the other.

A hospital that has both models counts each patient once, in the cell of its class and of its two scores' bins. Such a
joint histogram tells how alike the models judge, so the interval of the difference is that of a paired comparison; from
two histograms apart it must allow for patients that are not the same, and is wider.

The bins hold about equally many patients each: their edges are quantiles of scores that were released before, so they
tell nothing new, and a model whose scores lie close together loses no more by them than one whose scores lie apart. K
such bins take 1/K^2 of the difference away where the ROC curves are parabolas, and less where they are steeper
(measured with K = 4: 0.4 to 8 %). Noise falls on all K^2 cells of a class, also on those where nobody can be, and its
variance grows as K^2/6; so noised histograms want few bins, exact ones many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.histogram import are_edges
from tasks.metrics.interval import FIRM, Interval, Z

_DIFFERENCES = np.linspace(-1, 1, 4001)
_LEAST_MOVE = 0.25
"""The variance is at least that of one patient a class whom the models place this far apart, as a fraction of the other
class. Without it, models that agree on all of few patients would be equal beyond doubt."""


@dataclass(frozen=True)
class JointHistogram:
    """What is known about two models' scores of some patients.

    Attributes:
        cells: float64 of shape (2, bins, bins): class, bin of the first model's score, bin of the second's.
        noise: standard deviation of the independent Gaussian noise on every cell; 0 for exact counts.
    """

    cells: NDArray[np.float64]
    noise: float = 0.0

    @property
    def bins(self) -> int:
        return int(self.cells.shape[1])

    def size(self, label: int) -> float:
        """Estimated number of patients of a class; unbiased, so noise can make it negative."""
        return float(self.cells[label].sum())

    def has_both_classes(self) -> bool:
        """Whether each class has a patient, as far as can be known: noise may hide it, but does not show it absent."""
        return self.noise > 0 or min(self.size(0), self.size(1)) >= 1

    @property
    def is_firm(self) -> bool:
        """Whether both classes stand out of the noise so far that points may be shown; see ``interval.FIRM``."""
        return min(self.size(0), self.size(1)) >= max(1.0, FIRM * self.noise * self.bins)


def joint_histogram(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Count patients by class and both scores.

    Args:
        first, second: floats of shape (patients,) in [0, 1], of the same patients in the same order.
        labels: 0 or 1 for each patient.
        edges: shape (2, bins - 1), for each model; a score on an edge belongs to the bin above it.

    Returns:
        float64 of shape (2, bins, bins).

    Raises:
        ValueError: a score lies outside [0, 1] or is not a number, a label is neither 0 nor 1, or the edges decrease or
            lie outside [0, 1].
    """
    scores, classes = np.asarray([first, second], dtype=np.float64), np.asarray(labels)
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ValueError("scores must be numbers between 0 and 1; pass the output of the sigmoid")
    if classes.shape != scores.shape[1:] or not np.isin(classes, (0, 1)).all():
        raise ValueError(f"there must be one label, 0 or 1, for each of {scores.shape[1:]} scores")
    if edges.ndim != 2 or len(edges) != 2 or not are_edges(edges):
        raise ValueError("edges must be two rows of numbers between 0 and 1 that do not decrease")
    cells = [np.searchsorted(each, values, side="right") for each, values in zip(edges, scores, strict=True)]
    histogram = np.zeros((2, edges.shape[1] + 1, edges.shape[1] + 1))
    np.add.at(histogram, (classes.astype(np.int64), *cells), 1.0)
    return histogram


def auc_difference(joint: JointHistogram) -> Interval | None:
    """AUC of the first model minus that of the second, with the 95 % interval of a paired comparison.

    The difference is a ratio of sums, as in ``roc_auc``: over all pairs of a positive and a negative patient, what the
    first model wins less what the second wins. The variance of drawing patients is that of DeLong et al. (Biometrics
    44:837, 1988, for correlated curves), less what the noise adds to it; the noise's own is exact, and depends on the
    difference, so that the interval is Fieller's. What coarse bins may have taken away is added to the limits, away
    from zero.

    Returns:
        ``None`` where exact counts have a class without a patient. Where noise hides a class, an interval without a
        point.
    """
    if not joint.has_both_classes():
        return None
    n, p = joint.size(0), joint.size(1)
    by_negative, by_positive = _moves(joint)
    won = float((joint.cells[1] * by_positive).sum())
    value = min(max(won / (n * p), -1.0), 1.0) if min(n, p, n * p) > 0 else 0.0
    drawing = max(_delong(joint, by_negative, by_positive, value), _LEAST_MOVE**2 * (n**2 + p**2))
    variance = drawing + _noise(joint, by_negative, by_positive)
    kept = _DIFFERENCES[(won - _DIFFERENCES * n * p) ** 2 <= Z**2 * variance]
    if len(kept) == 0:  # all are improbable: then as far around the best as its own spread
        best = int(np.abs(won - _DIFFERENCES * n * p).argmin())
        reach = Z * math.sqrt(float(variance[best])) / max(abs(n * p), 1e-12)
        kept = np.clip([value - reach, value + reach], -1, 1)
    low, high = min(float(kept[0]), value), max(float(kept[-1]), value)
    taken = 1 / joint.bins**2 if joint.bins > 1 else 0.0
    low, high = max(min(low, low / (1 - taken)), -1.0), min(max(high, high / (1 - taken)), 1.0)
    return Interval(value, low, high, joint.is_firm)


def _moves(joint: JointHistogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For a negative and for a positive patient of each cell, shape (bins, bins): how many pairs with the other class
    the first model wins with it, less those that the second wins."""

    def wins(of_other: NDArray[np.float64], positive: bool) -> NDArray[np.float64]:
        """By bin of one model's score; ties count half."""
        below = np.cumsum(of_other) - of_other / 2
        return below if positive else of_other.sum() - below

    moves = []
    for label in (0, 1):
        other = joint.cells[1 - label]
        first, second = wins(other.sum(axis=1), label == 1), wins(other.sum(axis=0), label == 1)
        moves.append(first[:, None] - second[None, :])
    return moves[0], moves[1]


def _delong(
    joint: JointHistogram, by_negative: NDArray[np.float64], by_positive: NDArray[np.float64], value: float
) -> float:
    """Variance of the number of pairs won, from how unequally single patients move."""
    bins = joint.bins
    ranks = np.arange(bins)
    total = 0.0
    for label, move in enumerate((by_negative, by_positive)):
        own, others = joint.size(label), joint.size(1 - label)
        above = ranks if label else ranks[::-1]  # bins of the other class that a patient of each bin wins against
        linear, square = above + 0.5, above + 0.25
        of_noise = joint.noise**2 * (
            bins * (square[:, None] + square[None, :])
            - 2 * linear[:, None] * linear[None, :]
            - 2 * value * bins * (linear[:, None] - linear[None, :])
            + value**2 * bins**2
        )
        unequal = float((joint.cells[label] * ((move - value * others) ** 2 - of_noise)).sum())
        total += unequal * own / (max(own, 2.0) - 1)
    return total


def _noise(
    joint: JointHistogram, by_negative: NDArray[np.float64], by_positive: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Variance that the noise gives to (pairs won - candidate * pairs), for each of ``_DIFFERENCES``; see
    ``tasks.metrics.ranking._noise``."""
    bins, d = joint.bins, _DIFFERENCES
    cells = bins**2
    lengths = sum(
        (move**2).sum() - 2 * d * other * move.sum() + d**2 * other**2 * cells
        for move, other in ((by_negative, joint.size(1)), (by_positive, joint.size(0)))
    )
    linear, square = cells / 2, bins * (bins - 1) / 2 + bins / 4  # sums of what one bin wins against another
    of_matrix = 2 * (cells * square - linear**2) + d**2 * cells**2
    s2 = joint.noise**2
    return np.asarray(np.maximum(s2 * lengths - s2**2 * of_matrix, s2**2 * of_matrix))
