"""Strategies and turns through the real hospitals: everybody spends what the document lets them, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.ledger.accounting import epsilon_of
from tests.client.reserving import plan_noise
from tests.federation.embedded import HOSPITALS, entries, play

QUIET = ("evaluation.arms=[]", "federation.rounds=3", "evaluation.every=3")
RATE, STEPS = 0.8, 3


@pytest.mark.parametrize(
    ("overrides", "turns", "steps"),
    [
        (["strategy=fedprox"], 3, STEPS),
        (["strategy=scaffold", "training.final_rate=0.5"], 3, STEPS),
        (["strategy=ditto"], 3, 2 * STEPS),
        (["strategy=mr_mtl"], 3, STEPS),
        (["strategy=cyclic"], 1, STEPS),
        (["federation.participation=0.67", "strategy.ema=0.5", "evaluation.deliver=best"], 2, STEPS),
        (["strategy.weighting=inverse_noise_variance", "wire.up=float16"], 3, STEPS),
    ],
    ids=["fedprox", "scaffold", "ditto", "mr_mtl", "cyclic", "turns", "by noise"],
)
def test_each_hospital_plans_its_noise_for_its_own_turns(
    ground: Path, request: pytest.FixtureRequest, overrides: list[str], turns: int, steps: int
) -> None:
    name = request.node.callspec.id.replace(" ", "-")
    ended = play(ground, f"strategy-{name}", *QUIET, *overrides)
    assert ended.results.dropped == {}
    noise = plan_noise([], RATE, steps * turns, 8.0, 1e-4)
    for hospital in HOSPITALS:
        trained = [entry.mechanism for entry in entries(ended.folder, hospital) if entry.use.cohort == "train"]
        assert {(m.noise_multiplier, m.count) for m in trained} == {(noise, steps)}
        assert len(trained) == turns
        assert 7.5 < epsilon_of(trained, 1e-4) <= 8
        assert ended.results.epsilon[hospital] == pytest.approx(epsilon_of(trained, 1e-4))
