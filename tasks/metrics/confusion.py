"""What a square table of patients tells, by the reader's class or grade and the told one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.interval import Interval, ratio


def count_pairs(true: ArrayLike, told: ArrayLike, names: int) -> NDArray[np.float64]:
    """Count patients; float64 of shape (names, names): the reader's, the told one.

    Args:
        true, told: shape (patients,), whole numbers below ``names``.

    Raises:
        ValueError: some are none.
    """
    table = np.zeros((names, names))
    np.add.at(table, (as_indices(true, names), as_indices(told, names)), 1.0)
    return table


def as_indices(numbers: ArrayLike, names: int) -> NDArray[np.int64]:
    """Whole numbers below ``names``.

    Raises:
        ValueError: some are none.
    """
    found = np.asarray(numbers, dtype=np.float64)
    if not np.all((found >= 0) & (found < names) & (found % 1 == 0)):
        raise ValueError(f"classes and grades must be whole numbers from 0 to {names - 1}, or NaN for unknown ones")
    return found.astype(np.int64)


class Confusion:
    """The figures that classes and grades share; the tables of either have these attributes.

    Attributes:
        told: float64, square: the reader's class or grade, and the told one.
        noise: standard deviation of the independent Gaussian noise on every cell; 0 for exact counts.
    """

    told: NDArray[np.float64]
    noise: float

    @property
    def sizes(self) -> list[float]:
        """Estimated patients of each class or grade; unbiased, so noise can make them negative."""
        return [float(each) for each in self.told.sum(axis=1)]

    @property
    def size_noise(self) -> float:
        """Standard deviation of each of them."""
        return self.noise * math.sqrt(len(self.told))

    def accuracy(self) -> Interval | None:
        """Of all patients, the fraction whose class or grade is told; ``None`` where there is nobody."""
        return ratio(self.told, np.eye(len(self.told)), np.ones_like(self.told), self.noise, proportion=True)

    def shares(self) -> list[list[Interval | None]]:
        """For each class or grade of the reader, which fraction of its patients is told each one."""
        names = range(len(self.told))
        return [[self._share(true, told) for told in names] for true in names]

    def sensitivities(self) -> list[Interval | None]:
        """For each class or grade, the fraction of its patients who are told it."""
        return [self._share(each, each) for each in range(len(self.told))]

    def _share(self, true: int, told: int) -> Interval | None:
        """Of the patients of a row, the fraction in a column; ``None`` where there is nobody."""
        part, whole = np.zeros_like(self.told), np.zeros_like(self.told)
        whole[true], part[true, told] = 1, 1
        return ratio(self.told, part, whole, self.noise, proportion=True)
