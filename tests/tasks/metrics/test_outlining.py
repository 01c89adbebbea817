"""Figures of outlines from histograms against the raw numbers, and what noise does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.metrics.outlining import OutlineHistograms, dice_histogram, distance_histogram, pooled

Fractions = NDArray[np.float64]
NAN = math.nan


def patients(seed: int = 0, number: int = 400) -> tuple[Fractions, Fractions, Fractions]:
    """Dice, distance and wrongly marked fraction; a quarter of the patients lack the structure."""
    rng = np.random.default_rng(seed)
    have = np.arange(number) % 4 > 0
    dice = np.where(have, rng.beta(8, 2, number), NAN)
    distance = np.where(have, rng.beta(1.5, 30, number), NAN)
    wrongly = np.where(have, NAN, np.where(rng.random(number) < 0.4, rng.beta(1, 20, number), 0.0))
    return dice, distance, wrongly


def outlines(
    of: tuple[Fractions, Fractions, Fractions], bins: int = 1024, noise: float = 0.0, seed: int = 0
) -> OutlineHistograms:
    dice, distance, wrongly = of
    cells = dice_histogram(dice, wrongly, bins), distance_histogram(distance, bins)
    rng = np.random.default_rng(seed)
    return OutlineHistograms(*(c + rng.normal(0, noise, c.shape) for c in cells), noise)


def test_every_patient_is_in_one_cell_of_each_at_most() -> None:
    told = outlines(patients())
    assert told.dice.sum(axis=1).tolist() == [100, 300]
    assert told.distance.sum() == 300
    assert (told.with_structure(), told.without_structure()) == (300, 100)


def test_exact_figures_are_those_of_the_raw_numbers() -> None:
    dice, distance, wrongly = patients()
    told = outlines(patients())
    mean, far, marked = told.mean_dice(), told.mean_distance(), told.wrongly_marked()
    assert mean is not None
    assert far is not None
    assert marked is not None
    assert mean.value == pytest.approx(np.nanmean(dice), abs=1e-3)
    assert far.value == pytest.approx(np.nanmean(distance), abs=1e-3)
    assert marked.value == pytest.approx(np.mean(wrongly[~np.isnan(wrongly)] > 0))
    assert told.dice_quartiles() == pytest.approx(np.nanquantile(dice, [0.25, 0.5, 0.75]), abs=0.01)
    assert told.distance_quartiles() == pytest.approx(np.nanquantile(distance, [0.25, 0.5, 0.75]), abs=0.01)
    error = np.nanstd(dice) / math.sqrt(300)
    assert (mean.high - mean.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_intervals_hold_the_truth_about_as_often_as_they_say(noise: float) -> None:
    """The true mean of Beta(8, 2) is 0.8. Few bins are what a noised study asks for; their width biases by less than a
    hundredth here."""
    inside = 0
    for seed in range(200):
        mean = outlines(patients(seed), 16, noise, seed).mean_dice()
        assert mean is not None
        inside += mean.low <= 0.8 <= mean.high
    assert 0.9 <= inside / 200 <= 1.0


def test_noise_that_hides_everybody_leaves_no_point() -> None:
    few = patients(number=8)
    found = outlines(few, 16, 50.0).mean_dice()
    assert found is not None
    assert not found.firm
    assert outlines(few, 16, 50.0).dice_quartiles() is None


def test_missed_structures_count_as_nothing_and_not_as_half_a_cell() -> None:
    """Four of five are missed: in 16 cells without one for zero, a Dice of 0.16 reads 0.185."""
    dice = np.r_[np.zeros(80), np.full(20, 0.8)]
    found = OutlineHistograms(dice_histogram(dice, np.full(100, NAN), 16), np.zeros(16)).mean_dice()
    assert found is not None
    assert found.value == pytest.approx(0.16, abs=0.007)
    assert found.low < 0.16 < found.high


def test_nothing_marked_counts_as_the_whole_diagonal() -> None:
    cells = distance_histogram([1.0, 0.999, 0.0], 16)
    assert np.flatnonzero(cells).tolist() == [0, 14, 15]
    found = OutlineHistograms(np.zeros((2, 16)), distance_histogram(np.ones(50), 16)).mean_distance()
    assert found is not None
    assert found.value == 1.0


def test_pooling_adds_patients_and_noises() -> None:
    both = pooled([outlines(patients(1), 16, 3.0), outlines(patients(2), 16, 4.0)])
    assert both.noise == pytest.approx(5.0)
    assert pooled([outlines(patients(1)), outlines(patients(2))]).with_structure() == 600


def test_nothing_marked_in_vain_has_a_cell_of_its_own() -> None:
    cells = dice_histogram([NAN, NAN, NAN], [0.0, 1e-9, 1.0], 16)
    assert np.flatnonzero(cells[0]).tolist() == [0, 1, 15]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(2, 64))
def test_one_patient_more_changes_one_cell_by_one(values: list[float], bins: int) -> None:
    for count in (lambda v: dice_histogram(v, [NAN] * len(v), bins), lambda v: distance_histogram(v, bins)):
        difference = count(values) - count(values[:-1])
        assert sorted(np.unique(difference).tolist()) in ([0.0, 1.0], [1.0])
        assert difference.sum() == 1


@pytest.mark.parametrize(("dice", "wrongly"), [([1.5], [NAN]), ([NAN], [-0.1]), ([0.5], [0.5]), ([math.inf], [NAN])])
def test_numbers_that_are_no_fractions_are_refused(dice: list[float], wrongly: list[float]) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|has the structure or not"):
        dice_histogram(dice, wrongly, 8)
