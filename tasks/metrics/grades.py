"""How well an ordered grade is told, from one table over patients: reader's grade and told grade.

A patient is in one cell. As in ``histogram.py``, noise may make cells negative, and nothing is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.classes import agreement, as_indices, row_share
from tasks.metrics.interval import Interval, ratio
from tasks.metrics.moments import Moments, product


def told_grades(told: ArrayLike, grades: ArrayLike, names: int) -> NDArray[np.float64]:
    """Count patients by the reader's grade and the told one.

    Args:
        told, grades: shape (patients,), indices of grades; NaN among ``grades`` for patients of whom nobody knows, who
            are not counted.
        names: how many grades there are.

    Returns:
        float64 of shape (names, names): reader's grade, told grade.

    Raises:
        ValueError: there is no such grade.
    """
    known = ~np.isnan(np.asarray(grades, dtype=np.float64))
    both = [as_indices(np.asarray(each, dtype=np.float64)[known], names) for each in (grades, told)]
    table = np.zeros((names, names))
    np.add.at(table, (both[0], both[1]), 1.0)
    return table


@dataclass(frozen=True)
class GradeTable:
    """What is known of some patients' grades.

    Attributes:
        told: float64 of shape (grades, grades), see ``told_grades``.
        noise: standard deviation of the independent Gaussian noise on every cell; 0 for exact counts.
    """

    told: NDArray[np.float64]
    noise: float = 0.0

    @property
    def grades(self) -> int:
        return len(self.told)

    @property
    def sizes(self) -> list[float]:
        """Estimated patients of each grade; unbiased, so noise can make them negative."""
        return [float(each) for each in self.told.sum(axis=1)]

    @property
    def size_noise(self) -> float:
        """Standard deviation of each of them."""
        return self.noise * math.sqrt(self.grades)

    def accuracy(self) -> Interval | None:
        """Of all patients, the fraction whose grade is told; ``None`` where there is nobody."""
        return agreement(self.told, self.noise)

    def shares(self) -> list[list[Interval | None]]:
        """For each grade of the reader, which fraction of its patients is told each grade."""
        return [
            [row_share(self.told, self.noise, true, told) for told in range(self.grades)] for true in range(self.grades)
        ]

    def mean_error(self) -> Interval | None:
        """Mean distance of the told grade from the reader's, in grades; ``None`` where there is nobody."""
        apart = np.abs(np.subtract.outer(np.arange(self.grades), np.arange(self.grades))) / (self.grades - 1)
        found = ratio(self.told, apart, np.ones_like(self.told), self.noise)
        return None if found is None else scaled(found, self.grades - 1)

    def kappa(self) -> Interval | None:
        """Cohen's kappa with quadratic weights (Psychol Bull 70:213, 1968): 1 where all grades are told, 0 where they
        agree as often as by chance.

        It is 2 cov(reader, told) / (var(reader) + var(told) + (difference of means)^2) (Fleiss and Cohen, Educ Psychol
        Meas 33:613, 1973), so a ratio of products of sums, which noise does not bias; see ``moments.py``.

        Returns:
            ``None`` where exact counts have fewer than two patients, or one grade only.
        """
        true, told = (each.ravel().astype(np.float64) for each in np.indices(self.told.shape))
        rows = np.stack([np.ones_like(true), true, told, true * told, true**2, told**2])
        moments = Moments(self.told.ravel(), rows, self.noise)
        together = product(6, (2, 0, 3), (-2, 1, 2))
        apart = product(6, (1, 0, 4), (1, 0, 5), (-2, 1, 2))
        return moments.ratio(together, apart, low=-1.0, anybody=1.0)


def pooled(tables: Sequence[GradeTable]) -> GradeTable:
    """All patients of several hospitals as if they were one hospital's; noise adds up as independent noise does."""
    return GradeTable(np.sum([each.told for each in tables], axis=0), math.hypot(*(each.noise for each in tables)))


def scaled(interval: Interval, by: float, shifted: float = 0.0) -> Interval:
    """The interval of ``by`` times the figure, plus ``shifted``; ``by`` is positive."""
    ends = {name: getattr(interval, name) * by + shifted for name in ("value", "low", "high")}
    return replace(interval, **ends, hidden=interval.hidden * by)
