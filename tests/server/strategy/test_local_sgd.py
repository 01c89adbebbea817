"""What the server believes about a hospital's training, against the hospital's own optimiser."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from client.privacy import PatientSteps, StepTerms
from conf.schema import Privacy, Training
from server.strategy.local_sgd import expected_patients, honest_norm, noise_std, responses

PRIVACY = Privacy(clip_norm=0.5)


def training(momentum: float = 0.0, sample_rate: float = 0.5) -> Training:
    return Training(steps=4, learning_rate=2.0, momentum=momentum, sample_rate=sample_rate)


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
    assert measured == pytest.approx(noise_std(terms, PRIVACY, noise_multiplier, public_size), rel=0.02)


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
    bound = honest_norm(terms, PRIVACY, sigma, patients, dimension)
    assert longest < bound
    assert bound < 2.5 * longest


def test_the_bound_holds_for_a_hospital_that_has_rounded_its_size_down() -> None:
    terms = training(sample_rate=1.0)
    longest = terms.learning_rate * PRIVACY.clip_norm * 149 / 100 * terms.steps  # 149 patients, declared as 100
    assert longest < honest_norm(terms, PRIVACY, 1e-9, 100, 30)


def test_what_has_no_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="without noise"):
        honest_norm(training(), PRIVACY, 0.0, 100, 30)
    with pytest.raises(ValueError, match="weight_decay=0"):
        honest_norm(Training(weight_decay=0.1), PRIVACY, 1.0, 100, 30)
