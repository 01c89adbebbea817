"""What the server believes about a hospital's training, against the hospital's own optimiser."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from client.privacy import PatientSteps, StepTerms
from conf.schema.privacy import Privacy
from conf.schema.training import TrainingSettings
from server.strategy.local_sgd import adam_reach, expected_patients, honest_lengths, noise_std, responses
from tasks.protocol.study import ADAM_BETAS

PRIVACY = Privacy(clip_norm=0.5)


def training(momentum: float = 0.0, sample_rate: float = 0.5) -> TrainingSettings:
    return TrainingSettings(steps=4, learning_rate=2.0, momentum=momentum, sample_rate=sample_rate)


def test_responses_by_hand() -> None:
    assert responses(3, 0.0).tolist() == [1, 1, 1]
    assert responses(3, 0.5).tolist() == [1.75, 1.5, 1]


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_a_constant_gradient_moves_the_model_by_the_sum_of_the_responses(momentum: float) -> None:
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    sgd = torch.optim.SGD([weight], lr=0.3, momentum=momentum)
    for _ in range(5):
        weight.grad = torch.ones_like(weight)
        sgd.step()
    assert weight.item() == pytest.approx(-0.3 * responses(5, momentum).sum())


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_the_noise_of_an_update_is_as_large_as_that_of_a_hospital_without_patients(momentum: float) -> None:
    """40,000 coordinates: the standard deviation is known to 0.35 %, so 2 % is more than five of its own."""
    terms, public_size, noise_multiplier = training(momentum), 50, 1.3
    layer = nn.Linear(40_000, 1, bias=False)
    before = layer.weight.detach().clone()
    private = StepTerms(noise_multiplier, PRIVACY.clip_norm, expected_patients(terms, public_size), max_memory_mb=100)
    sgd = partial(torch.optim.SGD, lr=terms.learning_rate, momentum=momentum)
    steps = PatientSteps(layer, nn.functional.mse_loss, sgd, private, torch.Generator().manual_seed(1))
    for _ in range(terms.steps):
        steps.step([], lambda patients: (torch.zeros(0), torch.zeros(0)))
    measured = float((layer.weight.detach() - before).std())
    assert measured == pytest.approx(noise_std(terms, PRIVACY.clip_norm, noise_multiplier, public_size), rel=0.02)


@pytest.mark.parametrize("sample_rate", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_no_honest_update_is_longer_than_the_bound_and_the_bound_is_not_idle(
    sample_rate: float, momentum: float
) -> None:
    """The worst honest hospital: all its patients pull the same way, each clipped to the full norm."""
    rng, terms, patients, dimension = np.random.default_rng(2), training(momentum, sample_rate), 100, 30
    sigma, r = 1.0, responses(4, momentum)
    sampled = rng.binomial(patients, sample_rate, size=(5000, 4))
    noise = rng.normal(size=(5000, 4, dimension)) * sigma * PRIVACY.clip_norm
    steps = noise.copy()
    steps[:, :, 0] += sampled * PRIVACY.clip_norm
    updates = terms.learning_rate * np.einsum("t,ntd->nd", r, steps) / (sample_rate * patients)
    longest = np.linalg.norm(updates, axis=1).max()
    bound = honest_lengths(terms, PRIVACY.clip_norm, sigma, patients, dimension).longest
    assert longest < bound
    assert bound < 2.5 * longest


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 15), st.floats(0, 0.5), st.sampled_from([1e-4, 1.0, 1e4]), st.integers(0, 2**32 - 1))
def test_adam_moves_no_further_than_its_bound_whatever_the_gradients_are(
    steps: int, decay: float, size: float, seed: int
) -> None:
    """torch's own, with gradients that grow, shrink and turn round as they please."""
    rng = np.random.default_rng(seed)
    terms = TrainingSettings(steps, 0.01, weight_decay=decay, optimizer="adam")
    start = torch.from_numpy(rng.normal(size=20))
    weight = nn.Parameter(start.clone())
    adam = torch.optim.AdamW([weight], lr=0.01, betas=ADAM_BETAS, weight_decay=decay)
    for _ in range(steps):
        weight.grad = torch.from_numpy(rng.normal(size=20) * size * 10 ** rng.uniform(-3, 3))
        adam.step()
    moved, constant = float((weight.detach() - start).norm()), decay * float(start.norm())
    bound = honest_lengths(terms, PRIVACY.clip_norm, 1.0, 100, 20, constant=constant).longest
    assert moved <= bound * (1 + 1e-9)


def test_the_bound_of_adam_is_not_idle() -> None:
    """A gradient that is always the same moves each value by the rate at each step."""
    assert adam_reach(1).tolist() == [1.0]
    assert adam_reach(10).sum() < 1.02 * 10


def test_an_update_of_adam_that_is_nothing_but_noise_is_as_long_as_that_of_a_hospital_without_patients() -> None:
    terms = TrainingSettings(steps=10, learning_rate=0.01, optimizer="adam")
    layer = nn.Linear(40_000, 1, bias=False)
    before = layer.weight.detach().clone()
    private = StepTerms(1.3, PRIVACY.clip_norm, expected_patients(terms, 50), max_memory_mb=100)
    adam = partial(torch.optim.AdamW, lr=0.01, betas=ADAM_BETAS, weight_decay=0.0)
    steps = PatientSteps(layer, nn.functional.mse_loss, adam, private, torch.Generator().manual_seed(1))
    for _ in range(terms.steps):
        steps.step([], lambda patients: (torch.zeros(0), torch.zeros(0)))
    measured = float((layer.weight.detach() - before).std())
    assert measured == pytest.approx(noise_std(terms, PRIVACY.clip_norm, 1.3, 50), rel=0.2)


def test_the_bound_holds_for_a_hospital_that_has_rounded_its_size_down() -> None:
    terms = training(sample_rate=1.0)
    longest = terms.learning_rate * PRIVACY.clip_norm * 149 / 100 * terms.steps  # 149 patients, declared as 100
    assert longest < honest_lengths(terms, PRIVACY.clip_norm, 1e-9, 100, 30).longest


def test_without_noise_there_is_no_bound() -> None:
    with pytest.raises(ValueError, match="without noise"):
        honest_lengths(training(), PRIVACY.clip_norm, 0.0, 100, 30)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.floats(0, 0.95),
    st.floats(0, 1),
    st.floats(0, 2),
    st.floats(0.01, 1.5),
    st.integers(0, 2**32 - 1),
)
def test_updates_under_every_pull_stay_within_the_bound(
    steps: int, momentum: float, decay: float, strength: float, rate: float, seed: int
) -> None:
    """The hospital's own optimiser, step by step, with all its patients pulling as they please."""
    rng = np.random.default_rng(seed)
    terms = TrainingSettings(steps, rate, momentum, decay, sample_rate=0.5)
    size, dimension, sigma = 40, 6, 0.8
    start, extra = rng.normal(size=dimension) * 3, rng.normal(size=dimension)
    x, velocity = start.copy(), np.zeros(dimension)
    toward = rng.normal(size=dimension)
    for _ in range(steps):
        toward = toward if rng.random() < 0.7 else rng.normal(size=dimension)
        patients = rng.binomial(int(1.49 * size), 0.5)
        gradient = patients * PRIVACY.clip_norm * toward / np.linalg.norm(toward)
        gradient += rng.normal(size=dimension) * sigma * PRIVACY.clip_norm
        gradient = gradient / expected_patients(terms, size) + strength * (x - start) + decay * x + extra
        velocity = momentum * velocity + gradient
        x = x - rate * velocity
    constant = decay * float(np.linalg.norm(start)) + float(np.linalg.norm(extra))
    found = honest_lengths(terms, PRIVACY.clip_norm, sigma, size, dimension, 1e-9, strength=strength, constant=constant)
    assert np.linalg.norm(x - start) < found.longest


def test_responses_with_a_pull_are_those_of_the_optimiser() -> None:
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    sgd = torch.optim.SGD([weight], lr=0.3, momentum=0.6)
    for step in range(5):
        weight.grad = torch.full_like(weight, float(step == 1)) + 0.7 * weight.detach()
        sgd.step()
    assert weight.item() == pytest.approx(-0.3 * responses(5, 0.6, 0.3 * 0.7)[1])
    np.testing.assert_allclose(responses(5, 0.6, 1e-12), responses(5, 0.6))


def test_patients_push_as_far_as_half_as_many_again_as_were_declared() -> None:
    """One step in which everybody takes part, at a rate and a clip of one, and hardly any noise."""
    one = TrainingSettings(1, 1.0, 0.0, 0.0, sample_rate=1.0)
    assert honest_lengths(one, 1.0, 1e-9, 200, 10).signal == pytest.approx(1.5)
