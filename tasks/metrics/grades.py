"""How well an ordered grade is told, from one table over patients: reader's grade and told grade.

A patient is in one cell. As in ``histogram.py``, noise may make cells negative, and nothing is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.confusion import Confusion, count_pairs
from tasks.metrics.interval import Interval, ratio, scaled
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
    return count_pairs(np.asarray(grades)[known], np.asarray(told)[known], names)


@dataclass(frozen=True)
class GradeTable(Confusion):
    """What is known of some patients' grades.

    Attributes:
        told: float64 of shape (grades, grades), see ``told_grades``.
        noise: standard deviation of the independent Gaussian noise on every cell; 0 for exact counts.
    """

    told: NDArray[np.float64]
    noise: float = 0.0

    def mean_error(self) -> Interval | None:
        """Mean distance of the told grade from the reader's, in grades; ``None`` where there is nobody."""
        apart = np.abs(np.subtract.outer(np.arange(len(self.told)), np.arange(len(self.told)))) / (len(self.told) - 1)
        found = ratio(self.told, apart, np.ones_like(self.told), self.noise)
        return None if found is None else scaled(found, len(self.told) - 1)

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
