"""Differential privacy with the patient as unit: gradients, clipped and noised. The only file that uses Opacus.

One step of DP-SGD (Abadi et al., CCS 2016) at one hospital: every training patient joins with probability q (Poisson
sampling); the gradient of a patient's loss over all its drawn images is clipped to L2 norm C; the clipped gradients are
added up, Gaussian noise of standard deviation sigma * C is added once, and the sum is divided by the *expected* number
of patients, taken from the hospital's public size so that the divisor reveals nothing. A step that samples nobody is
pure noise. Neighbouring datasets differ by adding or removing one patient with all images.

C is set by the order. It is never a percentile of the gradients: such a bound depends on the patients, and noise
proportional to it protects nobody. ``client/ledger/accounting.py`` computes what the steps cost.

Several augmented copies of an image (De et al., 2022) are more rows of its patient: K images in M copies each are an
input of K * M rows, whose mean loss has the mean gradient; nothing here has to know.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch import Tensor, nn

from client.errors import ModelRefused
from client.training.device_sums import DeviceSums
from client.training.gradients import Loss, PatientGradients, Route
from client.training.noise import noised, uniform
from tasks.machine.device import PROCESSOR, Placement, Portions
from tasks.models.unprivate import unprivate_layers

_LOG = logging.getLogger(__name__)

_BLOCK = 1 << 16
"""Values that are in double precision at once. A copy of a whole gradient would leave the processor's cache: with seven
million values, norm and sum take six times as long."""
Draw = Callable[[list[int]], tuple[Tensor, Tensor]]
"""From patients' numbers to their images and labels, shapes (patients, images, ...)."""


@dataclass(frozen=True)
class StepTerms:
    """What makes a step private and keeps it within its memory.

    Attributes:
        noise_multiplier: standard deviation of the noise in units of ``clip_norm``; 0 means no noise.
        clip_norm: most L2 norm of one patient's gradient.
        expected_patients: what the sum is divided by; a public number.
        max_memory_mb: what a step may allocate on top of model and cohort, in MiB.
        on: where patients' gradients are computed, clipped and added up. The guarantee is the same everywhere.
        clip_always: clip all the same where there is no noise.
    """

    noise_multiplier: float
    clip_norm: float
    expected_patients: float
    max_memory_mb: int
    on: Placement = PROCESSOR
    clip_always: bool = False


class PatientSteps:
    """Takes private steps on a module's trainable parameters, which become views of one vector."""

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
        terms: StepTerms,
        generator: torch.Generator,
    ) -> None:
        """Prepare.

        Args:
            optimizer: makes the optimizer, such as SGD with its rates, of the parameters that it is given.
            generator: draws the noise; ``client.training.noise.entropy()`` outside tests.

        Raises:
            ModelRefused: there is nothing to train, or it is not in float32.
        """
        self._gradients = PatientGradients(module, loss, terms.max_memory_mb, terms.on)
        self._optimizer = _NoisyOptimizer(optimizer([self._gradients.vector]), terms, generator)
        self._sums: DeviceSums | None = None
        if terms.on.beside and self.route is not Route.LINEAR:  # one linear layer is less work than the way there
            vector, alone = self._gradients.vector, self._gradients.of_one
            self._sums = DeviceSums(module, vector, loss, terms.on, alone)
        self._portions = Portions(terms.on.device, 1)

    @property
    def route(self) -> Route:
        """How gradients are computed."""
        return self._gradients.route

    @property
    def patients_at_once(self) -> int:
        """How many patients are processed at a time."""
        return self._gradients.patients_at_once if self._sums is None else self._portions.at_once

    @property
    def device(self) -> torch.device:
        """Where gradients are computed, if nothing fails there."""
        return PROCESSOR.device if self._sums is None else self._portions.device

    def prepare(self, inputs: Tensor, labels: Tensor) -> None:
        """Once, before the first step: see ``PatientGradients.prepare``.

        Raises:
            ModelRefused: one patient at a time needs more memory than allowed, or the model keeps state of its own.
        """
        self._gradients.prepare(inputs, labels)
        if (sums := self._sums) is not None:
            # What the device cannot do at all shows here, and not at a patient.
            if self._portions.attempt(lambda _: sums.try_on(inputs, labels)) is None:
                self._sums = None
            self._portions.at_once = self._gradients.patients_affordable

    def step(self, patients: list[int], draw: Draw) -> None:
        """Take one step on the sampled patients; if there are none, a step of noise.

        Args:
            draw: is asked for as many patients at a time as are in hand at a time.
        """
        if (noised_sum := self._noised_on_device(patients, draw)) is not None:
            self._optimizer.move(noised_sum)
            return
        for chosen, last in self._in_turn(patients):
            self._gradients.vector.grad_sample = self._gradients_of(chosen, draw)  # type: ignore[attr-defined]
            self._optimizer.signal_skip_step(not last)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    def noised_sum(self, patients: list[int], draw: Draw) -> Tensor:
        """The sum of the sampled patients' clipped gradients with noise, not divided; the model stays as it is.

        Args:
            draw: as for ``step``.

        Returns:
            float64 of shape (parameters,).
        """
        if (noised_sum := self._noised_on_device(patients, draw)) is not None:
            return noised_sum
        vector = self._gradients.vector
        for chosen, _ in self._in_turn(patients):
            vector.grad_sample = self._gradients_of(chosen, draw)  # type: ignore[attr-defined]
            self._optimizer.clip_and_accumulate()
            vector.grad_sample = None  # type: ignore[attr-defined]
        noised = self._optimizer.noised()
        self._optimizer.zero_grad(set_to_none=True)
        return noised

    def _noised_on_device(self, patients: list[int], draw: Draw) -> Tensor | None:
        """The noised sum, by way of the device, float64 of shape (parameters,); ``None`` where the processor computes
        it. It is a step's whole sum or nothing, with noise of its own: what a lost device has added up is lost."""
        if (sums := self._sums) is None:
            return None

        def noised_sum(at_once: int) -> Tensor:
            total = sums.sum_of(patients, draw, self._optimizer.add_clipped, at_once)
            return self._optimizer.with_noise(total).to(PROCESSOR.device)

        return self._portions.attempt(noised_sum)

    def _in_turn(self, patients: list[int]) -> Iterator[tuple[list[int], bool]]:
        """As many patients as are in hand at a time, and whether they are the last; nobody once if there is nobody."""
        at_once = self._gradients.patients_at_once
        for start in range(0, max(len(patients), 1), at_once):
            yield patients[start : start + at_once], start + at_once >= len(patients)

    def _gradients_of(self, patients: list[int], draw: Draw) -> Tensor:
        if not patients:
            return self._gradients.vector.new_zeros((0, len(self._gradients.vector)))
        return self._gradients.compute(*draw(patients))


class _NoisyOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus is not typed
    """Opacus' optimizer (scale, and check that no gradient is used twice) with our sum and our noise.

    Opacus clips and adds up in float32, where a sum of many gradients rounds by more than the noise's grid, and a
    gradient below float32's normal range by more than the clip. Here norms and sums are in double precision, one
    patient after the other.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, terms: StepTerms, generator: torch.Generator) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=terms.noise_multiplier,
            max_grad_norm=terms.clip_norm,
            expected_batch_size=terms.expected_patients,  # a float serves: the sum is divided by it
            generator=generator,
        )
        self._clips = terms.noise_multiplier > 0 or terms.clip_always

    def clip_and_accumulate(self) -> None:
        """Add each patient's gradient to the sum, none longer than C.

        One that is not finite adds nothing: an error, or a ruined sum, would tell that the patient is there. Without
        noise nothing is hidden, and clipped only where the terms say so.
        """
        (vector,) = self.params
        _check_processed_flag(vector.grad_sample)
        if vector.summed_grad is None:
            vector.summed_grad = torch.zeros(vector.shape, dtype=torch.float64)
        self.add_clipped(vector.summed_grad, vector.grad_sample)
        _mark_as_processed(vector.grad_sample)

    def add_clipped(self, total: Tensor, rows: Tensor) -> None:
        """Add gradients to a sum, as ``clip_and_accumulate`` says.

        Args:
            total: float64 of shape (parameters,).
            rows: float32 of shape (patients, parameters), on the same device.
        """
        broken = 0
        for gradient, norm in zip(rows, _norms(rows) if self._clips else [0.0] * len(rows), strict=True):
            if math.isfinite(norm):
                _accumulate(total, gradient, min(1.0, self.max_grad_norm / norm) if norm else 1.0)
            elif not self.noise_multiplier:
                _accumulate(total, gradient, 1.0)  # training has diverged, and may say so
            else:
                broken += 1
        if broken:
            _LOG.warning("%d of %d gradients are not finite and count as zero", broken, len(rows))

    def add_noise(self) -> None:
        (vector,) = self.params
        vector.grad = self.noised().to(vector.dtype)

    def noised(self) -> Tensor:
        """The sum so far with noise, float64; no sum is noised twice."""
        (vector,) = self.params
        _check_processed_flag(vector.summed_grad)
        with_noise = self.with_noise(vector.summed_grad)
        _mark_as_processed(vector.summed_grad)
        return with_noise

    def with_noise(self, total: Tensor) -> Tensor:
        """A sum of clipped gradients with noise, float64, on the sum's device."""
        return noised(total, self.noise_multiplier * self.max_grad_norm, self.generator)

    def move(self, noised_sum: Tensor) -> None:
        """Take the step that a noised sum makes, on the processor."""
        (vector,) = self.params
        vector.grad = noised_sum.to(vector.dtype).div_(self.expected_batch_size)
        self.original_optimizer.step()
        self.zero_grad(set_to_none=True)


def _norms(rows: Tensor) -> Iterable[float]:
    """L2 norm of each row in double precision. A device is waited for once, and not once a patient."""
    if rows.device.type == "cpu":
        return map(_norm, rows)
    norms = [torch.linalg.vector_norm(row, dtype=torch.float64) for row in rows]
    return cast(list[float], torch.stack(norms).to(PROCESSOR.device).tolist()) if norms else []


def _norm(gradient: Tensor) -> float:
    """L2 norm in double precision."""
    return math.sqrt(math.fsum(float(part.double().square_().sum()) for part in torch.split(gradient, _BLOCK)))


def _accumulate(total: Tensor, gradient: Tensor, factor: float) -> None:
    """Add a multiple of a float32 vector to a float64 one, in double precision."""
    if total.device.type != "cpu":
        total.add_(gradient.double(), alpha=factor)
        return
    for of_total, part in zip(torch.split(total, _BLOCK), torch.split(gradient, _BLOCK), strict=True):
        of_total.add_(part, alpha=factor)


def sampled_patients(patients: int, sample_rate: float, steps: int, generator: torch.Generator) -> Iterator[list[int]]:
    """For each step the numbers of the patients that take part, each with the same probability; may be empty.

    Opacus' sampler would draw from the generator itself; ``client/training/noise.py`` says why that is not enough.
    """
    for _ in range(steps):
        yield (uniform(patients, generator) <= sample_rate).nonzero().flatten().tolist()


def refuse_unprivate_layers(module: nn.Module) -> None:
    """Refuse a network in which one patient's images influence another's gradient.

    Raises:
        ModelRefused: naming every such layer and what Opacus recommends instead.
    """
    if problems := unprivate_layers(module):
        raise ModelRefused("; ".join(problems))
