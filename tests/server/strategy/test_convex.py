"""Every strategy on hospitals with different optima: it goes where theory says that it goes.

With one local step FedAvg is gradient descent and finds the optimum of the sum of all losses; with several it rests at
a point that is known too. Robust strategies are asked for the optimum of hospitals that agree, with attackers among
them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from conf.schema.strategy import (
    Cyclic,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    NormBounding,
    StrategySettings,
    TrimmedMean,
)
from server.strategy.registry import build
from tests.server.strategy.convex import Convex, Vector

MEANS: dict[str, tuple[StrategySettings, int]] = {
    "fedavg": (FedAvg(), 300),
    "fedavgm": (FedAvgM(server_learning_rate=0.3), 300),
    "fedadagrad": (FedAdagrad(server_learning_rate=0.3), 400),
    "fedadam": (FedAdam(server_learning_rate=0.02, tau=0.01), 3000),
    "fedyogi": (FedYogi(server_learning_rate=0.02, tau=0.01), 3000),
    "norm_bounding": (NormBounding(norm_bound=10), 300),  # longer than any honest update
}
ROBUST: dict[str, StrategySettings] = {
    "median": Median(),
    "trimmed_mean": TrimmedMean(trim=0.34),
    "krum": Krum(attackers=2),
    "multi_krum": MultiKrum(attackers=2, selected=3),
    "geometric_median": GeometricMedian(),
}
ATTACKS: dict[str, Callable[[Vector], Vector]] = {
    "sign": lambda update: -10 * update,
    "scaled": lambda update: 1e6 * (update + 1),
    "huge": lambda update: np.full_like(update, 1e30),
    "free rider": np.zeros_like,
}


def play(settings: StrategySettings, convex: Convex, steps: int, rounds: int, attacks: dict[str, str]) -> Vector:
    """The model after so many rounds in which the hospitals of ``attacks`` send something else."""
    strategy = build(settings)
    weights = {"w": np.zeros(4)}
    memory = strategy.start(weights)
    for number in range(1, rounds + 1):
        invited = strategy.invited(list(convex.hospitals), number)
        combiner = strategy.combiner(weights, len(invited))
        for name in invited:
            update = convex.hospitals[name].train(weights["w"], steps, 0.2)
            sent = ATTACKS[attacks[name]](update) if name in attacks else update
            combiner.add(name, {"w": sent}, strategy.weight(100, None))
        share = len(invited) / len(convex.hospitals)
        weights, memory = strategy.step(weights, memory, combiner.combined(), share)
    return weights["w"]


@pytest.mark.parametrize("name", MEANS)
def test_with_one_local_step_a_mean_finds_the_optimum(name: str, convex: Convex) -> None:
    settings, rounds = MEANS[name]
    found = play(settings, convex, steps=1, rounds=rounds, attacks={})
    assert np.linalg.norm(found - convex.optimum) < 2e-3


@pytest.mark.parametrize("name", ["fedavg", "fedavgm"])
def test_with_several_it_rests_where_drift_leads_it(name: str, convex: Convex) -> None:
    found = play(MEANS[name][0], convex, steps=5, rounds=600, attacks={})
    np.testing.assert_allclose(found, convex.fixed_point(5, 0.2), atol=1e-8)
    assert np.linalg.norm(found - convex.optimum) > 0.02


def test_cyclic_rests_in_a_cycle_of_its_own(convex: Convex) -> None:
    """One hospital after another is a linear map; its fixed point is known."""
    eye, a, b = np.eye(4), np.eye(4), np.zeros(4)
    for name in sorted(convex.hospitals):
        hospital = convex.hospitals[name]
        keep = np.linalg.matrix_power(eye - 0.2 * hospital.curvature, 3)
        a, b = keep @ a, keep @ b + (eye - keep) @ hospital.best
    found = play(Cyclic(), convex, steps=3, rounds=6 * 60, attacks={})
    np.testing.assert_allclose(found, np.linalg.solve(eye - a, b), atol=1e-8)


def agreeing(convex: Convex) -> Convex:
    """Hospitals whose patients are alike: one optimum, different curvatures; a seventh is needed for Krum."""
    first = next(iter(convex.hospitals.values()))
    again = {name: type(h)(h.curvature, first.best) for name, h in convex.hospitals.items()}
    return Convex(again | {"gum": first})


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ROBUST)
def test_two_attackers_of_seven_do_not_keep_a_robust_strategy_from_the_optimum(
    name: str, attack: str, convex: Convex
) -> None:
    problem = agreeing(convex)
    found = play(ROBUST[name], problem, steps=3, rounds=150, attacks={"birch": attack, "fir": attack})
    # Free riders stand still, and so does the model once honest updates scatter around nothing as widely as they move.
    tolerance = 0.05 if attack == "free rider" else 1e-3
    assert np.linalg.norm(found - problem.optimum) < tolerance


def test_the_same_two_carry_fedavg_away_and_norm_bounding_stays_near(convex: Convex) -> None:
    problem, attacks = agreeing(convex), {"birch": "scaled", "fir": "scaled"}
    assert np.linalg.norm(play(FedAvg(), problem, 3, 5, attacks) - problem.optimum) > 1e3
    bounded = play(NormBounding(norm_bound=0.05), problem, 3, 300, attacks)
    assert np.linalg.norm(bounded - problem.optimum) < 0.5
