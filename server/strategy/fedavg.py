"""FedAvg: the weighted mean of the hospitals' updates (McMahan et al., AISTATS 2017).

Flower's own ``FedAvg`` is not used: it averages NaN into the model, weighs by exact patient counts, waits for ever for
missing hospitals and holds all replies in memory at once.
"""

from __future__ import annotations

import numpy as np

from tasks.wire import Arrays


class RunningMean:
    """A weighted mean of updates that are added as they arrive; its memory does not grow with their number."""

    def __init__(self) -> None:
        self._total: Arrays = {}
        self._weight = 0.0

    def add(self, update: Arrays, weight: float) -> None:
        """Fold one hospital's update in. Sums are kept in float64, whatever the update's dtype.

        Raises:
            ValueError: the weight is not positive.
        """
        if not weight > 0:
            raise ValueError(f"a weight must be positive, not {weight}")
        for name, value in update.items():
            total = self._total.setdefault(name, np.zeros(value.shape, np.float64))
            total += np.float64(weight) * value
        self._weight += weight

    def mean(self) -> Arrays:
        """The mean so far, float64.

        Raises:
            ValueError: nothing was added: a round that trained nobody has no mean.
        """
        if not self._weight:
            raise ValueError("no update was added")
        return {name: total / self._weight for name, total in self._total.items()}


def step(weights: Arrays, update: Arrays, server_learning_rate: float) -> Arrays:
    """The model after a round, in the dtypes that it had."""
    return {
        name: (value + server_learning_rate * update[name]).astype(value.dtype) for name, value in weights.items()
    }
