"""Differential privacy with the patient as unit: gradients, noise, and what they cost. The only file that uses Opacus.

One step of DP-SGD (Abadi et al., CCS 2016) at one hospital: every training patient joins with probability q (Poisson
sampling); the gradient of a patient's mean loss over its drawn images is clipped to L2 norm C; the clipped gradients
are added up, Gaussian noise of standard deviation sigma * C is added once, and the sum is divided by the *expected*
number of patients, taken from the hospital's public size so that the divisor tells nothing. A step that samples nobody
is a step of noise. Neighbouring datasets differ by adding or removing one patient with all images.

Accounting composes privacy loss distributions (Doroshenko et al., PoPETs 2022; Google's dp-accounting), rounded so
that the result is an upper bound.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from dp_accounting import dp_event
from dp_accounting.mechanism_calibration import (
    ExplicitBracketInterval,
    NoBracketIntervalFoundError,
    calibrate_dp_mechanism,
)
from dp_accounting.pld import PLDAccountant
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from client.errors import BudgetExhausted, ModelRefused

_DISCRETIZATION = 1e-3
_LEAST_NOISE, _MOST_NOISE = 0.1, 1e4
_PATIENTS_AT_ONCE = 32
_NO_CLIPPING = 1e30  # infinity times no noise would be NaN

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Mechanism:
    """One use of a cohort.

    Attributes:
        noise_multiplier: standard deviation of the noise in units of a patient's largest effect; 0 means no privacy.
        sample_rate: probability with which a patient takes part; 1 for everybody.
        count: how often it was, or will be, applied.
    """

    noise_multiplier: float
    sample_rate: float
    count: int


def epsilon_of(mechanisms: list[Mechanism], delta: float) -> float:
    """Privacy loss of a patient in all the mechanisms together: epsilon at delta, infinite without noise."""
    counts: dict[tuple[float, float], int] = {}
    for m in mechanisms:
        key = (m.noise_multiplier, m.sample_rate)
        counts[key] = counts.get(key, 0) + m.count
    return _epsilon_of(tuple(sorted((*key, count) for key, count in counts.items())), delta)


@lru_cache(maxsize=4096)
def _epsilon_of(mechanisms: tuple[tuple[float, float, int], ...], delta: float) -> float:
    if not mechanisms:
        return 0.0
    if any(noise == 0 for noise, _, _ in mechanisms):
        return math.inf
    return float(_accountant().compose(_event(mechanisms)).get_epsilon(delta))


def _accountant() -> PLDAccountant:
    return PLDAccountant(value_discretization_interval=_DISCRETIZATION)


def _event(mechanisms: tuple[tuple[float, float, int], ...]) -> dp_event.DpEvent:
    return dp_event.ComposedDpEvent([
        dp_event.SelfComposedDpEvent(_single(noise, sample_rate), count) for noise, sample_rate, count in mechanisms
    ])


def _single(noise: float, sample_rate: float) -> dp_event.DpEvent:
    gaussian = dp_event.GaussianDpEvent(noise)
    return gaussian if sample_rate == 1 else dp_event.PoissonSampledDpEvent(sample_rate, gaussian)


def plan_noise(spent: list[Mechanism], sample_rate: float, count: int, epsilon: float, delta: float) -> float:
    """The least noise with which ``count`` more applications, after what was spent, stay within (epsilon, delta).

    The noise of what was spent is tried first, so that a study that runs as planned keeps one noise multiplier; a
    study that lost a reservation to a crash goes on with more noise.

    Raises:
        BudgetExhausted: no amount of noise would do.
    """
    if spent:
        last = spent[-1].noise_multiplier
        if last > 0 and epsilon_of([*spent, Mechanism(last, sample_rate, count)], delta) <= epsilon:
            return last
    return _calibrated(tuple((m.noise_multiplier, m.sample_rate, m.count) for m in spent), sample_rate, count, epsilon, delta)


@cache
def _calibrated(
    spent: tuple[tuple[float, float, int], ...], sample_rate: float, count: int, epsilon: float, delta: float
) -> float:
    def total(noise: float) -> dp_event.DpEvent:
        return _event((*spent, (noise, sample_rate, count)))

    try:
        noise = calibrate_dp_mechanism(
            _accountant,
            total,
            target_epsilon=epsilon,
            target_delta=delta,
            bracket_interval=ExplicitBracketInterval(_LEAST_NOISE, _MOST_NOISE),
            tol=1e-3,
        )
    except NoBracketIntervalFoundError as error:
        raise BudgetExhausted(f"no noise keeps {count} more steps within epsilon {epsilon:g}") from error
    return float(noise)


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
