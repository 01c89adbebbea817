"""The noise is Gaussian, of the right size, never twice the same, and leaves no trace of what it covers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from client.training import noise
from client.training.noise import Entropy, draws, entropy, noised, roundings, uniform

MANY = 200_000


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("generator", [seeded(), entropy()], ids=["seeded", "entropy"])
def test_it_is_gaussian(generator: torch.Generator) -> None:
    """Kolmogorov and Smirnov at 1e-6: one false alarm in a million runs of the entropy case."""
    drawn = noised(torch.zeros(MANY, dtype=torch.float64), 3.0, generator).numpy()
    assert stats.kstest(drawn / 3, "norm").pvalue > 1e-6
    assert abs(stats.kurtosis(drawn)) < 6 * math.sqrt(24 / MANY)


def test_coordinates_and_calls_are_independent() -> None:
    generator = entropy()
    first, second = (noised(torch.zeros(MANY, dtype=torch.float64), 1.0, generator).numpy() for _ in range(2))
    limit = 6 / math.sqrt(MANY)
    half = noise._BLOCK // 2
    assert abs(np.corrcoef(first, second)[0, 1]) < limit
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < limit
    assert abs(np.corrcoef(first[:-half], first[half:])[0, 1]) < limit, "cosine and sine of one pair"


def test_the_tail_is_there() -> None:
    """Of a million draws about 63 lie beyond 4 standard deviations; a sampler that stops short has none."""
    drawn = noised(torch.zeros(1_000_000), 1.0, seeded())
    assert 20 < int((drawn.abs() > 4).sum()) < 130


@settings(max_examples=30, deadline=None)
@given(std=st.floats(1e-6, 1e6), value=st.floats(-1e4, 1e4), seed=st.integers(0, 1000))
def test_what_comes_out_lies_on_a_grid_that_does_not_depend_on_the_value(std: float, value: float, seed: int) -> None:
    """The holes that tell a summand from another (Mironov 2012) are coarser than the noise's own steps, so: none."""
    grid = 2.0 ** (math.floor(math.log2(std)) - 20)
    out = noised(torch.full((50,), value, dtype=torch.float64), std, seeded(seed)) / grid
    assert torch.equal(out, out.round())


def test_the_attack_on_floating_point_noise_works_on_plain_noise_and_not_on_ours() -> None:
    """A release near zero of 1/3 plus noise is a difference of numbers near 1/3, so its last bits are all zero."""

    def tells(release: torch.Tensor) -> float:
        """Share of releases near zero that cannot have come from 1/3."""
        near = release[release.abs() < 2**-6].double() * 2**25
        return float((near != near.round()).double().mean())

    def plain(value: float) -> torch.Tensor:
        return torch.full((MANY,), value) + torch.randn(MANY, generator=seeded())

    assert tells(plain(0.0)) > 0.9
    assert tells(plain(1 / 3)) == 0
    assert tells(noised(torch.zeros(MANY), 1.0, seeded())) == 0
    assert tells(noised(torch.full((MANY,), 1 / 3), 1.0, seeded())) == 0


def test_a_value_off_the_grid_is_not_moved_on_average() -> None:
    values = torch.full((MANY,), 0.3)
    assert noised(values, 0.01, seeded()).double().mean().item() == pytest.approx(0.3, abs=6 * 0.01 / math.sqrt(MANY))


def test_no_noise_leaves_the_values_alone_and_nonsense_is_refused() -> None:
    values = torch.rand(5)
    assert torch.equal(noised(values, 0.0, seeded()), values)
    for std in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="standard deviation"):
            noised(values, std, seeded())


def test_shape_and_type_stay() -> None:
    for dtype in (torch.float32, torch.float64):
        out = noised(torch.zeros((3, 5, 7), dtype=dtype), 1.0, seeded())
        assert out.shape == (3, 5, 7)
        assert out.dtype == dtype


def test_odd_counts_are_filled() -> None:
    assert noised(torch.zeros(1), 1.0, seeded()).item() != 0
    assert (noised(torch.zeros(noise._BLOCK + 1), 1.0, seeded()) != 0).all()


def test_entropy_never_repeats_whatever_torch_is_seeded_with() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        generator = entropy()
        generator.manual_seed(0)
        drawn.append(torch.cat([noised(torch.zeros(8), 1.0, generator), uniform(8, generator).float()]))
    assert not (drawn[0] == drawn[1]).any()


@pytest.mark.parametrize(("seed", "noise"), [(None, 0.0), (None, 1.0), (3, 1.0), (3, 1e-9)])
def test_whoever_is_protected_is_drawn_from_entropy(seed: int | None, noise: float) -> None:
    assert isinstance(draws(seed, noise, "alder", 1), Entropy)


def test_draws_without_noise_repeat_for_the_same_hospital_round_and_step_only() -> None:
    def drawn(seed: int, *what: str | int) -> list[float]:
        generator = draws(seed, 0.0, *what)
        return [*uniform(8, generator).tolist(), *torch.rand(8, generator=generator).tolist()]

    assert drawn(3, "alder", 1, 0) == drawn(3, "alder", 1, 0)
    others = [(4, "alder", 1, 0), (3, "birch", 1, 0), (3, "alder", 2, 0), (3, "alder", 1, 10), (3, "alder", 11, 0)]
    assert len({tuple(drawn(seed, *what)) for seed, *what in [(3, "alder", 1, 0), *others]}) == 6


def test_noise_is_never_drawn_from_a_public_seed() -> None:
    generator = draws(3, 0.0, "alder", 1)
    assert torch.equal(noised(torch.ones(4), 0.0, generator), torch.ones(4))
    with pytest.raises(ValueError, match="public seed protects nobody"):
        noised(torch.ones(4), 1e-6, generator)


def test_roundings_repeat_for_the_same_hospital_and_round_only() -> None:
    def drawn(seed: int | None, *what: str | int) -> tuple[float, ...]:
        return tuple(roundings(seed, *what).random(8))

    assert drawn(3, "alder", 1) == drawn(3, "alder", 1)
    assert len({drawn(3, "alder", 1), drawn(3, "birch", 1), drawn(3, "alder", 2), drawn(None), drawn(None)}) == 5


def test_what_torch_draws_from_it_does_not_repeat_either() -> None:
    """Which of a patient's images are looked at first."""
    assert not torch.equal(torch.rand(8, generator=entropy()), torch.rand(8, generator=entropy()))


def test_a_torch_generator_has_only_32_bits_of_seed() -> None:
    """Why production noise does not come from one. Should torch change this, the module's text must change too."""
    one, other = seeded(5), seeded(5 + 2**40)
    assert torch.equal(torch.randn(100, generator=one), torch.randn(100, generator=other))


def test_entropy_is_not_torchs_stream() -> None:
    """Whoever finds the 32 bits with which an ``Entropy`` orders images has not found its noise."""
    generator = Entropy()
    same = torch.Generator()
    same.set_state(generator.get_state())
    assert not torch.equal(noised(torch.zeros(8), 1.0, generator), noised(torch.zeros(8), 1.0, same))


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 1000), seed=st.integers(0, 1000))
def test_uniform_is_above_zero_and_at_most_one(count: int, seed: int) -> None:
    drawn = uniform(count, seeded(seed))
    assert drawn.shape == (count,)
    assert ((drawn > 0) & (drawn <= 1)).all()


def test_uniform_is_uniform() -> None:
    assert stats.kstest(uniform(MANY, entropy()).numpy(), "uniform").pvalue > 1e-6
