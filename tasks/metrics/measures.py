"""How well a measured quantity is told, from histograms over patients: the only form in which measurements leave.

Three histograms of shape (cells,): of the reader's values and of the model's, in equal parts of the declared range, and
of their differences, model less reader, in fractions of the range. Bins of differences are narrow near zero and have an
edge there, so that the sign is kept; the outermost reach to a whole range. A patient is in one cell of each. As in
``histogram.py``, noise may make cells negative, and nothing is clipped.

One table of both values would have as many cells as these three together have, squared, and noise on each: with 100
patients and noise 2, bias, mean absolute error and the spread of differences are twice as uncertain. The three suffice:
the covariance of two quantities follows from their variances and that of their difference.

Inside a bin, values count as their mean as far as the neighbouring bins tell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_COARSE = 8
_PARTS = 16
_FINE_SCORES = 128
"""So many bins of scores are those of exact counts, and then the bins here are fine, too: each in 16 parts."""
_EDGES = (0.06, 0.14, 0.25)
"""Between the bins of differences, and their negatives: equally far apart in asinh(8.5 difference)."""


def measure_cells(bins: int) -> int:
    """Cells of each of the three histograms where scores are counted in so many bins."""
    return _COARSE if bins < _FINE_SCORES else _COARSE * _PARTS


def difference_limits(cells: int) -> NDArray[np.float64]:
    """Of the bins of differences, from -1 to 1, shape (cells + 1,); those of many cells contain those of few.

    >>> difference_limits(8).tolist()
    [-1.0, -0.25, -0.14, -0.06, 0.0, 0.06, 0.14, 0.25, 1.0]
    """
    coarse = np.array([-1.0, *(-edge for edge in reversed(_EDGES)), 0.0, *_EDGES, 1.0])
    parts = cells // _COARSE
    return np.asarray(np.interp(np.arange(cells + 1) / parts, np.arange(len(coarse)), coarse))


def told_measures(values: ArrayLike, told: ArrayLike, low: float, high: float, cells: int) -> NDArray[np.float64]:
    """Count patients.

    Args:
        values: shape (patients,), what readers measured, between ``low`` and ``high``; NaN for patients of whom nobody
            knows, who are not counted.
        told: shape (patients,), what the model says; beyond the range it counts as its end.
        low, high: the declared range.
        cells: of each histogram, as ``measure_cells`` says.

    Returns:
        float64 of shape (3, cells): readers' values, the model's, differences.

    Raises:
        ValueError: a reader's value is outside the range, or the model's is no number.
    """
    known = ~np.isnan(np.asarray(values, dtype=np.float64))
    true = (np.asarray(values, dtype=np.float64)[known] - low) / (high - low)
    given = (np.asarray(told, dtype=np.float64)[known] - low) / (high - low)
    if not np.all((true >= 0) & (true <= 1)):
        raise ValueError(f"values must lie in the declared range, {low:g} to {high:g}, or be NaN for unknown ones")
    if np.isnan(given).any():
        raise ValueError("what a model tells must be a number")
    given = np.clip(given, 0, 1)
    limits, whole = difference_limits(cells), np.arange(1, cells) / cells
    each = [(true, whole), (given, whole), (given - true, limits[1:-1])]
    return np.stack(
        [np.bincount(np.searchsorted(edges, v, side="right"), minlength=cells) for v, edges in each]
    ).astype(np.float64)


def coarsened(counts: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """Exact counts as if they had been counted in fewer cells at first; shape (3, cells)."""
    return np.asarray(counts.reshape(3, cells, -1).sum(axis=-1))
