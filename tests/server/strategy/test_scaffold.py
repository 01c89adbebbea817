"""The server's half of SCAFFOLD, against the paper's own messages, and what it is for: no drift."""

from __future__ import annotations

import numpy as np
import pytest

from server.strategy.scaffold import scaffold_control, scaffold_start, scaffold_step
from tasks.protocol.wire import CONTROL
from tests.server.strategy.convex import Convex

STEPS, RATE = 5, 0.2


def test_two_rounds_by_hand() -> None:
    """K eta_l = 0.5. First everyone answers, then half of them."""
    weights = {"w": np.array([1.0], np.float32)}
    memory = scaffold_start(weights)
    weights, memory = scaffold_step(
        weights, memory, {"w": np.array([-0.5], np.float32)}, 1.0, server_learning_rate=1.0, local_move=0.5
    )
    assert weights["w"].tolist() == [0.5]
    assert memory[CONTROL + "w"].tolist() == [1.0]  # minus the mean update over 0.5
    weights, memory = scaffold_step(
        weights, memory, {"w": np.array([0.25], np.float32)}, 0.5, server_learning_rate=2.0, local_move=0.5
    )
    assert weights["w"].tolist() == [1.0]
    assert memory[CONTROL + "w"].tolist() == [0.25]  # half of 1 and half of -0.5
    assert memory[CONTROL + "w"].dtype == np.float32
    assert scaffold_control(memory) is memory


@pytest.mark.parametrize("asked", [6, 4])
def test_it_is_the_papers_algorithm_to_the_letter(convex: Convex, asked: int) -> None:
    """Beside it runs algorithm 1 as printed: clients send (dy, dc), the server keeps c from the dc."""
    rng, names = np.random.default_rng(1), list(convex.hospitals)
    x, c = np.zeros(4), np.zeros(4)
    mine = {name: np.zeros(4) for name in names}
    weights = {"w": np.zeros(4)}
    memory = scaffold_start(weights)
    for _ in range(20):
        chosen = rng.choice(names, asked, replace=False)
        dys, dcs = [], []
        for name in chosen:
            dy = convex.hospitals[name].train(x, STEPS, RATE, c - mine[name])
            after = mine[name] - c - dy / (STEPS * RATE)
            dys.append(dy)
            dcs.append(after - mine[name])
            mine[name] = after
        update, share = {"w": np.mean(dys, axis=0)}, asked / len(names)
        weights, memory = scaffold_step(
            weights, memory, update, share, server_learning_rate=1.0, local_move=STEPS * RATE
        )
        x, c = x + np.mean(dys, axis=0), c + share * np.mean(dcs, axis=0)
        np.testing.assert_allclose(weights["w"], x, atol=1e-12)
        np.testing.assert_allclose(memory[CONTROL + "w"], c, atol=1e-12)


def test_it_reaches_the_optimum_that_fedavg_misses(convex: Convex) -> None:
    weights = {"w": np.zeros(4)}
    memory = scaffold_start(weights)
    mine = {name: np.zeros(4) for name in convex.hospitals}
    for _ in range(300):
        c, updates = memory[CONTROL + "w"], []
        for name, hospital in convex.hospitals.items():
            updates.append(hospital.train(weights["w"], STEPS, RATE, c - mine[name]))
            mine[name] = mine[name] - c - updates[-1] / (STEPS * RATE)
        weights, memory = scaffold_step(
            weights,
            memory,
            {"w": np.mean(updates, axis=0)},
            1.0,
            server_learning_rate=1.0,
            local_move=STEPS * RATE,
        )
    drift = np.linalg.norm(convex.fixed_point(STEPS, RATE) - convex.optimum)
    assert drift > 0.02
    assert np.linalg.norm(weights["w"] - convex.optimum) < 1e-6
