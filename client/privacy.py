"""Differential privacy with the patient as unit: each patient's gradient, clipped and noised. The only user of Opacus.

One step of DP-SGD (Abadi et al., CCS 2016) at one hospital: every training patient joins with probability q (Poisson
sampling); the gradient of a patient's loss over all its drawn images is clipped to L2 norm C; the clipped gradients are
added up, Gaussian noise of standard deviation sigma * C is added once, and the sum is divided by the *expected* number
of patients, taken from the hospital's public size so that the divisor tells nothing. A step that samples nobody is a
step of noise. Neighbouring datasets differ by adding or removing one patient with all images.

C is a number of the order. There is no clipping to a percentile of the gradients: such a bound depends on the patients
itself, and noise in proportion to it protects nobody. What the steps cost is computed in ``client/accounting.py``.

Several augmented copies of an image (De et al., 2022) are more rows of its patient: K images in M copies each are an
input of K * M rows, whose mean loss has the mean gradient; nothing here has to know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, vmap
from torch.nn.modules.conv import _ConvNd

from client.errors import ModelRefused
from client.noise import noised, uniform

_LOG = logging.getLogger(__name__)
_NO_CLIPPING = 1e30  # infinity times no noise would be NaN
_MOST_AT_ONCE = 256
_MEGABYTE = 2**20
# What a step holds for every trained number besides its value, in bytes: momentum, sum, clipped gradient, noised
# gradient; and for each patient in hand its gradient, once in pieces and once as a vector.
_BYTES_A_PARAMETER, _BYTES_A_GRADIENT = 16, 8
# Each saved activation has a gradient of its size at some time of the backward pass.
_ACTIVATION_COPIES = 2

Loss = Callable[[Tensor, Tensor], Tensor]
"""From a patient's outputs and labels, shapes (images, ...), to the mean loss over its images."""

Draw = Callable[[list[int]], tuple[Tensor, Tensor]]
"""From patients' numbers to their images and labels, shapes (patients, images, ...)."""


class Route(StrEnum):
    """How patients' gradients are computed, and why; chosen from model and shapes alone, never from timing."""

    TOGETHER = "together, under vmap"
    CONVOLUTIONS = "one by one: grouped convolutions, which vmap makes of weight gradients, are slower"
    NOT_VECTORISED = "one by one: vmap cannot run this model"


@dataclass(frozen=True)
class StepTerms:
    """What makes a step private and keeps it within its memory.

    Attributes:
        noise_multiplier: standard deviation of the noise in units of ``clip_norm``; 0 means neither noise nor clipping.
        clip_norm: most L2 norm of one patient's gradient.
        expected_patients: what the sum is divided by; a public number.
        max_memory_mb: what a step may allocate on top of model and cohort, in MiB.
    """

    noise_multiplier: float
    clip_norm: float
    expected_patients: float
    max_memory_mb: int


class PatientSteps:
    """Takes private steps on a module's trainable parameters.

    The parameters become views of one vector, so that clipping, noise and the optimizer run once over it and not once
    a parameter. How many patients are in hand at a time follows from ``max_memory_mb``: the parameters' size is
    counted, and the activations are measured as what autograd keeps for one patient. They are at least one patient,
    with all its images, because the clipped gradient is the patient's.

    Attributes:
        route: how gradients are computed; ``None`` until the first patient has come.
        patients_at_once: how many patients are in hand at a time; 0 until the first patient has come.
    """

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
            generator: draws the noise; ``noise.entropy()`` outside tests.

        Raises:
            ModelRefused: there is nothing to train, or it is not in float32.
        """
        self._module, self._loss, self._terms = module, loss, terms
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._vector = _one_vector(self._parameters)
        self._optimizer = _NoisyOptimizer(optimizer([self._vector]), terms, generator)
        self.route: Route | None = None
        self.patients_at_once = 0

    def step(self, patients: list[int], draw: Draw) -> None:
        """Take one step on the patients that were sampled; with none, a step of noise.

        Args:
            draw: is asked for as many patients at a time as are in hand at a time.

        Raises:
            ModelRefused: one patient at a time needs more memory than allowed, or the model keeps state of its own.
        """
        if patients and self.route is None:
            self._choose_route(*draw(patients[:1]))
        size = max(self.patients_at_once, 1)
        for start in range(0, max(len(patients), 1), size):
            self._vector.grad_sample = self._gradients(patients[start : start + size], draw)  # type: ignore[attr-defined]
            self._optimizer.signal_skip_step(start + size < len(patients))
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    def _gradients(self, patients: list[int], draw: Draw) -> Tensor:
        """Each patient's own gradient; shape (patients, parameters)."""
        if not patients:
            return self._vector.new_zeros((0, len(self._vector)))
        compute = _together if self.route is Route.TOGETHER else _one_by_one
        gradients = compute(self._module, self._loss, self._parameters, *draw(patients))
        if self._terms.noise_multiplier > 0:
            _drop_broken(gradients)
        return gradients

    def _choose_route(self, inputs: Tensor, labels: Tensor) -> None:
        detail = ""
        if any(isinstance(layer, _ConvNd) for layer in self._module.modules()):
            self.route = Route.CONVOLUTIONS
        else:
            self.route, detail = self._try_vmap(inputs, labels)
        saved = _bytes_saved(self._module, self._loss, inputs[0], labels[0])
        self.patients_at_once = self._affordable(saved * _ACTIVATION_COPIES + inputs.nbytes + labels.nbytes)
        _LOG.info("patients' gradients %s; %d at a time%s", self.route, self.patients_at_once, detail)

    def _try_vmap(self, inputs: Tensor, labels: Tensor) -> tuple[Route, str]:
        two = (t.expand(2, *t.shape[1:]) for t in (inputs, labels))
        try:
            _together(self._module, self._loss, self._parameters, *two)
        except Exception as error:  # whatever it is: if it is not vmap's, the loop meets it again and raises it
            return (
                Route.NOT_VECTORISED,
                f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})",
            )
        return Route.TOGETHER, ""

    def _affordable(self, bytes_of_one: int) -> int:
        fixed = len(self._vector) * _BYTES_A_PARAMETER
        each = len(self._vector) * _BYTES_A_GRADIENT + bytes_of_one
        affordable = (self._terms.max_memory_mb * _MEGABYTE - fixed) // each
        if affordable < 1:
            raise ModelRefused(
                f"one patient's gradient needs about {-(-(fixed + each) // _MEGABYTE)} MiB, "
                f"{self._terms.max_memory_mb} MiB are allowed: raise max_memory_mb, draw fewer images of a patient, "
                "or take a smaller model"
            )
        return min(affordable, _MOST_AT_ONCE) if self.route is Route.TOGETHER else 1


class _NoisyOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus is not typed
    """Opacus' optimizer (clip, add up, scale, and check that no gradient is used twice) with our noise."""

    def __init__(self, optimizer: torch.optim.Optimizer, terms: StepTerms, generator: torch.Generator) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=terms.noise_multiplier,
            max_grad_norm=terms.clip_norm if terms.noise_multiplier > 0 else _NO_CLIPPING,
            expected_batch_size=terms.expected_patients,  # a float serves: the sum is divided by it
            generator=generator,
        )

    def add_noise(self) -> None:
        for p in self.params:
            p.grad = noised(p.summed_grad, self.noise_multiplier * self.max_grad_norm, self.generator).view_as(p)


def sampled_patients(patients: int, sample_rate: float, steps: int, generator: torch.Generator) -> Iterator[list[int]]:
    """For each step the numbers of the patients that take part, each with the same probability; may be empty."""
    for _ in range(steps):
        # Not Opacus' sampler: that draws from the generator itself, see client/noise.py.
        yield (uniform(patients, generator) <= sample_rate).nonzero().flatten().tolist()


def refuse_unprivate_layers(module: nn.Module) -> None:
    """Refuse a network in which one patient's images influence another's gradient.

    Raises:
        ModelRefused: naming every such layer and what Opacus recommends instead.
    """
    problems = ModuleValidator.validate(module, strict=False)
    if problems:
        raise ModelRefused("; ".join(str(problem) for problem in problems))


def _one_vector(parameters: dict[str, nn.Parameter]) -> nn.Parameter:
    odd = [f"{name} is {p.dtype}" for name, p in parameters.items() if p.dtype != torch.float32]
    if odd or not parameters:
        raise ModelRefused("; ".join(odd) + ", not float32" if odd else "the model has nothing to train")
    vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters.values()]))
    pieces = torch.split(vector.detach(), [p.numel() for p in parameters.values()])
    for p, piece in zip(parameters.values(), pieces, strict=True):
        p.data = piece.view_as(p)
    return vector


def _together(
    module: nn.Module, loss: Loss, parameters: dict[str, nn.Parameter], inputs: Tensor, labels: Tensor
) -> Tensor:
    def patient_loss(values: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        return loss(functional_call(module, values, (images,)), targets)

    values = {name: p.detach() for name, p in parameters.items()}
    each = vmap(grad(patient_loss), in_dims=(None, 0, 0), randomness="different")(values, inputs, labels)
    return torch.cat([each[name].flatten(start_dim=1) for name in parameters], dim=1)


def _one_by_one(
    module: nn.Module, loss: Loss, parameters: dict[str, nn.Parameter], inputs: Tensor, labels: Tensor
) -> Tensor:
    rows = []
    for images, targets in zip(inputs, labels, strict=True):
        each = torch.autograd.grad(loss(module(images), targets), list(parameters.values()), materialize_grads=True)
        rows.append(torch.cat([g.reshape(-1) for g in each]))
    return rows[0].unsqueeze(0) if len(rows) == 1 else torch.stack(rows)


def _drop_broken(gradients: Tensor) -> None:
    """A patient whose gradient is not finite adds nothing: an error would tell that the patient is there."""
    broken = ~gradients.sum(dim=1).isfinite()
    if broken.any():
        _LOG.warning("%d of %d gradients are not finite and count as zero", int(broken.sum()), len(broken))
        gradients[broken] = 0


def _bytes_saved(module: nn.Module, loss: Loss, images: Tensor, targets: Tensor) -> int:
    """What autograd keeps of one patient for the backward pass, without the parameters, in bytes."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()} | {images.untyped_storage().data_ptr()}
    before = {name: b.clone() for name, b in module.named_buffers()}
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with saved_tensors_hooks(count, lambda tensor: tensor):
        loss(module(images), targets)
    moved = [name for name, b in module.named_buffers() if not torch.equal(b, before[name])]
    if moved:
        raise ModelRefused(f"{', '.join(moved)} changes while the model runs, so patients leave traces in it")
    return sum(seen.values())
