"""Differential privacy with the patient as unit: gradients and noise. The only file that uses Opacus.

One step of DP-SGD (Abadi et al., CCS 2016) at one hospital: every training patient joins with probability q (Poisson
sampling); the gradient of a patient's mean loss over its drawn images is clipped to L2 norm C; the clipped gradients
are added up, Gaussian noise of standard deviation sigma * C is added once, and the sum is divided by the *expected*
number of patients, taken from the hospital's public size so that the divisor tells nothing. A step that samples nobody
is a step of noise. Neighbouring datasets differ by adding or removing one patient with all images.

What the steps cost is computed in ``client/accounting.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import torch
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from client.errors import ModelRefused

_PATIENTS_AT_ONCE = 32
_NO_CLIPPING = 1e30  # infinity times no noise would be NaN

Loss = Callable[[Tensor, Tensor], Tensor]


def entropy() -> torch.Generator:
    """A generator seeded by the operating system's randomness: the only one that production uses."""
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(os.urandom(8), "little") - 2**63)
    return generator


def sampled_patients(patients: int, sample_rate: float, steps: int, generator: torch.Generator) -> Iterator[list[int]]:
    """For each step the numbers of the patients that take part; may be empty."""
    return iter(
        UniformWithReplacementSampler(
            num_samples=patients, sample_rate=sample_rate, generator=generator, steps=steps
        )
    )


def private_optimizer(
    optimizer: torch.optim.Optimizer,
    noise_multiplier: float,
    clip_norm: float,
    expected_patients: float,
    generator: torch.Generator,
) -> DPOptimizer:
    """Opacus' optimizer: clips what ``set_patient_gradients`` left on the parameters, adds up, adds noise, divides.

    With no noise nothing is clipped either: then it is plain SGD over the same Poisson samples.
    """
    return DPOptimizer(
        optimizer,
        noise_multiplier=noise_multiplier,
        max_grad_norm=clip_norm if noise_multiplier > 0 else _NO_CLIPPING,
        expected_batch_size=expected_patients,  # type: ignore[arg-type]  # a float serves: it only divides by it
        generator=generator,
    )


def set_patient_gradients(module: nn.Module, loss: Loss, inputs: Tensor, labels: Tensor) -> None:
    """Leave each patient's own gradient on the parameters, as ``grad_sample``.

    Args:
        inputs: shape (patients, images, ...).
        labels: shape (patients, images).
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if len(inputs) == 0:
        for p in parameters.values():
            p.grad_sample = p.new_zeros((0, *p.shape))  # type: ignore[attr-defined]
        return

    def patient_loss(values: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        return loss(functional_call(module, values, (images,)).squeeze(-1), targets)

    detached = {name: p.detach() for name, p in parameters.items()}
    gradients = vmap(grad(patient_loss), in_dims=(None, 0, 0), chunk_size=_PATIENTS_AT_ONCE)(detached, inputs, labels)
    for name, p in parameters.items():
        p.grad_sample = gradients[name]  # type: ignore[attr-defined]


def refuse_unprivate_layers(module: nn.Module) -> None:
    """Refuse a network in which one patient's images influence another's gradient.

    Raises:
        ModelRefused: naming every such layer and what Opacus recommends instead.
    """
    problems = ModuleValidator.validate(module, strict=False)
    if problems:
        raise ModelRefused("; ".join(str(problem) for problem in problems))
