"""A private step is the step that the formula says, whatever the model, the chunks and the number of patients."""

from __future__ import annotations

import logging
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets import SegResNet
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from client.errors import ModelRefused
from client.privacy import PatientSteps, StepTerms, refuse_unprivate_layers, sampled_patients
from client.training.gradients import PatientGradients, Route
from client.training.noise import entropy

SGD = partial(torch.optim.SGD, lr=1.0)
ALMOST_NONE = 1e-9  # noise so small that the clipped sum shows, and yet not zero, which would switch clipping off


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vector_of(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def clipped_mean(module: nn.Module, inputs: Tensor, labels: Tensor, clip: float, expected: float) -> Tensor:
    """The step's direction by the formula, one patient after the other."""
    total = torch.zeros(len(vector_of(module)))
    for images, targets in zip(inputs, labels, strict=True):
        each = torch.autograd.grad(binary_cross_entropy_with_logits(module(images), targets), list(module.parameters()))
        row = torch.cat([g.flatten() for g in each])
        total += row * min(1.0, clip / float(row.norm()))
    return total / expected


@settings(max_examples=15, deadline=None)
@given(
    patients=st.integers(1, 9),
    images=st.integers(1, 4),
    at_once=st.integers(1, 5),
    clip=st.floats(0.01, 10),
    expected=st.floats(1, 20),
)
def test_a_step_is_the_clipped_sum_over_the_expected_number(
    patients: int, images: int, at_once: int, clip: float, expected: float
) -> None:
    """Uneven last chunks as well: none is dropped and none counts more."""
    torch.manual_seed(patients)
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    inputs, labels = torch.randn(patients, images, 6) * 3, torch.randint(0, 2, (patients, images, 1)).float()
    before, direction = vector_of(module), clipped_mean(module, inputs, labels, clip, expected)

    terms = StepTerms(ALMOST_NONE, clip, expected, 64)
    steps = PatientSteps(module, binary_cross_entropy_with_logits, SGD, terms, seeded())
    steps._gradients.patients_at_once = at_once
    steps.step(list(range(patients)), lambda chosen: (inputs[chosen], labels[chosen]))
    assert torch.allclose(before - vector_of(module), direction, atol=2e-6 + 1e-4 * float(direction.norm()))


def test_a_segmentation_step_in_chunks_is_the_same() -> None:
    torch.manual_seed(0)
    module = SegResNet(spatial_dims=2, init_filters=8, in_channels=1, out_channels=1)
    inputs, labels = torch.rand(5, 2, 1, 32, 32), torch.randint(0, 2, (5, 2, 1, 32, 32)).float()
    before, direction = vector_of(module), clipped_mean(module, inputs, labels, 0.05, 4.0)
    steps = PatientSteps(
        module, binary_cross_entropy_with_logits, SGD, StepTerms(ALMOST_NONE, 0.05, 4.0, 256), seeded()
    )
    steps.step([0, 1, 2, 3, 4], lambda chosen: (inputs[chosen], labels[chosen]))
    assert steps.route is Route.EACH
    assert torch.allclose(before - vector_of(module), direction, atol=1e-6)


def test_without_noise_it_is_plain_sgd() -> None:
    """Momentum and weight decay as well; nothing is clipped, because clipping without noise protects nobody."""
    sgd = partial(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=0.01)
    torch.manual_seed(0)
    module, other = nn.Linear(4, 1), nn.Linear(4, 1)
    other.load_state_dict(module.state_dict())
    inputs, labels = 100 * torch.randn(6, 2, 4), torch.randint(0, 2, (6, 2, 1)).float()
    steps = PatientSteps(module, binary_cross_entropy_with_logits, sgd, StepTerms(0.0, 0.01, 6, 64), seeded())
    optimizer = sgd(other.parameters())
    for _ in range(3):
        steps.step(list(range(6)), lambda chosen: (inputs[chosen], labels[chosen]))
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(other(inputs.flatten(0, 1)), labels.flatten(0, 1)).backward()
        optimizer.step()
    assert torch.allclose(vector_of(module), vector_of(other), rtol=1e-5)


def test_without_noise_patients_are_clipped_where_the_terms_say_so() -> None:
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    inputs, labels = 3 * torch.randn(6, 2, 4), torch.randint(0, 2, (6, 2, 1)).float()
    before, direction = vector_of(module), clipped_mean(module, inputs, labels, 0.01, 6.0)
    terms = StepTerms(0.0, 0.01, 6.0, 64, clip_always=True)
    steps = PatientSteps(module, binary_cross_entropy_with_logits, SGD, terms, seeded())
    steps.step(list(range(6)), lambda chosen: (inputs[chosen], labels[chosen]))
    assert torch.allclose(before - vector_of(module), direction, rtol=1e-4, atol=1e-7)


def test_patients_are_drawn_as_many_at_a_time_as_are_in_hand() -> None:
    """So that memory does not grow with the number of patients that a step samples."""
    inputs, labels = torch.rand(200, 1, 1000), torch.ones(200, 1, 1)
    asked: list[list[int]] = []

    def draw(chosen: list[int]) -> tuple[Tensor, Tensor]:
        asked.append(chosen)
        return inputs[chosen], labels[chosen]

    steps = PatientSteps(
        nn.Linear(1000, 1), binary_cross_entropy_with_logits, SGD, StepTerms(1.0, 1.0, 50, 1), seeded()
    )
    steps.prepare(torch.zeros(1, 1, 1000), torch.zeros(1, 1, 1))
    assert asked == [], "how much memory a patient takes is found out from nobody"
    steps.step(list(range(200)), draw)
    chunks = asked
    assert [p for chunk in chunks for p in chunk] == list(range(200))
    assert max(len(chunk) for chunk in chunks) == steps.patients_at_once < 200


def test_noise_comes_once_a_step_however_many_chunks() -> None:
    spread = []
    for at_once in (1, 10):
        module = nn.Linear(20_000, 1, bias=False)
        before = vector_of(module)
        steps = PatientSteps(module, mse_loss, SGD, StepTerms(2.0, 0.5, 1.0, 64), seeded())
        steps._gradients.patients_at_once = at_once
        steps.step(
            list(range(10)), lambda chosen: (torch.zeros(len(chosen), 1, 20_000), torch.zeros(len(chosen), 1, 1))
        )
        spread.append(float((vector_of(module) - before).std()))
    assert spread[0] == pytest.approx(1.0, rel=0.03)
    assert spread[0] == spread[1]


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_a_patient_whose_gradient_is_not_finite_counts_as_zero(value: float, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise an error, or a ruined update, would tell that the patient is there."""
    inputs, labels = torch.ones(3, 1, 4), torch.ones(3, 1, 1)
    inputs[1] = value
    module = nn.Linear(4, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    before = vector_of(module)
    steps = PatientSteps(module, binary_cross_entropy_with_logits, SGD, StepTerms(1e-6, 1.0, 1.0, 64), seeded())
    steps._gradients.patients_at_once = 3
    with caplog.at_level(logging.WARNING, "client.privacy"):
        steps.step([0, 1, 2], lambda chosen: (inputs[chosen], labels[chosen]))
    moved = vector_of(module) - before
    assert moved.isfinite().all()
    assert float(moved.norm()) <= 3.001
    if not math.isfinite(value):
        assert float(moved.norm()) == pytest.approx(2.0, rel=1e-3)
        assert "1 of 3 gradients are not finite" in caplog.text


def _one_step(gradients: list[float], clip: float) -> float:
    """The step of either of two weights, whose patients have these gradients in both."""
    module = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(module.weight)
    steps = PatientSteps(module, lambda outputs, _: outputs.mean(), SGD, StepTerms(1e-9, clip, 1.0, 1024), seeded())
    inputs = torch.tensor(gradients).reshape(-1, 1, 1).repeat(1, 1, 2)
    steps.prepare(inputs[:1], torch.zeros(1, 1, 1))
    steps.step(list(range(len(gradients))), lambda chosen: (inputs[chosen], torch.zeros(len(chosen), 1, 1)))
    return module.weight[0, 1].item()


def test_the_sum_keeps_what_single_precision_would_lose() -> None:
    """Else rounding moves the sum by more than the noise's grid, in an order that tells who is there."""
    tiny = 2.0**-20
    assert _one_step([1.0] * 64 + [tiny] + [-1.0] * 64, clip=2.0) == pytest.approx(-tiny, rel=0.05)


def test_a_gradient_whose_square_is_beyond_single_precision_is_clipped_and_not_lost() -> None:
    assert _one_step([1e25], clip=0.5) == pytest.approx(-(0.5**1.5))


@pytest.mark.parametrize("clipped", [False, True])
def test_without_noise_a_gradient_that_is_not_finite_shows(clipped: bool) -> None:
    module = nn.Linear(4, 1)
    terms = StepTerms(0.0, 1.0, 1.0, 64, clip_always=clipped)
    steps = PatientSteps(module, binary_cross_entropy_with_logits, SGD, terms, seeded())
    steps.step([0], lambda chosen: (torch.full((1, 1, 4), math.nan), torch.ones(1, 1, 1)))
    assert vector_of(module).isnan().any()


@settings(max_examples=20, deadline=None)
@given(patients=st.integers(1, 40), rate=st.floats(0.01, 1.0), steps=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_sample_holds_each_patient_at_most_once(patients: int, rate: float, steps: int, seed: int) -> None:
    drawn = list(sampled_patients(patients, rate, steps, seeded(seed)))
    assert len(drawn) == steps
    for chosen in drawn:
        assert chosen == sorted(set(chosen))
        assert all(0 <= p < patients for p in chosen)


def test_patients_join_independently_with_the_given_probability() -> None:
    """The size of a Poisson sample has the binomial's mean and variance; a shuffled fixed batch has no variance."""
    sizes = torch.tensor([float(len(c)) for c in sampled_patients(200, 0.3, 4000, entropy())])
    assert float(sizes.mean()) == pytest.approx(60, abs=6 * math.sqrt(42 / 4000))
    assert float(sizes.var()) == pytest.approx(42, rel=0.15)


def test_a_rate_of_one_takes_everybody() -> None:
    assert list(sampled_patients(50, 1.0, 3, entropy())) == [list(range(50))] * 3


def test_every_layer_that_mixes_patients_is_named() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.InstanceNorm2d(4, track_running_stats=True))
    with pytest.raises(ModelRefused) as refused:
        refuse_unprivate_layers(module)
    assert "BatchNorm" in str(refused.value)
    assert "InstanceNorm" in str(refused.value)
    refuse_unprivate_layers(nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)))


def test_augmented_copies_are_more_rows_of_the_same_patient() -> None:
    """De et al. (2022): the mean of a patient's gradient over its copies. K times M rows give just that."""
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    image, label = torch.randn(1, 1, 4), torch.ones(1, 1, 1)
    flipped = image.flip(-1)
    gradients = PatientGradients(module, binary_cross_entropy_with_logits, 64)
    one, other = gradients.compute(image, label), gradients.compute(flipped, label)
    both = gradients.compute(torch.cat([image, flipped], dim=1), label.expand(1, 2, 1))
    assert torch.allclose(both, (one + other) / 2)
