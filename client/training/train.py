"""Training on one hospital's cohort. A plain loop; what makes it private is in ``client/privacy.py``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client import privacy
from client.cohort.dataset import Cohort
from client.errors import BadOrder, UpdateNotFinite
from client.ledger.accounting import Mechanism
from client.privacy import PatientSteps, StepTerms
from client.training.gradients import Loss
from tasks.machine.device import PROCESSOR, Placement
from tasks.models.registry import arrays_of, load_arrays, misfits
from tasks.protocol.study import ADAM_BETAS, TrainingTerms
from tasks.protocol.wire import Arrays
from tasks.task import Task

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pull:
    """What is added to every gradient after its noise: ``strength * (x - towards) + constant``.

    It depends on the model and on what was released before, never on patients, so it costs no privacy and needs no
    clipping. Tensors by parameter name; ``constant`` empty is zero.
    """

    strength: float
    towards: Arrays
    constant: Arrays = field(default_factory=dict)


def load_weights(module: nn.Module, arrays: Arrays, staying: frozenset[str] = frozenset()) -> None:
    """Load an order's values into a network's trainable part.

    Args:
        staying: names of parameters that no order brings.

    Raises:
        BadOrder: listing every tensor that is missing, unknown, of another shape, not finite or too large.
    """
    require_fit(module, arrays, staying)
    load_arrays(module, arrays)


def require_fit(module: nn.Module, arrays: Arrays, staying: frozenset[str] = frozenset()) -> None:
    """Pass if an order's weights fit a network's trainable part.

    Raises:
        BadOrder: as ``load_weights``.
    """
    if problems := misfits(module, arrays, staying):
        raise BadOrder("the order's weights do not fit the model: " + "; ".join(problems))


def train_locally(
    module: nn.Module,
    task: Task,
    cohort: Cohort,
    terms: TrainingTerms,
    *,
    mechanism: Mechanism,
    clip_norm: float,
    public_size: int,
    generator: torch.Generator,
    max_memory_mb: int = 1024,
    on: Placement = PROCESSOR,
    pull: Pull | None = None,
) -> Arrays:
    """Take the order's steps on the hospital's patients; ``module`` is trained in place.

    Args:
        module: the network's trainable part, with the order's weights.
        mechanism: the noise that the ledger has reserved.
        public_size: what the expected number of patients is computed from.
        generator: draws patients, images and noise; ``client.training.noise.entropy()`` outside tests.
        max_memory_mb: what a step may allocate on top of model and cohort, in MiB.
        on: where patients' gradients are computed.
        pull: is added to the noised gradients.

    Returns:
        New minus old value of each trainable tensor.

    Raises:
        ValueError: the ledger has reserved other steps, or another sampling rate, than the terms ask for.
        UpdateNotFinite: training without noise diverged.
        ModelRefused: the model cannot be trained patient by patient within the memory, or keeps state of its own.
    """
    if (mechanism.sample_rate, mechanism.count) != (terms.sample_rate, terms.steps):
        raise ValueError(f"reserved {mechanism}, requested {terms}: these steps are not in the ledger")
    before = arrays_of(module)
    expected = max(1.0, terms.sample_rate * public_size)
    private = StepTerms(
        mechanism.noise_multiplier, clip_norm, expected, max_memory_mb, on, clip_always=terms.clip_always
    )
    loss = loss_for(task, terms.class_weights)
    steps = PatientSteps(module, loss, _optimizer(terms, pull, list(before)), private, generator)
    module.train()
    steps.prepare(*cohort.nobody(terms.images_per_patient))
    for patients in privacy.sampled_patients(len(cohort.rows), terms.sample_rate, terms.steps, generator):
        steps.step(patients, lambda chosen: cohort.draw(chosen, terms.images_per_patient, generator))
    update = {name: value - before[name] for name, value in arrays_of(module).items()}
    if not all(np.isfinite(value).all() for value in update.values()):
        return _diverged(module, before, terms, private)
    return update


def summed_step(
    module: nn.Module,
    task: Task,
    cohort: Cohort,
    terms: TrainingTerms,
    *,
    mechanism: Mechanism,
    clip_norm: float,
    generator: torch.Generator,
    max_memory_mb: int = 1024,
    on: Placement = PROCESSOR,
) -> NDArray[np.float64]:
    """One step's sum of clipped gradients with this hospital's share of the noise, for a secure sum. The server divides
    it and moves the model.

    Args:
        mechanism: the hospital's own share, as the ledger has reserved it.
        clip_norm, generator, max_memory_mb, on: as for ``train_locally``.

    Returns:
        float64 of shape (values,): the tensors in order of their names.

    Raises:
        ValueError: the ledger has reserved another step than the terms ask for.
        ModelRefused: as ``train_locally``.
    """
    if (mechanism.sample_rate, mechanism.count, terms.steps) != (terms.sample_rate, 1, 1):
        raise ValueError(f"reserved {mechanism}, requested {terms}: this step is not in the ledger")
    private = StepTerms(mechanism.noise_multiplier, clip_norm, 1.0, max_memory_mb, on)
    loss = loss_for(task, terms.class_weights)
    steps = PatientSteps(module, loss, lambda parameters: torch.optim.SGD(parameters, lr=0.0), private, generator)
    module.train()
    steps.prepare(*cohort.nobody(terms.images_per_patient))
    (patients,) = privacy.sampled_patients(len(cohort.rows), terms.sample_rate, 1, generator)
    total = steps.noised_sum(patients, lambda chosen: cohort.draw(chosen, terms.images_per_patient, generator))
    return _by_name(module, total)


def loss_for(task: Task, class_weights: Iterable[float]) -> Loss:
    """A task's loss of one patient, see ``tasks.losses.loss_of``."""
    return partial(task.loss, class_weights=tuple(class_weights))


def _by_name(module: nn.Module, total: Tensor) -> NDArray[np.float64]:
    """A vector of all trained values, which stand as the module names its parameters, in order of the names."""
    sizes = {name: p.numel() for name, p in module.named_parameters() if p.requires_grad}
    parts = dict(zip(sizes, torch.split(total, list(sizes.values())), strict=True))
    return torch.cat([parts[name] for name in sorted(parts)]).numpy()


def _diverged(module: nn.Module, before: Arrays, terms: TrainingTerms, private: StepTerms) -> Arrays:
    """The update of a module that has diverged: zeros. With noise that is not an error, or the error code would depend
    on patients; the server recognises a zero update."""
    message = f"training diverged within {terms.steps} steps at learning rate {terms.learning_rate:g}"
    if not private.noise_multiplier:
        raise UpdateNotFinite(message)
    _LOG.warning("%s; a zero update leaves", message)
    load_arrays(module, before)
    return {name: np.zeros_like(value) for name, value in before.items()}


def _optimizer(
    terms: TrainingTerms, pull: Pull | None, names: list[str]
) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    """Makes the optimizer of the one vector of all parameters, which stand in it in the order of ``names``."""

    def make(parameters: list[Tensor]) -> torch.optim.Optimizer:
        rate, momentum, decay = terms.learning_rate, terms.momentum, terms.weight_decay
        chosen: torch.optim.Optimizer
        if terms.optimizer == "adam":
            chosen = torch.optim.AdamW(parameters, lr=rate, betas=ADAM_BETAS, weight_decay=decay)
        else:
            chosen = torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay)
        if pull is not None:
            # Opacus calls this optimizer when the gradient is clipped, noised and divided.
            chosen.register_step_pre_hook(partial(_add_pull, pull.strength, _row(pull.towards), _row(pull.constant)))
        return chosen

    def _row(arrays: Arrays) -> Tensor | None:
        return torch.from_numpy(np.concatenate([arrays[name].reshape(-1) for name in names])) if arrays else None

    return make


def _add_pull(
    strength: float,
    towards: Tensor | None,
    constant: Tensor | None,
    optimizer: torch.optim.Optimizer,
    *_ignored: object,
) -> None:
    (vector,) = optimizer.param_groups[0]["params"]
    if towards is not None:
        vector.grad.add_(vector.detach() - towards, alpha=strength)
    if constant is not None:
        vector.grad.add_(constant)
