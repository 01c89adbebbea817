"""Two rounds by hand for each of the three, from the recurrences of algorithm 2."""

from __future__ import annotations

import math

import numpy as np
import pytest

from server.strategy.fedopt import Decay, SecondMoment, adagrad, adam, fedopt_start, fedopt_step, yogi

DECAY = Decay(beta_1=0.5, beta_2=0.75, tau=0.5)
V = {
    "adagrad": [0.25 + 4, 4.25 + 1],
    "adam": [0.75 * 0.25 + 0.25 * 4, 0.75 * 1.1875 + 0.25 * 1],
    "yogi": [0.25 + 0.25 * 4, 1.25 - 0.25 * 1],  # first v < d^2: v grows; then v > d^2: it shrinks
}


@pytest.mark.parametrize(("name", "second_moment"), [("adagrad", adagrad), ("adam", adam), ("yogi", yogi)])
def test_two_rounds_by_hand(name: str, second_moment: SecondMoment) -> None:
    weights = {"w": np.array([10.0], np.float64)}
    memory = fedopt_start(weights, decay=DECAY)
    assert (memory["m/w"][0], memory["v/w"][0]) == (0.0, 0.25)
    expected, m = 10.0, 0.0
    for d, v in zip([2.0, -1.0], V[name], strict=True):
        weights, memory = fedopt_step(
            weights,
            memory,
            {"w": np.array([d])},
            1.0,
            second_moment=second_moment,
            server_learning_rate=0.1,
            decay=DECAY,
        )
        m = 0.5 * m + 0.5 * d
        expected += 0.1 * m / (math.sqrt(v) + 0.5)
        assert memory["v/w"][0] == pytest.approx(v, abs=1e-15)
        assert weights["w"][0] == pytest.approx(expected, abs=1e-15)


def test_dtypes_stay() -> None:
    weights = {"w": np.ones(3, np.float32)}
    memory = fedopt_start(weights, decay=DECAY)
    weights, memory = fedopt_step(
        weights, memory, weights, 1.0, second_moment=yogi, server_learning_rate=0.1, decay=DECAY
    )
    assert {v.dtype for v in [*weights.values(), *memory.values()]} == {np.dtype(np.float32)}
