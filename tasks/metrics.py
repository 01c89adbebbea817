"""Figures from score histograms: the only form in which scores leave a hospital.

A histogram has shape (2, bins): how many negative and positive patients scored in each of equally wide bins of [0, 1].
Noised histograms are welcome: cells may be fractional or negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def score_histogram(scores: ArrayLike, labels: ArrayLike, bins: int) -> NDArray[np.float64]:
    """Count patients by class and score.

    Args:
        scores: floats of shape (patients,) in [0, 1].
        labels: 0 or 1 for each patient.
        bins: number of equally wide bins.

    Returns:
        float64 of shape (2, bins).

    Raises:
        ValueError: a score lies outside [0, 1] or is not a number, or a label is neither 0 nor 1.
    """
    values, classes = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("scores must be numbers between 0 and 1; pass the output of the sigmoid")
    if classes.shape != values.shape or not np.isin(classes, (0, 1)).all():
        raise ValueError(f"there must be one label, 0 or 1, for each of {values.shape} scores")
    cell = np.minimum((values * bins).astype(np.int64), bins - 1)
    histogram = np.zeros((2, bins))
    np.add.at(histogram, (classes.astype(np.int64), cell), 1.0)
    return histogram


def roc_auc(histogram: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve: the probability that a positive patient scores above a negative one.

    The Mann-Whitney statistic with half weight for pairs in one bin (Hanley and McNeil, Radiology 143:29, 1982).
    Cells below zero, which noise can make, count as zero.

    Returns:
        A number in [0, 1], or ``None`` when a class has less than one patient, so that there is nothing to compare.
    """
    negative, positive = np.clip(histogram, 0, None)
    if negative.sum() < 1 or positive.sum() < 1:
        return None
    below = np.cumsum(negative) - negative / 2
    # Sums in another order may round to just above one.
    return min(1.0, float((positive * below).sum() / (positive.sum() * negative.sum())))


def roc_auc_interval(histogram: NDArray[np.float64]) -> Interval | None:
    """``roc_auc`` with the interval of Hanley and McNeil's standard error (1982, equation 2), on the logit scale.

    The logit keeps the interval inside [0, 1]. It covers the sampling of patients only, not the privacy noise.
    """
    auc = roc_auc(histogram)
    if auc is None:
        return None
    negatives, positives = np.clip(histogram, 0, None).sum(axis=1)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)) / (
        positives * negatives
    )
    # A perfect separation has no variance by the formula; half a patient's worth keeps the interval honest.
    inside = min(max(auc, 0.5 / (positives * negatives + 1)), 1 - 0.5 / (positives * negatives + 1))
    spread = 1.96 * math.sqrt(max(variance, 0.25 / (positives * negatives))) / (inside * (1 - inside))
    centre = math.log(inside / (1 - inside))
    low, high = _logistic(centre - spread), _logistic(centre + spread)
    return Interval(auc, min(low, auc), max(high, auc))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
