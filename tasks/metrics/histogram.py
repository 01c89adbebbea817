"""Score histograms: the only form in which scores leave a hospital.

A histogram has shape (2, bins): how many negative and positive patients scored in each of equally wide bins of [0, 1].
With noise its cells may be fractional or negative. Nothing here clips negative cells: clipped, the noise would no
longer cancel in sums, and every figure would be biased (an AUC of 0.9 reads 0.81 with 100 patients, 16 bins and noise
2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.interval import Interval, Z, ratio


@dataclass(frozen=True)
class ScoreHistogram:
    """What is known about the scores of some patients.

    Attributes:
        cells: float64 of shape (2, bins), negative and positive patients.
        noise: standard deviation of the independent Gaussian noise on every cell; 0 for exact counts.
    """

    cells: NDArray[np.float64]
    noise: float = 0.0

    @property
    def bins(self) -> int:
        return int(self.cells.shape[1])

    @property
    def centres(self) -> NDArray[np.float64]:
        """The score in the middle of each bin."""
        return (np.arange(self.bins) + 0.5) / self.bins

    def size(self, label: int) -> float:
        """Estimated number of patients of a class; unbiased, so noise can make it negative."""
        return float(self.cells[label].sum())

    @property
    def size_noise(self) -> float:
        """Standard deviation of ``size``."""
        return self.noise * math.sqrt(self.bins)

    def has_both_classes(self) -> bool:
        """Whether each class has at least one patient, and more than the noise alone would show."""
        return min(self.size(0), self.size(1)) >= max(1.0, Z * self.size_noise)


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
        raise ValueError("scores must be numbers between 0 and 1: pass the output of the sigmoid")
    if classes.shape != values.shape or not np.isin(classes, (0, 1)).all():
        raise ValueError(f"there must be one label, 0 or 1, for each of {values.shape} scores")
    cell = np.minimum((values * bins).astype(np.int64), bins - 1)
    histogram = np.zeros((2, bins))
    np.add.at(histogram, (classes.astype(np.int64), cell), 1.0)
    return histogram


def pooled(histograms: Sequence[ScoreHistogram]) -> ScoreHistogram:
    """All patients of several hospitals as if they were one hospital's; independent noise adds up in quadrature."""
    cells = np.sum([h.cells for h in histograms], axis=0)
    return ScoreHistogram(cells, math.hypot(*(h.noise for h in histograms)))


def prevalence(histogram: ScoreHistogram) -> Interval | None:
    """Fraction of positive patients; ``None`` where the noise hides all patients."""
    positive = np.zeros((2, histogram.bins))
    positive[1] = 1
    return ratio(histogram.cells, positive, np.ones_like(positive), histogram.noise, proportion=True)
