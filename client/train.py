"""Training and scoring on one hospital's cohort. Plain loops; what makes them private is in ``client/privacy.py``."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client import privacy
from client.accounting import Mechanism
from client.dataset import Cohort
from client.errors import BadOrder, UpdateNotFinite
from tasks.models.registry import arrays_of
from tasks.task import Task
from tasks.study import TrainingTerms
from tasks.wire import Arrays

_IMAGES_AT_ONCE = 128


def load_weights(module: nn.Module, arrays: Arrays) -> None:
    """Give a network's trainable part the values that an order brought.

    Raises:
        BadOrder: listing every tensor that is missing, unknown, of another shape, or not finite.
    """
    expected = {name: p for name, p in module.named_parameters() if p.requires_grad}
    problems = [f"{name} is missing" for name in expected.keys() - arrays.keys()]
    problems += [f"{name} is unknown" for name in arrays.keys() - expected.keys()]
    for name in expected.keys() & arrays.keys():
        value, shape = arrays[name], tuple(expected[name].shape)
        if value.shape != shape or value.dtype != np.float32:
            problems.append(f"{name} is {value.dtype} {value.shape}, not float32 {shape}")
        elif not np.isfinite(value).all():
            problems.append(f"{name} has values that are not finite")
    if problems:
        raise BadOrder("the order's weights do not fit the model: " + "; ".join(sorted(problems)))
    with torch.no_grad():
        for name, p in expected.items():
            p.copy_(torch.from_numpy(arrays[name]))


def train_locally(
    module: nn.Module,
    task: Task,
    cohort: Cohort,
    terms: TrainingTerms,
    mechanism: Mechanism,
    clip_norm: float,
    public_size: int,
    generator: torch.Generator,
) -> Arrays:
    """Take the order's steps on the hospital's patients; ``module`` is trained in place.

    Args:
        module: the network's trainable part, with the order's weights.
        mechanism: the noise that the ledger has reserved.
        public_size: what the expected number of patients is computed from.
        generator: draws patients, images and noise; ``privacy.entropy()`` outside tests.

    Returns:
        New minus old value of each trainable tensor.

    Raises:
        UpdateNotFinite: training diverged.
    """
    before = arrays_of(module)
    sgd = torch.optim.SGD(
        module.parameters(), lr=terms.learning_rate, momentum=terms.momentum, weight_decay=terms.weight_decay
    )
    expected = max(1.0, terms.sample_rate * public_size)
    optimizer = privacy.private_optimizer(sgd, mechanism.noise_multiplier, clip_norm, expected, generator)
    module.train()
    for patients in privacy.sampled_patients(len(cohort.rows), terms.sample_rate, terms.steps, generator):
        inputs, labels = cohort.draw(patients, terms.images_per_patient, generator)
        privacy.set_patient_gradients(module, task.loss, inputs, labels)
        optimizer.step()
        optimizer.zero_grad()
    update = {name: value - before[name] for name, value in arrays_of(module).items()}
    if not all(np.isfinite(value).all() for value in update.values()):
        raise UpdateNotFinite(f"training diverged within {terms.steps} steps at learning rate {terms.learning_rate:g}")
    return update


@torch.no_grad()
def score_patients(module: nn.Module, cohort: Cohort) -> NDArray[np.float64]:
    """The probability of the positive class for each patient, mean over its images; shape (patients,)."""
    module.eval()
    images = torch.cat([torch.sigmoid(module(chunk).squeeze(-1)) for chunk in cohort.inputs.split(_IMAGES_AT_ONCE)])
    return np.array([float(images[rows].mean()) for rows in cohort.rows])

