"""Noised counts of patients as counts that could be: none of them negative.

Tested in ``tests/tasks/metrics/test_histogram.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def without_negatives(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest cells that are not negative and have the same sum in each row (a negative sum counts as zero).

    All cells of a row are lowered alike and what falls below zero is cut off, so that what noise has made out of
    nothing is taken back ("Norm-Sub" in Wang et al., NDSS 2020). Shape (..., bins).
    """
    total = np.maximum(cells.sum(axis=-1, keepdims=True), 0)
    falling = np.sort(cells, axis=-1)[..., ::-1]
    lowered = (np.cumsum(falling, axis=-1) - total) / np.arange(1, cells.shape[-1] + 1)
    kept = np.maximum((falling > lowered).sum(axis=-1, keepdims=True), 1)
    return np.asarray(np.maximum(cells - np.take_along_axis(lowered, kept - 1, axis=-1), 0))
