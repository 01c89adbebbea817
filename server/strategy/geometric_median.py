"""The geometric median: the point whose distances to all updates have the least sum.

RFA, Pillutla et al., IEEE Transactions on Signal Processing 70:1142, 2022.

Found with the smoothed Weiszfeld iteration (algorithm 2 there): v <- sum_i b_i w_i / sum_i b_i with
b_i = 1 / max(nu, |v - w_i|). Every v is a weighted mean of the updates, so its distances follow from those between
updates: for weights l that add up to 1 and squared distances D, |v - w_j|^2 = (D l)_j - l'D l / 2. One pass over the
updates for D, iterations on numbers, one pass for the mean; hence no limit of three or four iterations as in the paper.
nu is relative to the typical distance here, so the result does not depend on the unit.

Withstands any minority, and turns with the coordinates, which the coordinate-wise median does not. Flower has none.

Privacy and memory: see ``held.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.strategy.fedavg import RunningMean
from server.strategy.held import RobustRule, squared_distances
from tasks.wire import Arrays

_NU = 1e-6
_CLOSE = 1e-10
_MOST_ITERATIONS = 10_000
_NOTHING = 1e-300


def geometric_median(updates: Sequence[Arrays]) -> Arrays:
    """The smoothed geometric median of the updates."""
    mean = RunningMean(updates[0])
    for index, weight in enumerate(weiszfeld(squared_distances(updates))):
        if weight > _NOTHING:
            mean.add(str(index), updates[index], float(weight))
    return mean.combined()


def weiszfeld(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights, adding up to 1, with which points add up to their geometric median.

    Args:
        squared: squared distances between the points, shape (points, points).
    """
    distances = np.sqrt(squared)
    medoid = distances[np.argmin(distances.sum(axis=1))]
    typical = float(np.median(medoid))
    if typical == 0:  # most points are one, and that is the median
        return np.asarray((medoid == 0) / np.sum(medoid == 0))
    # Seen from the medoid a far point weighs little from the start, however far it is.
    weights = _normalised(1 / np.maximum(medoid, typical))
    for _ in range(_MOST_ITERATIONS):
        products = squared @ weights
        away = np.sqrt(np.maximum(products - weights @ products / 2, 0.0))
        new = _normalised(1 / np.maximum(away, _NU * typical))
        if np.abs(new - weights).max() < _CLOSE:
            return new
        weights = new
    return weights


def geometric_median_rule() -> RobustRule:
    """Withstands any minority."""
    return RobustRule("geometric_median", geometric_median, lambda updates: (updates - 1) // 2)


def _normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(weights / weights.sum())
