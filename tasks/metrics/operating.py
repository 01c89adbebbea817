"""Sensitivity and specificity at a threshold, also at one that was chosen on the same patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.cells import without_negatives
from tasks.metrics.histogram import ScoreHistogram, pooled
from tasks.metrics.interval import Interval, ratio
from tasks.metrics.resampling import SEED, patients_drawn

_DRAWS = 60


@dataclass(frozen=True)
class Optimism:
    """By how much a threshold's rates are better in the patients who have chosen it than in others."""

    sensitivity: float = 0.0
    specificity: float = 0.0


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its rates: patients with at least this score are called positive.

    Attributes:
        threshold: the lower edge of a bin.
        sensitivity, specificity: ``None`` where a class has no patient.
    """

    threshold: float
    sensitivity: Interval | None
    specificity: Interval | None


def at_threshold(histogram: ScoreHistogram, threshold: float, optimism: Optimism | None = None) -> OperatingPoint:
    """Sensitivity and specificity of a threshold, which is moved to the nearest edge between bins.

    Args:
        optimism: of a threshold that these patients have chosen; it is taken off. Measured on the patients themselves
            it tends to be too small, so the lower limit has it taken off twice, and the upper one keeps it.

    >>> from tasks.metrics.histogram import score_histogram
    >>> cells = score_histogram(scores=[0.1, 0.2, 0.6, 0.4, 0.7, 0.9], labels=[0, 0, 0, 1, 1, 1], bins=10)
    >>> rate = at_threshold(ScoreHistogram(cells), 0.5).sensitivity
    >>> f"{rate.value:.2f} ({rate.low:.2f} to {rate.high:.2f})"
    '0.67 (0.21 to 0.94)'
    """
    edge = int(np.abs(histogram.limits - threshold).argmin())
    called = np.arange(histogram.bins) >= edge
    taken = optimism or Optimism()
    return OperatingPoint(
        float(histogram.limits[edge]),
        _less(_fraction(histogram, 1, called), taken.sensitivity),
        _less(_fraction(histogram, 0, ~called), taken.specificity),
    )


def for_specificity(histogram: ScoreHistogram, wanted: float) -> float:
    """The lowest threshold with at least the wanted specificity on these patients; 1 where only that has it."""
    edges = np.flatnonzero(roc_curve(histogram)[1] >= wanted - 1e-12)
    return float(histogram.limits[edges[0]])


def for_youden(histogram: ScoreHistogram) -> float:
    """The threshold with the largest sum of sensitivity and specificity (Youden, Cancer 3:32, 1950)."""
    sensitivity, specificity = roc_curve(histogram)
    return float(histogram.limits[np.argmax(sensitivity + specificity)])


def roc_curve(histogram: ScoreHistogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sensitivity and specificity at every edge between bins from 0 to 1, each of shape (bins + 1,)."""
    below = np.pad(np.cumsum(without_negatives(histogram.cells), axis=1), ((0, 0), (1, 0)))
    share = below / np.maximum(below[:, -1:], 1e-12)
    share[:, -1] = 1.0  # all patients are below the highest edge, also where noise has left nobody of a class
    return 1 - share[1], share[0]


def optimism(
    histograms: Sequence[ScoreHistogram], choose: Callable[[ScoreHistogram], float]
) -> tuple[list[Optimism], Optimism]:
    """How much better a threshold looks in those who choose it, at each hospital and in all patients together.

    Patients are drawn anew from the histograms, with noise where there is some; they choose a threshold, which is
    judged in them and in those that they were drawn from (Efron, JASA 78:316, 1983).

    Args:
        choose: the threshold of a histogram of all patients.
    """
    rng = np.random.default_rng(SEED)
    fitted = [replace(h, cells=without_negatives(h.cells), noise=0.0) for h in histograms]
    together, lost = pooled(fitted), np.zeros((len(fitted) + 1, 2))
    for _ in range(_DRAWS):
        drawn = [_drawn(rng, h, f) for h, f in zip(histograms, fitted, strict=True)]
        everybody = pooled(drawn)
        edge = int(np.abs(together.limits - choose(everybody)).argmin())
        for n, (those, source) in enumerate(zip([*drawn, everybody], [*fitted, together], strict=True)):
            lost[n] += _rates(those, edge) - _rates(source, edge)
    each = [Optimism(float(sensitivity), float(specificity)) for sensitivity, specificity in lost / _DRAWS]
    return each[:-1], each[-1]


def _drawn(rng: np.random.Generator, histogram: ScoreHistogram, fitted: ScoreHistogram) -> ScoreHistogram:
    used = np.flatnonzero(fitted.cells.sum(axis=0))
    cells = np.zeros_like(fitted.cells)
    if len(used):
        cells[:, used] = patients_drawn(rng, fitted.cells[:, used], 1)[0]
    if histogram.noise:
        cells = cells + rng.normal(0, histogram.noise, cells.shape)
    return replace(fitted, cells=cells)


def _rates(histogram: ScoreHistogram, edge: int) -> NDArray[np.float64]:
    cells = histogram.cells
    sizes = np.maximum(cells.sum(axis=1), 1.0)
    return np.asarray(np.clip([cells[1, edge:].sum() / sizes[1], cells[0, :edge].sum() / sizes[0]], 0, 1))


def _less(rate: Interval | None, optimism: float) -> Interval | None:
    if rate is None or optimism <= 0:
        return rate
    value, low = max(rate.value - optimism, 0.0), max(rate.low - 2 * optimism, 0.0)
    return replace(rate, value=value, low=min(low, value))


def _fraction(histogram: ScoreHistogram, label: int, called: NDArray[np.bool_]) -> Interval | None:
    ones = np.ones(histogram.bins)
    return ratio(histogram.cells[label], called.astype(np.float64), ones, histogram.noise, proportion=True)
