"""Resampled histograms, for figures that are not a ratio of sums.

Tested in ``tests/tasks/metrics/test_ranking.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.interval import Interval, Z

_SEED = 20240711
"""A report drawn twice shows the same numbers. This noise protects nobody."""

Figure = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From histograms without negative cells, shape (..., 2, bins), to a figure each in [0, 1]."""


def bootstrapped(histogram: ScoreHistogram, figure: Figure, draws: int) -> Interval:
    """A figure with its interval by parametric bootstrap (Efron and Tibshirani, 1993, chapter 6).

    Patients are drawn from the histogram and noise is added anew. What the noise alone does to the figure on average is
    taken off the estimate. The interval is 1.96 standard deviations of all that was drawn, and as much wider as was
    taken off, because a bias that was measured on a noised histogram is itself uncertain.
    """
    fitted = without_negatives(histogram.cells)
    here = float(figure(fitted))
    used = np.flatnonzero(fitted.sum(axis=0)) if histogram.noise == 0 else np.arange(histogram.bins)
    rng = np.random.default_rng(_SEED)
    drawn = np.stack([_patients(rng, row[used], draws) for row in fitted], axis=1)
    figures = figure(drawn)
    shown = figures
    if histogram.noise > 0:
        shown = figure(without_negatives(drawn + rng.normal(0, histogram.noise, drawn.shape)))
    bias = float((shown - figures).mean())
    value = min(max(here - bias, 0.0), 1.0)
    spread = Z * float(np.std(shown)) + abs(bias)
    return Interval(value, max(value - spread, 0.0), min(value + spread, 1.0))


def _patients(rng: np.random.Generator, cells: NDArray[np.float64], draws: int) -> NDArray[np.float64]:
    total = float(cells.sum())
    return rng.multinomial(max(1, round(total)), cells / total, size=draws).astype(np.float64)


def without_negatives(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest cells that are not negative and have the same sum in each row (a negative sum counts as zero).

    All cells of a row are lowered alike and what falls below zero is cut off, so that what noise has made out of
    nothing is taken back ("Norm-Sub" in Wang et al., NDSS 2020). Shape (..., bins).
    """
    total = np.maximum(cells.sum(axis=-1, keepdims=True), 0)
    falling = np.sort(cells, axis=-1)[..., ::-1]
    lowered = (np.cumsum(falling, axis=-1) - total) / np.arange(1, cells.shape[-1] + 1)
    kept = np.maximum((falling > lowered).sum(axis=-1, keepdims=True), 1)
    return np.asarray(np.maximum(cells - np.take_along_axis(lowered, kept - 1, axis=-1), 0))
