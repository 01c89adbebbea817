"""FedAvgM: a server with momentum (Hsu et al., 2019, arXiv:1909.06335, section 4.3).

    v <- beta v + update;   x <- x + eta v

Flower's ``FedAvgM`` makes the same step (a test compares them); ``fedavg.py`` says what it inherits that rules it out.
It also keeps the momentum in an attribute, which no checkpoint holds.

Privacy: as FedAvg; the momentum is computed from released updates.
Memory: FedAvg's and one model more.
"""

from __future__ import annotations

import numpy as np

from server.strategy.strategy import moved
from tasks.protocol.wire import Arrays

_MOMENTUM = "momentum/"


def fedavgm_start(weights: Arrays) -> Arrays:
    """No momentum yet."""
    return {_MOMENTUM + name: np.zeros_like(value) for name, value in weights.items()}


def fedavgm_step(
    weights: Arrays,
    memory: Arrays,
    update: Arrays,
    share: float,
    *,
    server_learning_rate: float,
    server_momentum: float,
) -> tuple[Arrays, Arrays]:
    """The next model, and the next momentum in the model's dtypes."""
    velocity = {name: server_momentum * memory[_MOMENTUM + name] + value for name, value in update.items()}
    new = moved(weights, velocity.__getitem__, server_learning_rate)
    return new, {_MOMENTUM + name: value for name, value in velocity.items()}
