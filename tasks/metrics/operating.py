"""Sensitivity and specificity at a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.interval import Interval, ratio
from tasks.metrics.resampling import without_negatives


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its rates: patients with at least this score are called positive.

    Attributes:
        threshold: the lower edge of a bin.
        sensitivity, specificity: ``None`` where the noise hides the class.
    """

    threshold: float
    sensitivity: Interval | None
    specificity: Interval | None


def at_threshold(histogram: ScoreHistogram, threshold: float) -> OperatingPoint:
    """Sensitivity and specificity of a threshold, which is rounded to an edge between bins.

    >>> from tasks.metrics.histogram import score_histogram
    >>> cells = score_histogram(scores=[0.1, 0.2, 0.6, 0.4, 0.7, 0.9], labels=[0, 0, 0, 1, 1, 1], bins=10)
    >>> rate = at_threshold(ScoreHistogram(cells), 0.5).sensitivity
    >>> f"{rate.value:.2f} ({rate.low:.2f} to {rate.high:.2f})"
    '0.67 (0.21 to 0.94)'
    """
    edge = round(threshold * histogram.bins)
    called = np.arange(histogram.bins) >= edge
    return OperatingPoint(edge / histogram.bins, _fraction(histogram, 1, called), _fraction(histogram, 0, ~called))


def for_specificity(histogram: ScoreHistogram, wanted: float) -> float:
    """The lowest threshold with at least the wanted specificity on these patients; 1 where only that has it."""
    edges = np.flatnonzero(roc_curve(histogram)[1] >= wanted - 1e-12)
    return float(edges[0]) / histogram.bins


def for_youden(histogram: ScoreHistogram) -> float:
    """The threshold with the largest sum of sensitivity and specificity (Youden, Cancer 3:32, 1950)."""
    sensitivity, specificity = roc_curve(histogram)
    return float(np.argmax(sensitivity + specificity)) / histogram.bins


def roc_curve(histogram: ScoreHistogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sensitivity and specificity at every edge between bins from 0 to 1, each of shape (bins + 1,)."""
    below = np.pad(np.cumsum(without_negatives(histogram.cells), axis=1), ((0, 0), (1, 0)))
    share = below / np.maximum(below[:, -1:], 1e-12)
    share[:, -1] = 1.0  # all patients are below the highest edge, also where noise has left nobody of a class
    return 1 - share[1], share[0]


def _fraction(histogram: ScoreHistogram, label: int, called: NDArray[np.bool_]) -> Interval | None:
    ones = np.ones(histogram.bins)
    return ratio(histogram.cells[label], called.astype(np.float64), ones, histogram.noise, proportion=True)
