"""Three weights of a reply."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.strategy.weighting import by_inverse_noise_variance, by_public_size, uniform

NOISE = st.lists(st.floats(0.01, 100), min_size=2, max_size=8)


def test_by_hand() -> None:
    assert by_public_size(300, None) == 300.0
    assert uniform(300, 0.5) == 1.0
    assert by_inverse_noise_variance(300, 0.5) == 4.0


@given(NOISE, st.integers(0, 2**32 - 1))
def test_no_other_weights_give_a_mean_with_less_noise(noise: list[float], seed: int) -> None:
    std = np.array(noise)

    def variance(weights: np.ndarray) -> float:
        share = weights / weights.sum()
        return float(np.sum(np.square(share * std)))

    best = np.array([by_inverse_noise_variance(1, s) for s in noise])
    other = np.random.default_rng(seed).uniform(0.001, 1, len(noise))
    assert variance(best) <= variance(other) * (1 + 1e-9)
    assert variance(best) <= variance(np.ones(len(noise))) * (1 + 1e-9)


@pytest.mark.parametrize("noise_std", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_there_is_no_weight_without_noise(noise_std: float | None) -> None:
    with pytest.raises(ValueError, match="no weight by noise"):
        by_inverse_noise_variance(100, noise_std)
