"""Words on a grid: what is added up comes back, whatever the parts, and noise is what it claims to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.protocol.secure_sum import Grid, decode, encode, grid, share

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20).map(np.array)


@given(st.lists(values, min_size=1, max_size=6), st.sampled_from([32, 64]), st.integers(-20, 3))
def test_a_sum_of_words_is_the_sum_of_the_values_on_the_grid(parts: list[np.ndarray], bits: int, power: int) -> None:
    size = min(map(len, parts))
    common = Grid(2.0**power, bits)
    if bits == 32 and sum(np.abs(part).max() for part in parts) / common.step > 2**30:
        return
    words = np.zeros(size, common.dtype)
    for part in parts:
        words += encode(part[:size], common)
    exact = sum(np.round(part[:size] / common.step) for part in parts) * common.step
    assert np.array_equal(decode(words, common), exact)


def test_a_sum_beyond_the_range_wraps_and_the_grid_takes_wider_words_in_time() -> None:
    common = Grid(1.0, 32)
    assert decode(encode(np.array([2.0**31]), common), common)[0] == -(2.0**31)
    small = grid(1.0, 0.25, hospitals=10, colluding=1, patients=2_000)
    large = grid(1.0, 0.25, hospitals=10, colluding=1, patients=2_000_000)
    assert (small.bits, large.bits) == (32, 64)
    for one, patients in ((small, 2_000), (large, 2_000_000)):
        assert 4 * patients * 0.25 / one.step < 2 ** (one.bits - 1)


@given(st.floats(0.3, 1e4), st.floats(1e-6, 1e6), st.integers(3, 300), st.integers(1, 2))
def test_the_grid_is_at_least_two_to_the_twelve_times_finer_than_one_share(
    noise: float, clip: float, hospitals: int, colluding: int
) -> None:
    common = grid(noise, clip, hospitals=hospitals, colluding=colluding, patients=100)
    assert share(noise, hospitals, colluding) * clip / common.step >= 2**12
    assert math.log2(common.step).is_integer()


@given(st.floats(0.3, 1e4), st.integers(3, 300), st.integers(1, 2))
def test_the_honest_shares_together_are_no_less_than_the_noise(noise: float, hospitals: int, colluding: int) -> None:
    honest = hospitals - colluding
    together = share(noise, hospitals, colluding) * math.sqrt(honest)
    assert noise * (1 - 1e-9) <= together <= noise + 1e-4 * math.sqrt(honest) + 1e-9


def test_nobody_honest_shares_nothing() -> None:
    with pytest.raises(ValueError, match="nobody who is honest"):
        share(1.0, 3, 3)
