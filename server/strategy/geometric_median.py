"""The geometric median: the point with the smallest sum of distances to all updates.

RFA, Pillutla et al., IEEE Transactions on Signal Processing 70:1142, 2022.

Found with the smoothed Weiszfeld iteration (algorithm 2 there): v <- sum_i b_i w_i / sum_i b_i with
b_i = 1 / max(nu, |v - w_i|). Every v is a weighted mean of the updates, so its distances follow from their inner
products G: for weights l that add up to 1, |v - w_j|^2 = l'Gl - 2 (Gl)_j + G_jj. Two passes over the updates for G,
iterations on numbers, one pass for the mean; so it can run until it converges, where the paper stops early.
nu is relative to the typical distance here, so the result does not depend on the unit.

Withstands any minority, and turns with the coordinates, which the coordinate-wise median does not. Flower has none.

Privacy and memory: see ``buffered.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.strategy.buffered import RobustRule, inner_products, squared_distances
from server.strategy.fedavg import RunningMean
from tasks.protocol.wire import Arrays

_NU = 1e-6
_CLOSE = 1e-10
_MOST_ITERATIONS = 1_000
_NOTHING = 1e-300


def geometric_median(updates: Sequence[Arrays]) -> Arrays:
    """The smoothed geometric median of the updates."""
    medoid = int(np.argmin(np.sqrt(squared_distances(updates)).sum(axis=1)))
    # Seen from an update in the middle, a far one is a large number that a small weight makes small again; seen from
    # elsewhere, the difference of two large numbers would be left of every distance.
    weights = weiszfeld(inner_products(updates, origin=medoid))
    mean = RunningMean(updates[0])
    for index, weight in enumerate(weights):
        if weight > _NOTHING:
            mean.add(str(index), updates[index], float(weight))
    return mean.combined()


def weiszfeld(inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights, adding up to 1, with which points add up to their geometric median.

    Args:
        inner: inner products of the points, shape (points, points), as seen from the medoid.
    """
    away = np.sqrt(np.diag(inner))
    here = away == 0
    # If the median is a point, it is the medoid: then the unit vectors to the others do not pull more than the points
    # here hold (Kuhn, Mathematical Programming 4, 1973). The iteration would creep towards it for ever.
    lengths = np.where(here, 1, away)
    pull = np.sqrt(max(float(np.sum(inner / lengths / lengths[:, None])), 0.0))
    if pull <= np.sum(here):
        return _normalised(here.astype(float))
    # A far point weighs little from the start, however far it is.
    typical = float(np.median(away))
    weights = _normalised(1 / np.maximum(away, typical))
    for _ in range(_MOST_ITERATIONS):
        products = inner @ weights
        away = np.sqrt(np.maximum(weights @ products - 2 * products + np.diag(inner), 0.0))
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
