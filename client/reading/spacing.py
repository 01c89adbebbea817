"""Whether positions along a line are evenly spaced, as far as the digits with which they were written can tell.

Two rules, of which one suffices. Step by step: no distance differs from the median by more than 2 % (``EVEN``), which
leaves room for a scanner's jitter. As a whole: the positions lie on a line of equal steps, none farther from its place
than half of the last decimal that the file has, since 1.25 mm written with one decimal is 1.2, 1.3, 1.2, ... (PS3.5
section 6.2, DS; icometrix/dicom2nifti #36 and rordenlab/dcm2niix #216 are such series).

Tested in ``tests/client/reading/test_volume.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAME_PLACE_MM = 0.01
EVEN = 0.02
"""Fraction of the spacing by which single distances may differ from it."""
_MOST_ROUNDING = 0.25
"""Of the spacing: coarser digits tell no even series from an uneven one."""

_FITTED = 1.5
"""By how much the best line by least squares may be farther than half a unit, which the best line for the farthest
place is not."""


def even(offsets: NDArray[np.float64], rounding_mm: float) -> bool:
    """Whether the offsets, in rising order, have equal steps.

    Args:
        offsets: float64, at least two.
        rounding_mm: by how much each may be off because of few decimals.
    """
    return _fits(offsets, np.arange(len(offsets)), rounding_mm)


def missing(offsets: NDArray[np.float64], rounding_mm: float) -> int:
    """How many places between the offsets are empty, if they have equal steps but for those; else 0."""
    steps = np.diff(offsets)
    for step in (float(np.median(steps)), float(steps.min())):
        places = np.concatenate([[0], np.cumsum(np.maximum(1, np.rint(steps / step)))])
        empty = int(places[-1]) + 1 - len(offsets)
        if empty and _fits(offsets, places, rounding_mm):
            return empty
    return 0


def _fits(offsets: NDArray[np.float64], places: NDArray[np.float64] | NDArray[np.intp], rounding_mm: float) -> bool:
    step = float(np.median(np.diff(offsets) / np.diff(places)))
    if np.abs(np.diff(offsets) - np.diff(places) * step).max() <= EVEN * step + SAME_PLACE_MM:
        return True
    slope, start = np.polyfit(places, offsets, 1)
    if not 0 < rounding_mm <= _MOST_ROUNDING * slope:
        return False
    return bool(np.abs(offsets - (start + slope * places)).max() <= _FITTED * rounding_mm + SAME_PLACE_MM)
