"""How well patients are told apart into classes that exclude each other, from counts over patients.

A table of shape (classes, classes): the reader's class, and the one that the model finds most probable. And for each
class against all others a histogram of its probability, as ``histogram.py`` has them. A patient is in one cell of each.
As there, noise may make cells negative, and nothing is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.confusion import Confusion, as_indices, count_pairs
from tasks.metrics.histogram import ScoreHistogram, score_histogram
from tasks.metrics.interval import Interval, mean
from tasks.metrics.ranking import roc_auc


def told_classes(probabilities: ArrayLike, classes: ArrayLike) -> NDArray[np.float64]:
    """Count patients by the reader's class and the most probable one; of equally probable ones the first.

    Args:
        probabilities: shape (patients, classes).
        classes: shape (patients,), the index of each patient's class; NaN for patients of whom nobody knows, who are
            not counted.

    Returns:
        float64 of shape (classes, classes): reader's class, told class.

    Raises:
        ValueError: a probability is no number from 0 to 1, or there is no such class.
    """
    chances, true = _known(probabilities, classes)
    return count_pairs(true, chances.argmax(axis=1), chances.shape[1])


def rest_histograms(
    probabilities: ArrayLike, classes: ArrayLike, bins: int, edges: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """For each class against all others: patients by its probability.

    Args:
        probabilities, classes: as ``told_classes``.
        bins, edges: as ``score_histogram``.

    Returns:
        float64 of shape (classes, 2, bins): row 1 holds the patients of the class.

    Raises:
        ValueError: as ``told_classes`` and ``score_histogram``.
    """
    chances, true = _known(probabilities, classes)
    return np.stack([score_histogram(chances[:, k], true == k, bins, edges) for k in range(chances.shape[1])])


def _known(probabilities: ArrayLike, classes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    chances, indices = np.asarray(probabilities, dtype=np.float64), np.asarray(classes, dtype=np.float64)
    known = ~np.isnan(indices)
    chances, indices = chances[known], indices[known]
    if not np.all((chances >= 0) & (chances <= 1)):
        raise ValueError("probabilities must be numbers between 0 and 1: pass the output of the softmax")
    return chances, as_indices(indices, chances.shape[1])


@dataclass(frozen=True)
class ClassTables(Confusion):
    """What is known of some patients' classes.

    Attributes:
        told: float64 of shape (classes, classes), see ``told_classes``.
        rest: float64 of shape (classes, 2, bins), see ``rest_histograms``.
        noise: standard deviation of the independent Gaussian noise on every cell; 0 for exact counts.
        edges: between the bins of ``rest``, shape (bins - 1,); ``None`` for equally wide bins.
    """

    told: NDArray[np.float64]
    rest: NDArray[np.float64]
    noise: float = 0.0
    edges: NDArray[np.float64] | None = None

    def balanced_accuracy(self) -> Interval | None:
        """The mean of the sensitivities; ``None`` unless each class has a patient."""
        known = [each for each in self.sensitivities() if each is not None]
        return mean(known) if len(known) == len(self.told) else None

    def aucs(self) -> list[Interval | None]:
        """Area under the ROC curve of each class against all others."""
        return [roc_auc(ScoreHistogram(each, self.noise, self.edges)) for each in self.rest]

    def macro_auc(self) -> Interval | None:
        """Their unweighted mean (Hand and Till, Machine Learning 45:171, 2001, discuss it); ``None`` unless each class
        has a patient.

        The same patients are in all of them: their errors are taken to be correlated by 1/2. As if they were
        independent, intervals would hold the truth in 87 to 96 % of simulated hospitals; so, in 94 to 100 %.
        """
        return mean_of_dependent(self.aucs())


def pooled(tables: Sequence[ClassTables]) -> ClassTables:
    """All patients of several hospitals as if they were one hospital's; noise adds up as independent noise does."""
    told, rest = (np.sum(cells, axis=0) for cells in ([t.told for t in tables], [t.rest for t in tables]))
    return ClassTables(told, rest, math.hypot(*(t.noise for t in tables)), tables[0].edges)


def mean_of_dependent(figures: Sequence[Interval | None]) -> Interval | None:
    """Unweighted mean of figures whose errors are correlated by 1/2; ``None`` unless all are there."""
    known = [each for each in figures if each is not None]
    if not known or len(known) < len(figures):
        return None

    def together(distances: list[float]) -> float:
        return math.sqrt((sum(each**2 for each in distances) + sum(distances) ** 2) / 2) / len(distances)

    value, hidden = (sum(getattr(each, name) for each in known) / len(known) for name in ("value", "hidden"))
    below, above = together([each.below for each in known]), together([each.above for each in known])
    low, high = max(value - below, 0.0), min(value + above + hidden, 1.0)
    return Interval(value, low, high, all(each.firm for each in known), hidden)
