"""How well patients are told apart into classes that exclude each other, from counts over patients.

A table of shape (classes, classes): the reader's class, and the one that the model finds most probable. And for each
class against all others a histogram of its probability, as ``histogram.py`` has them. A patient is in one cell of each.
As there, noise may make cells negative, and nothing is clipped.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.histogram import score_histogram


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
