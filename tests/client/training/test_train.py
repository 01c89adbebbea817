"""Training one hospital's share of a round, through the function that the hospital's app calls."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from client.cohort.dataset import Cohort
from client.errors import BadOrder, ModelRefused, UpdateNotFinite
from client.ledger.accounting import Mechanism
from client.training.noise import entropy
from client.training.scoring import score_patients, scores_of, tell_patients
from client.training.train import load_weights, train_locally
from tasks import task as tasks
from tasks.models.registry import arrays_of, load_arrays
from tasks.protocol.study import TrainingTerms
from tasks.protocol.wire import Arrays

TASK = tasks.get("breast_ultrasound")
NO_NOISE = 0.0


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cohort_of(patients: int = 30, features: int = 6) -> Cohort:
    """Patients with one to three images each; the first feature tells the label."""
    torch.manual_seed(2)
    rows, images = [], 0
    for patient in range(patients):
        count = 1 + patient % 3
        rows.append(torch.arange(images, images + count))
        images += count
    labels = torch.cat([torch.full((len(r),), float(i % 2)) for i, r in enumerate(rows)])
    inputs = torch.randn(images, features)
    inputs[:, 0] += 4 * labels - 2
    return Cohort(inputs, labels[:, None], rows)


def train(
    module: nn.Module,
    cohort: Cohort,
    noise: float,
    asked: TrainingTerms,
    generator: torch.Generator,
    task: tasks.Task = TASK,
) -> Arrays:
    mechanism = Mechanism(noise, asked.sample_rate, asked.steps)
    size = len(cohort.rows)
    return train_locally(
        module, task, cohort, asked, mechanism=mechanism, clip_norm=1.0, public_size=size, generator=generator
    )


def terms(steps: int = 5, rate: float = 1.0, learning_rate: float = 1.0) -> TrainingTerms:
    return TrainingTerms(steps, learning_rate, 0.0, 0.0, rate, 2)


def test_it_learns_with_noise_and_without() -> None:
    for noise in (NO_NOISE, 0.5):
        module, cohort = nn.Linear(6, 1), cohort_of()
        train(module, cohort, noise, terms(20), seeded())
        scores, labels = score_patients(module, cohort), cohort.patient_labels().numpy()
        assert scores[labels == 1].mean() > scores[labels == 0].mean() + 0.3


def test_the_update_is_new_minus_old_of_every_trainable_tensor() -> None:
    module = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
    module[0].bias.requires_grad_(False)
    before, frozen = arrays_of(module), module[0].bias.clone()
    update = train(module, cohort_of(), 1.0, terms(), entropy())
    assert update.keys() == before.keys() == {"0.weight", "2.weight", "2.bias"}
    for name, after in arrays_of(module).items():
        assert np.array_equal(update[name], after - before[name])
        assert np.abs(update[name]).max() > 0
    assert torch.equal(module[0].bias, frozen)


def test_a_seed_repeats_a_round_and_entropy_does_not() -> None:
    def update(generator: torch.Generator) -> Arrays:
        module = nn.Linear(6, 1)
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
        return train(module, cohort_of(), 1.0, terms(rate=0.4), generator)

    assert np.array_equal(update(seeded())["weight"], update(seeded())["weight"])
    assert not np.array_equal(update(entropy())["weight"], update(entropy())["weight"])


@pytest.mark.parametrize("noise", [NO_NOISE, 0.5])
def test_adam_steps_on_what_is_clipped_and_noised_already(noise: float) -> None:
    """The first step moves each value by the rate, whatever its gradient, and the way that a plain step goes."""
    module, cohort = nn.Linear(6, 1), cohort_of()
    asked = replace(terms(1, learning_rate=0.01), optimizer="adam")
    update = train(module, cohort, noise, asked, seeded())
    moved = np.concatenate([value.reshape(-1) for value in update.values()])
    assert np.allclose(np.abs(moved), 0.01, rtol=1e-3)
    plain = nn.Linear(6, 1)
    load_arrays(plain, {name: value - update[name] for name, value in arrays_of(module).items()})
    gradient = train(plain, cohort, noise, terms(1), seeded())
    assert np.array_equal(np.sign(moved), np.sign(np.concatenate([value.reshape(-1) for value in gradient.values()])))


def test_adam_learns_and_its_decay_shrinks_the_model() -> None:
    shrunk = []
    for decay in (0.0, 1.0):
        module, cohort = nn.Linear(6, 1), cohort_of()
        asked = replace(terms(40, learning_rate=0.05), optimizer="adam", weight_decay=decay)
        train(module, cohort, 0.5, asked, seeded())
        scores, labels = score_patients(module, cohort), cohort.patient_labels().numpy()
        assert scores[labels == 1].mean() > scores[labels == 0].mean() + 0.2
        shrunk.append(float(module.weight.detach().norm()))
    assert shrunk[1] < shrunk[0]


def test_a_patient_with_many_images_counts_as_one_with_one() -> None:
    """The loss is the mean over a patient's images: ten equal images give the gradient of one."""
    inputs, labels = torch.ones(11, 3), torch.ones(11, 1)
    one, ten = Cohort(inputs, labels, [torch.arange(1)]), Cohort(inputs, labels, [torch.arange(1, 11)])
    moved = []
    for cohort in (one, ten):
        module = nn.Linear(3, 1)
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
        moved.append(train(module, cohort, NO_NOISE, terms(1), seeded())["weight"])
    assert np.allclose(moved[0], moved[1])


class Outliner(nn.Module):
    """Answers the question by the brightest pixel, and outlines by a convolution."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.convolution = (nn.Conv2d if dimensions == 2 else nn.Conv3d)(1, 1, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        pixels = self.convolution(inputs).flatten(1)
        return torch.cat([pixels.amax(dim=1, keepdim=True), pixels], dim=1)


@pytest.mark.parametrize("sides", [(8, 8), (6, 6, 6)], ids=["2D", "3D"])
def test_a_task_with_structures_learns_to_outline_what_is_known(sides: tuple[int, ...]) -> None:
    module = Outliner(len(sides))
    inputs = torch.randn(12, 1, *sides)
    masks = (inputs > 0).float().flatten(1)
    targets = torch.cat([torch.full((12, 1), math.nan), masks], dim=1)
    targets[:4] = math.nan  # of two patients nobody knows anything
    task = replace(TASK, example_shape=(1, *sides), structures=(tasks.Structure("lesion", TASK.finding),))

    def loss() -> float:
        return binary_cross_entropy_with_logits(module(inputs)[:, 1:], masks).item()

    before = loss()
    train(module, Cohort(inputs, targets, list(torch.arange(12).view(6, 2))), 0.1, terms(20), seeded(), task)
    assert loss() < before


RUNAWAY = TrainingTerms(60, 1e6, 0.99, 1.0, 1.0, 1)


def test_divergence_is_an_error_and_not_an_update() -> None:
    module = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1))
    with pytest.raises(UpdateNotFinite, match=r"diverged within 60 steps at learning rate 1e\+06"):
        train(module, cohort_of(), NO_NOISE, RUNAWAY, seeded())


def test_with_noise_an_update_that_runs_away_is_zero_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Its code would depend on what patients do to the numbers. The model is as it was, so that what stays is sound."""
    module = nn.Linear(6, 1)
    before = [p.detach().clone() for p in module.parameters()]
    with caplog.at_level(logging.WARNING, "client.training.train"):
        update = train(module, cohort_of(), 1.0, RUNAWAY, seeded())
    assert all((value == 0).all() for value in update.values())
    assert all(torch.equal(p, value) for p, value in zip(module.parameters(), before, strict=True))
    assert "diverged within 60 steps" in caplog.text


def test_too_little_memory_is_told() -> None:
    module, mechanism = nn.Linear(100_000, 1), Mechanism(1.0, 1.0, 5)
    with pytest.raises(ModelRefused, match="1 MiB are allowed"):
        train_locally(
            module,
            TASK,
            cohort_of(features=100_000),
            terms(),
            mechanism=mechanism,
            clip_norm=1.0,
            public_size=30,
            generator=seeded(),
            max_memory_mb=1,
        )


@pytest.mark.parametrize(
    "reserved", [Mechanism(1.0, 1.0, 4), Mechanism(1.0, 0.5, 5)], ids=["fewer steps", "other rate"]
)
def test_steps_that_the_ledger_has_not_reserved_are_not_taken(reserved: Mechanism) -> None:
    module = nn.Linear(6, 1)
    before = arrays_of(module)["weight"]
    with pytest.raises(ValueError, match="not in the ledger"):
        train_locally(
            module,
            TASK,
            cohort_of(),
            terms(5, 1.0),
            mechanism=reserved,
            clip_norm=1.0,
            public_size=30,
            generator=seeded(),
        )
    assert np.array_equal(arrays_of(module)["weight"], before)


def test_weights_that_do_not_fit_are_all_named() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    arrays = arrays_of(module) | {"extra": np.zeros(1, np.float32)}
    arrays["0.weight"] = arrays["0.weight"].astype(np.float64)
    arrays["0.bias"] = np.array([0, math.nan], np.float32)
    del arrays["1.bias"]
    before = arrays_of(module)
    with pytest.raises(BadOrder) as refused:
        load_weights(module, arrays)
    for problem in (
        "0.weight is float64",
        "0.bias has values that are not finite",
        "1.bias is missing",
        "extra is unknown",
    ):
        assert problem in str(refused.value)
    assert all(np.array_equal(before[name], value) for name, value in arrays_of(module).items())


def test_weights_that_fit_are_taken() -> None:
    module = nn.Linear(3, 1)
    wanted = {name: np.full_like(value, 7) for name, value in arrays_of(module).items()}
    load_weights(module, wanted)
    assert all((value == 7).all() for value in arrays_of(module).values())


def test_a_patients_score_is_the_mean_over_its_images() -> None:
    module = nn.Linear(1, 1)
    with torch.no_grad():
        module.weight.fill_(1.0)
        module.bias.zero_()
    cohort = Cohort(
        torch.tensor([[0.0], [100.0], [-100.0]]), torch.zeros(3, 1), [torch.tensor([0, 1]), torch.tensor([2])]
    )
    assert score_patients(module, cohort) == pytest.approx([0.75, 0.0])


EVERY = replace(tasks.get("heart_size"), structures=())
"""A measured value, and a grade as a secondary finding."""


def told_cohort(task: tasks.Task, truths: Tensor, features: Tensor) -> Cohort:
    rows = [torch.tensor([number]) for number in range(len(features))]
    return Cohort(features, truths, rows, answers=task.answers)


@pytest.mark.parametrize("noise", [NO_NOISE, 0.5])
def test_a_measured_value_and_a_grade_are_learnt_together(noise: float) -> None:
    features = torch.nn.functional.normalize(torch.randn(60, 6, generator=seeded(1)))
    ratio = 50 + 18 * features[:, 0]
    grade = (ratio[:, None] > torch.tensor([45.0, 50.0, 55.0])).sum(dim=1).float()
    grade[::7] = math.nan
    cohort = told_cohort(EVERY, torch.stack([ratio, grade], dim=1), features)
    module = nn.Linear(6, EVERY.form.outputs)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    train(module, cohort, noise, terms(60, learning_rate=8.0), seeded(), EVERY)
    value, graded = tell_patients(module, cohort)
    error = np.abs(value[:, 0] - cohort.patient_truths()).mean()
    assert error < 0.6 * float((ratio - ratio.mean()).abs().mean())
    known = ~np.isnan(cohort.patient_truths(1))
    right = np.abs(EVERY.answers[1].answer(graded)[known] - cohort.patient_truths(1)[known]).mean()
    assert right < 0.7, "grades from the truth on average"
    scores = scores_of(cohort, [value, graded])
    assert ((scores >= 0) & (scores <= 1)).all()
    assert np.array_equal(scores[0] > 0.5, value[:, 0] > 50)


def test_public_weights_of_classes_reach_every_step() -> None:
    def update(weights: list[float]) -> Arrays:
        module = nn.Linear(6, 1)
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
        return train(module, cohort_of(), NO_NOISE, replace(terms(1), class_weights=weights), seeded())

    plain, same, weighted = update([]), update([1.0, 1.0]), update([1.0, 0.25])
    assert np.array_equal(plain["weight"], same["weight"])
    assert weighted["bias"] < plain["bias"] - 0.01, "the second class pulls less"
