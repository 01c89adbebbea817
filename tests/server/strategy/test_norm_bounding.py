"""Nobody moves the model further than the bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.strategy.norm_bounding import BoundedMean
from server.strategy.strategy import norm

MODEL = {"a": np.zeros(1), "b": np.zeros(1)}


def reply(a: float, b: float) -> dict[str, np.ndarray]:
    return {"a": np.array([a]), "b": np.array([b])}


def test_a_round_by_hand() -> None:
    """(3, 4) has length 5 and comes down to (0.6, 0.8); (0, 0.5) stays."""
    mean = BoundedMean(MODEL, norm_bound=1.0)
    mean.add("alder", reply(3.0, 4.0), 1.0)
    mean.add("birch", reply(0.0, 0.5), 3.0)
    update = mean.combined()
    assert update["a"][0] == pytest.approx(0.6 / 4)
    assert update["b"][0] == pytest.approx((0.8 + 1.5) / 4)


def test_the_norm_is_over_all_tensors_and_in_float64() -> None:
    assert norm({"a": np.array([[3.0]], np.float16), "b": np.array([4.0], np.float32)}) == 5.0
    assert norm({"a": np.full(4, 1e30, np.float32)}) == pytest.approx(2e30)


def test_an_update_of_nothing_is_nothing() -> None:
    mean = BoundedMean(MODEL, norm_bound=1.0)
    mean.add("free rider", reply(0.0, 0.0), 1.0)
    assert mean.combined()["a"].tolist() == [0.0]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.floats(1.0, 1e30), st.integers(0, 2**32 - 1))
def test_an_attacker_moves_the_mean_by_its_share_of_the_bound_at_most(honest: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    alone, attacked = BoundedMean(MODEL, 2.0), BoundedMean(MODEL, 2.0)
    for hospital in range(honest):
        update = reply(*rng.normal(size=2))
        alone.add(str(hospital), update, 1.0)
        attacked.add(str(hospital), update, 1.0)
    alone.add("attacker", reply(0.0, 0.0), 1.0)
    attacked.add("attacker", reply(*(scale * rng.normal(size=2))), 1.0)
    before, after = alone.combined(), attacked.combined()
    assert norm(after) <= 2.0 * (1 + 1e-12)
    assert norm({name: after[name] - before[name] for name in MODEL}) <= 2.0 / (honest + 1) * (1 + 1e-9)
