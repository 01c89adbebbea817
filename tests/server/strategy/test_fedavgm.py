"""Two rounds by hand."""

from __future__ import annotations

import numpy as np

from server.strategy.fedavgm import fedavgm_start, fedavgm_step


def test_two_rounds_by_hand() -> None:
    weights = {"w": np.array([1.0, 2.0], np.float32)}
    memory, settings = fedavgm_start(weights), {"server_learning_rate": 0.5, "server_momentum": 0.5}
    weights, memory = fedavgm_step(weights, memory, {"w": np.array([2.0, -4.0], np.float32)}, 1.0, **settings)
    assert weights["w"].tolist() == [2.0, 0.0]  # v = update
    weights, memory = fedavgm_step(weights, memory, {"w": np.array([2.0, 2.0], np.float32)}, 1.0, **settings)
    assert memory["momentum/w"].tolist() == [3.0, 0.0]  # 0.5 * (2, -4) + (2, 2)
    assert weights["w"].tolist() == [3.5, 0.0]
    assert weights["w"].dtype == memory["momentum/w"].dtype == np.float32


def test_nothing_given_is_changed() -> None:
    weights, update = {"w": np.ones(2)}, {"w": np.ones(2)}
    memory = fedavgm_start(weights)
    fedavgm_step(weights, memory, update, 1.0, server_learning_rate=1.0, server_momentum=0.9)
    assert [v["w"].tolist() for v in (weights, update)] == [[1, 1], [1, 1]]
    assert memory["momentum/w"].tolist() == [0, 0]
