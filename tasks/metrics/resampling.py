"""Resampled histograms, for figures that are not a ratio of sums.

Tested in ``tests/tasks/metrics/test_ranking.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from tasks.metrics.cells import without_negatives
from tasks.metrics.histogram import ScoreHistogram

SEED = 20240711
"""A report drawn twice shows the same numbers. This noise protects nobody."""

Figure = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From histograms without negative cells, shape (..., 2, bins), to a figure each in [0, 1]."""


@dataclass(frozen=True)
class Bootstrapped:
    """A figure with what drawing and noise do to it (Efron and Tibshirani, 1993, chapter 6).

    Attributes:
        value: the figure, less what noise adds to it on average.
        drawing, noise: standard deviations of its logit when patients are drawn anew, and when noise is added to them.
        bias: of its logit, by noise.
    """

    value: float
    drawing: float
    noise: float
    bias: float


def bootstrapped(histogram: ScoreHistogram, figure: Figure, draws: int) -> Bootstrapped:
    """Draw all patients from the histogram, each of any class, and add noise anew, so many times."""
    fitted = without_negatives(histogram.cells)
    here = float(figure(fitted))
    used = np.flatnonzero(fitted.sum(axis=0)) if histogram.noise == 0 else np.arange(histogram.bins)
    rng = np.random.default_rng(SEED)
    drawn = patients_drawn(rng, fitted[:, used], draws)
    figures = figure(drawn)
    if histogram.noise == 0:
        return Bootstrapped(here, float(np.std(_logits(figures))), 0.0, 0.0)
    shown = figure(without_negatives(drawn + rng.normal(0, histogram.noise, drawn.shape)))
    by_noise = _logits(shown) - _logits(figures)
    value = min(max(here - float((shown - figures).mean()), 0.0), 1.0)
    return Bootstrapped(value, float(np.std(_logits(figures))), float(np.std(by_noise)), float(np.mean(by_noise)))


def _logits(figures: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(logit(np.clip(figures, 0.005, 0.995)))


def patients_drawn(rng: np.random.Generator, cells: NDArray[np.float64], draws: int) -> NDArray[np.float64]:
    """Histograms of as many patients as ``cells`` holds, none negative, shape (draws, 2, bins)."""
    total = float(cells.sum())
    drawn = rng.multinomial(max(1, round(total)), cells.ravel() / total, size=draws)
    return drawn.reshape(draws, *cells.shape).astype(np.float64)
