"""FedAdagrad, FedAdam, FedYogi: a server with its own step size for each weight (Reddi et al., ICLR 2021, algorithm 2).

    m <- beta_1 m + (1 - beta_1) d          d: the combined update
    v <- v + d^2                                       FedAdagrad
         beta_2 v + (1 - beta_2) d^2                   FedAdam
         v - (1 - beta_2) d^2 sign(v - d^2)            FedYogi
    x <- x + eta m / (sqrt(v) + tau)        v starts at tau^2

Flower's three are not used, for what ``fedavg.py`` says and because they differ from the paper: v starts at 0, and
``FedAdam`` multiplies by a bias correction that algorithm 2 does not have, with an exponent one too large. Given the
same start and step size the steps are equal (tests compare them).

Privacy: as FedAvg; m and v are computed from released updates. Where the noise is larger than the signal, v measures
the noise, and all three become a plain step of size eta / noise.
Memory: FedAvg's and two models more while replies come; seven models while the step is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.strategy.strategy import moved
from tasks.protocol.wire import Arrays

_FIRST, _SECOND = "m/", "v/"

SecondMoment = Callable[[NDArray[Any], NDArray[Any], float], NDArray[Any]]
"""(v, d squared, beta_2) -> v."""


@dataclass(frozen=True)
class Decay:
    """``beta_1``, ``beta_2`` and ``tau`` of the paper; FedAdagrad has no ``beta_2``."""

    beta_1: float
    beta_2: float
    tau: float


def adagrad(v: NDArray[Any], squared: NDArray[Any], beta_2: float) -> NDArray[Any]:
    """FedAdagrad's second moment: the sum of all squares so far."""
    return np.asarray(v + squared)


def adam(v: NDArray[Any], squared: NDArray[Any], beta_2: float) -> NDArray[Any]:
    """FedAdam's second moment: forgets exponentially."""
    return np.asarray(beta_2 * v + (1 - beta_2) * squared)


def yogi(v: NDArray[Any], squared: NDArray[Any], beta_2: float) -> NDArray[Any]:
    """FedYogi's second moment: moves by a fraction of the square, so it shrinks slowly after a burst."""
    return np.asarray(v - (1 - beta_2) * squared * np.sign(v - squared))


def fedopt_start(weights: Arrays, *, decay: Decay) -> Arrays:
    """m is 0 and v is tau squared, everywhere."""
    m = {_FIRST + name: np.zeros_like(value) for name, value in weights.items()}
    return m | {_SECOND + name: np.full_like(value, decay.tau**2) for name, value in weights.items()}


def fedopt_step(
    weights: Arrays,
    memory: Arrays,
    update: Arrays,
    share: float,
    *,
    second_moment: SecondMoment,
    server_learning_rate: float,
    decay: Decay,
) -> tuple[Arrays, Arrays]:
    """The next model, and the next m and v in the model's dtypes."""
    new: Arrays = {}
    for name, d in update.items():
        new[_FIRST + name] = decay.beta_1 * memory[_FIRST + name] + (1 - decay.beta_1) * d
        new[_SECOND + name] = second_moment(memory[_SECOND + name], np.square(d), decay.beta_2)

    def change(name: str) -> NDArray[Any]:
        return np.asarray(new[_FIRST + name] / (np.sqrt(new[_SECOND + name]) + decay.tau))

    return moved(weights, change, server_learning_rate), new
