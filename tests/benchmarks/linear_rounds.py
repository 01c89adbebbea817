"""Private federated rounds of a linear head on fixed features, many draws of the noise side by side.

The arithmetic of ``client/training/train.py`` and ``server/strategy/fedavg.py`` without what surrounds it: no orders,
no ledger, no wire, and seeded noise, for a search through hundreds of configurations. A linear head's gradient has a
closed form, and its norm follows from the products of a patient's images with each other, so no patient's gradient is
ever written down. ``alike`` compares a step with the real one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from client import site
from client.cohort.dataset import Cohort, open_cohort
from client.ledger.accounting import Mechanism, noise_at, plan_scale
from client.setup import virtual
from client.training.train import train_locally
from conf.schema.study import Study
from server.study.document import model_of, weights_of
from tasks import task as tasks
from tasks.models import registry
from tasks.protocol.secure_sum import share
from tasks.protocol.study import TrainingTerms
from tasks.task import Task


@dataclass(frozen=True)
class Hospital:
    """Both sides of one hospital's split, as features of its images."""

    train: Cohort
    validation: Cohort
    public_size: int
    name: str = ""


@dataclass(frozen=True)
class Terms:
    """One configuration of the training of a linear head; ``conf.schema`` explains the fields.

    Attributes:
        colluding: hospitals share the noise, as secure sums do, and so many of them may collude; ``None``: each adds
            the whole noise.
        spare: as ``privacy.spare``.
    """

    training: TrainingTerms
    rounds: int
    epsilon: float | None
    delta: float
    clip_norm: float
    ema: float = 0.0
    colluding: int | None = None
    spare: float = 0.2


def hospitals(study: Study, folder: Path) -> list[Hospital]:
    """Found the study's simulated hospitals, and compute features of all their images."""
    task = tasks.get(study.task.name)
    founded = virtual.provision_virtual_hospitals(study, folder, lambda issuer, done, total: None)
    spec = model_of(study)
    network = registry.build(spec, task.form, study.seed, find=weights_of(study))
    found = []
    for name, path in founded.federated.items():
        settings = site.load(path)
        train, validation = (open_cohort(settings, task, side, spec, network) for side in ("train", "validation"))
        found.append(Hospital(train, validation, site.declared_size(settings, len(train.rows)), name))
    return found


def noises(terms: Terms, hospitals: int = 1) -> list[float]:
    """The noise multiplier of each round, as a hospital plans it that takes part in every one; of shared noise each
    one's own part, as ``client/oversight/shared_noise.py`` plans it."""
    if terms.epsilon is None:
        return [0.0] * terms.rounds
    training = terms.training
    if terms.colluding is not None:
        attempts = terms.rounds + math.ceil(terms.rounds * terms.spare - 1e-9)
        noise = plan_scale([], training.sample_rate, [(1.0, attempts)], terms.epsilon, terms.delta)
        return [share(noise, hospitals, terms.colluding)] * terms.rounds
    factors = [training.noise_in(number, terms.rounds) for number in range(1, terms.rounds + 1)]
    ahead = [(factor, training.steps) for factor in factors]
    scale = plan_scale([], training.sample_rate, ahead, terms.epsilon, terms.delta)
    return [noise_at(scale, factor) for factor in factors]


def play(task: Task, each: list[Hospital], terms: Terms, draws: int, seed: int = 0) -> Tensor:
    """Train from zero. Returns the delivered heads, float32 of shape (draws, findings, features + 1), bias last."""
    generator = torch.Generator().manual_seed(seed)
    shape = (draws, task.form.outputs, each[0].train.inputs.shape[1] + 1)
    weights, average = torch.zeros(shape), torch.zeros(shape)
    shares = np.array([hospital.public_size for hospital in each], dtype=float)
    for number, noise in enumerate(noises(terms, len(each)), start=1):
        update = torch.zeros(shape)
        for hospital, part in zip(each, shares / shares.sum(), strict=True):
            rate = terms.training.rate_in(number, terms.rounds)
            update += float(part) * (_locally(hospital, terms, rate, noise, weights, generator) - weights)
        weights = weights + update
        average = weights if number == 1 else weights + terms.ema * (average - weights)
    return average


def _locally(
    hospital: Hospital, terms: Terms, rate: float, noise: float, start: Tensor, generator: torch.Generator
) -> Tensor:
    """The heads after one hospital's steps of a round. Draws share the images, and nothing else; images are drawn once
    a round and not once a step, since drawing them would take most of the time."""
    training, cohort, weights = terms.training, hospital.train, start.clone()
    velocity = torch.zeros_like(weights)
    expected = max(1.0, training.sample_rate * hospital.public_size)
    inputs, targets = cohort.draw(list(range(len(cohort.rows))), training.images_per_patient, generator)
    inputs = _with_bias(inputs)
    products = inputs @ inputs.transpose(1, 2)
    for step in range(training.steps):
        joins = torch.rand((len(inputs), len(weights)), generator=generator) <= training.sample_rate
        gradient = _clipped_sum(weights, inputs, products, targets, joins, terms.clip_norm if noise else None)
        gradient += noise * terms.clip_norm * torch.randn(gradient.shape, generator=generator)
        gradient = gradient / expected + training.weight_decay * weights
        velocity = gradient if step == 0 else training.momentum * velocity + gradient
        weights -= rate * velocity
    return weights


def _with_bias(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, torch.ones((*inputs.shape[:-1], 1))], dim=-1)


def _clipped_sum(
    weights: Tensor, inputs: Tensor, products: Tensor, targets: Tensor, joins: Tensor, clip: float | None
) -> Tensor:
    """The sum of the patients' clipped gradients of ``tasks.losses.loss_of``, for each draw's weights.

    Args:
        weights: shape (draws, findings, features).
        inputs: shape (patients, images, features).
        products: of each patient's images with each other, shape (patients, images, images).
        targets: shape (patients, images, findings), NaN where nobody knows.
        joins: bool, shape (patients, draws).
    """
    draws, findings, features = weights.shape
    patients, images, _ = inputs.shape
    known = ~torch.isnan(targets)
    question, further = (part.sum(dim=(1, 2), keepdim=True).clamp(min=1) for part in (known[..., :1], known[..., 1:]))
    share = torch.cat([1 / question, (1 / further).expand(-1, -1, findings - 1)], dim=2) * known
    flat = inputs.reshape(-1, features)
    logits = (flat @ weights.reshape(-1, features).T).reshape(patients, images, draws, findings)
    slopes = (torch.sigmoid(logits) - targets.nan_to_num()[:, :, None]) * share[:, :, None]
    if clip is not None:
        squares = torch.einsum("pidf,pij,pjdf->pd", slopes, products, slopes)
        joins = joins * (clip / squares.clamp(min=1e-24).sqrt()).clamp(max=1)
    slopes = slopes * joins[:, None, :, None]
    return (slopes.reshape(-1, draws * findings).T @ flat).reshape(weights.shape)


def alike(task: Task, hospital: Hospital, terms: Terms) -> float:
    """The greatest difference that one clipped step without noise, on everybody, makes from the real one."""
    training = replace(terms.training, steps=1, sample_rate=1.0, images_per_patient=1)
    rows = [rows[:1] for rows in hospital.train.rows]
    one_image = Cohort(hospital.train.inputs, hospital.train.targets, rows, hospital.train.patients)
    head = torch.nn.Linear(one_image.inputs.shape[1], task.form.outputs)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    silent = 1e-6
    real = train_locally(
        head,
        task,
        one_image,
        training,
        mechanism=Mechanism(silent, 1.0, 1),
        clip_norm=terms.clip_norm,
        public_size=hospital.public_size,
        generator=torch.Generator().manual_seed(1),
    )
    start = torch.zeros((1, task.form.outputs, one_image.inputs.shape[1] + 1))
    small = Terms(training, 1, None, terms.delta, terms.clip_norm)
    ours = _locally(
        Hospital(one_image, hospital.validation, hospital.public_size), small, training.learning_rate, silent, start,
        torch.Generator().manual_seed(1),
    )  # fmt: skip
    both = np.concatenate([real["weight"], real["bias"][:, None]], axis=1)
    return float(np.abs(ours[0].numpy() - both).max())


def scores(cohort: Cohort, heads: Tensor) -> NDArray[np.float64]:
    """The probability of each finding for each patient; shape (patients, draws, findings)."""
    draws, findings, features = heads.shape
    images = torch.sigmoid(_with_bias(cohort.inputs) @ heads.reshape(-1, features).T).reshape(-1, draws, findings)
    return torch.stack([images[rows].double().mean(dim=0) for rows in cohort.rows]).numpy()


def aucs(each: list[Hospital], heads: Tensor) -> NDArray[np.float64]:
    """Of each draw and finding, the mean AUC over hospitals that have one; NaN where none has. Shape (draws,
    findings)."""
    draws, findings, _ = heads.shape
    told = np.full((len(each), draws, findings), np.nan)
    for index, hospital in enumerate(each):
        patients = scores(hospital.validation, heads)
        for finding in range(findings):
            told[index, :, finding] = areas(hospital.validation.patient_labels(finding).numpy(), patients[..., finding])
    with np.errstate(invalid="ignore"):
        counts = (~np.isnan(told)).sum(axis=0)
        return np.where(counts > 0, np.nansum(told, axis=0) / np.maximum(counts, 1), np.nan)


def areas(labels: NDArray[np.float64], of_draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUC of each draw's scores, by ranks; NaN where a class is missing.

    Args:
        labels: shape (patients,); NaN where nobody knows.
        of_draws: shape (patients, draws).
    """
    known = ~np.isnan(labels)
    positive = labels[known] == 1
    ill, well = int(positive.sum()), int((~positive).sum())
    if not ill or not well:
        return np.full(of_draws.shape[1], np.nan)
    ranks: NDArray[np.float64] = rankdata(of_draws[known], axis=0)
    found: NDArray[np.float64] = (ranks[positive].sum(axis=0) - ill * (ill + 1) / 2) / (ill * well)
    return found
