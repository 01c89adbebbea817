"""FedAvg: the weighted mean of the hospitals' updates (McMahan et al., AISTATS 2017, algorithm 1).

Flower's own ``FedAvg`` is not used: it averages NaN into the model, weighs by exact patient counts, sums in the
dtype that arrives (fp16 in fp16), waits for ever for missing hospitals and holds all replies in memory at once. The
other mean-type strategies of Flower inherit all of that.

Privacy: asks for nothing but the update; a mean of noised updates is post-processing.
Memory: three models and one reply, however many hospitals there are: the model, the running sum in float64, a reply.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import CannotCombine
from server.strategy.strategy import moved
from tasks.protocol.wire import Arrays

_AT_ONCE = 1 << 13
"""Values that are scaled at once: a large tensor needs no second copy of itself in float64."""


class RunningMean:
    """A weighted mean of updates that are added as they arrive; its memory does not grow with their number."""

    def __init__(self, weights: Arrays) -> None:
        self._dtypes = {name: value.dtype for name, value in weights.items()}
        self._sums = {name: np.zeros(value.shape, np.float64) for name, value in weights.items()}
        self._weight = 0.0
        self._hospitals: set[str] = set()

    def add(self, hospital: str, update: Arrays, weight: float, scale: float = 1.0) -> None:
        """Add one hospital's update, multiplied by ``scale``. Sums are float64, whatever the update's dtype.

        Raises:
            ValueError: the weight is not positive and finite, or the hospital has already been added.
        """
        if not 0 < weight < math.inf:
            raise ValueError(f"{hospital}: a weight must be positive and finite, not {weight}")
        if hospital in self._hospitals:
            raise ValueError(f"{hospital} has already been added")
        for name, total in self._sums.items():
            _accumulate(total.reshape(-1), update[name].reshape(-1), weight * scale)
        self._hospitals.add(hospital)
        self._weight += weight

    def combined(self) -> Arrays:
        """The mean, in the model's dtypes. Call it once: the sums are given up one by one.

        Raises:
            CannotCombine: nothing was added: a round that trained nobody has no mean.
        """
        if not self._weight:
            raise CannotCombine("no hospital's update was added: a round that trained nobody has no mean")
        mean: Arrays = {}
        for name in list(self._sums):
            total = self._sums.pop(name)
            total /= self._weight
            mean[name] = total.astype(self._dtypes[name])
        return mean


def mean_combiner(weights: Arrays, invited: int) -> RunningMean:
    """A fresh mean; any number of hospitals will do."""
    return RunningMean(weights)


def fedavg_step(
    weights: Arrays, memory: Arrays, update: Arrays, share: float, *, server_learning_rate: float
) -> tuple[Arrays, Arrays]:
    """The model moved along the update; nothing is remembered."""
    return moved(weights, update.__getitem__, server_learning_rate), {}


def _accumulate(total: NDArray[np.float64], values: NDArray[Any], factor: float) -> None:
    for start in range(0, len(values), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        total[part] += np.multiply(values[part], factor, dtype=np.float64)
