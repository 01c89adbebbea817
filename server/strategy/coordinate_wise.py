"""Coordinate-wise median and trimmed mean (Yin et al., ICML 2018, definitions 1 and 2).

Each value of the model by itself: the median withstands any minority of attackers; the trimmed mean drops the largest
and the smallest fraction ``trim`` and averages the rest, which keeps more of the honest updates. Both stay between the
smallest and the largest honest value. Where hospitals differ (label skew), both drop honest minorities as well.

Privacy, memory, and why not Flower's: see ``buffered.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.strategy.buffered import RobustRule, by_coordinate
from tasks.protocol.wire import Arrays

_ROUNDING = 1e-9
"""0.29 * 100 is a little less than 29."""


def median(updates: Sequence[Arrays]) -> Arrays:
    """The median of every value; between the two middle ones where their number is even."""
    return by_coordinate(updates, lambda values: np.median(values, axis=1))


def trimmed_mean(updates: Sequence[Arrays], trim: float) -> Arrays:
    """The mean of every value without the fraction ``trim`` at either end, rounded down to whole updates."""
    cut = _cut(len(updates), trim)

    def middle(values: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = len(updates) - cut
        return np.asarray(np.partition(values, (cut, kept - 1), axis=1)[:, cut:kept].mean(axis=1))

    return by_coordinate(updates, middle)


def median_rule() -> RobustRule:
    """Withstands any minority."""
    return RobustRule("median", median, lambda updates: (updates - 1) // 2)


def trimmed_mean_rule(trim: float) -> RobustRule:
    """Withstands as many as it drops on one side."""
    return RobustRule("trimmed_mean", lambda updates: trimmed_mean(updates, trim), lambda updates: _cut(updates, trim))


def _cut(updates: int, trim: float) -> int:
    return int(trim * updates + _ROUNDING)
