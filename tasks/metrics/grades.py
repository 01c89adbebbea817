"""How well an ordered grade is told, from one table over patients: reader's grade and told grade.

A patient is in one cell. As in ``histogram.py``, noise may make cells negative, and nothing is clipped.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.classes import as_indices


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
