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

from tasks.metrics.histogram import ScoreHistogram, score_histogram
from tasks.metrics.interval import Interval, mean, ratio
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
    table = np.zeros((chances.shape[1], chances.shape[1]))
    np.add.at(table, (true, chances.argmax(axis=1)), 1.0)
    return table


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


def as_indices(numbers: NDArray[np.float64], names: int) -> NDArray[np.int64]:
    """Whole numbers below ``names``.

    Raises:
        ValueError: some are none.
    """
    if not np.all((numbers >= 0) & (numbers < names) & (numbers % 1 == 0)):
        raise ValueError(f"classes and grades must be whole numbers from 0 to {names - 1}, or NaN for unknown ones")
    return numbers.astype(np.int64)


@dataclass(frozen=True)
class ClassTables:
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

    @property
    def classes(self) -> int:
        return len(self.told)

    @property
    def sizes(self) -> list[float]:
        """Estimated patients of each class; unbiased, so noise can make them negative."""
        return [float(each) for each in self.told.sum(axis=1)]

    @property
    def size_noise(self) -> float:
        """Standard deviation of each of them."""
        return self.noise * math.sqrt(self.classes)

    def accuracy(self) -> Interval | None:
        """Of all patients, the fraction whose class is told; ``None`` where there is nobody."""
        return agreement(self.told, self.noise)

    def shares(self) -> list[list[Interval | None]]:
        """The confusion matrix: for each class of the reader, which fraction of its patients is told each class."""
        return [
            [row_share(self.told, self.noise, true, told) for told in range(self.classes)]
            for true in range(self.classes)
        ]

    def sensitivities(self) -> list[Interval | None]:
        """For each class, the fraction of its patients who are told it."""
        return [row_share(self.told, self.noise, each, each) for each in range(self.classes)]

    def balanced_accuracy(self) -> Interval | None:
        """The mean of the sensitivities; ``None`` unless each class has a patient."""
        known = [each for each in self.sensitivities() if each is not None]
        return mean(known) if len(known) == self.classes else None

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


def agreement(told: NDArray[np.float64], noise: float) -> Interval | None:
    """Of a square table, the fraction of patients on the diagonal."""
    return ratio(told, np.eye(len(told)), np.ones_like(told), noise, proportion=True)


def row_share(table: NDArray[np.float64], noise: float, row: int, column: int) -> Interval | None:
    """Of the patients of a row, the fraction in a column; ``None`` where there is nobody."""
    part, whole = np.zeros_like(table), np.zeros_like(table)
    whole[row], part[row, column] = 1, 1
    return ratio(table, part, whole, noise, proportion=True)


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
