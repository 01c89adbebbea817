"""Each patient's gradient, as one vector per patient, for any model and within a given memory.

This file only computes gradients; ``client/privacy.py`` makes them private.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import vmap

from client.cohort.alone import is_linear, linear_outputs, side_by_side
from client.errors import ModelRefused
from tasks.machine.device import PROCESSOR, Placement

_LOG = logging.getLogger(__name__)
_MOST_AT_ONCE = 256
_MEGABYTE = 2**20
# What a step holds for every trained number besides its value, in bytes: two moments, the sum and the noised sum in
# double precision, the gradient that the optimizer takes; and for each patient in hand its gradient, once in
# pieces and once as a vector.
_BYTES_A_PARAMETER, _BYTES_A_GRADIENT = 28, 8
# Each saved activation has a gradient of its size at some time of the backward pass.
_ACTIVATION_COPIES = 2
_LANES = 64
"""A multiple of the values that any processor's vector instructions take at once: with so many, none is left over for
instructions of another kind, which may round another way."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From a patient's outputs and labels, shapes (images, ...), to the mean loss over its images."""


class Route(StrEnum):
    """How patients' gradients are computed; chosen from the model alone, never from timing.

    The loop gives each processor thread a patient of its own. Operators on a few images share badly among threads: of
    DenseNet121's step on two threads, patients in turn took 2.5 times the plain step, patients side by side 0.9
    (``tests/benchmarks/bench_dp_step.py``).
    """

    LINEAR = "together: one linear layer"
    EACH = "each for itself"


class PatientGradients:
    """Computes patients' gradients of a module's trainable parameters.

    The parameters become views of one vector, so that clipping, noise and the optimizer run once over it and not once
    a parameter. How many patients are in hand at a time follows from the memory that is allowed: the parameters' size
    is counted, and the activations are measured as what autograd keeps for one patient. They are at least one patient
    with all its images, because it is the whole patient's gradient that is clipped.

    Attributes:
        vector: all trainable parameters as one; shape (parameters,).
        route: how gradients are computed.
        patients_at_once: how many patients ``compute`` may be given; 1 before ``prepare``.
        patients_affordable: how many the memory suffices for; 1 before ``prepare``.
    """

    def __init__(self, module: nn.Module, loss: Loss, max_memory_mb: int, on: Placement = PROCESSOR) -> None:
        """Prepare.

        Args:
            max_memory_mb: what a step may allocate on top of model and cohort, in MiB.
            on: of it only the precision counts: here gradients are computed by the processor.

        Raises:
            ModelRefused: there is nothing to train, or it is not in float32.
        """
        self._module, self._loss, self._max_memory_mb = module, loss, max_memory_mb
        self._on = replace(on, device=PROCESSOR.device)
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.vector = _one_vector(self._parameters)
        self.route = Route.LINEAR if is_linear(module) else Route.EACH
        self.patients_at_once = self.patients_affordable = 1

    def prepare(self, inputs: Tensor, labels: Tensor) -> None:
        """Determine how many patients can be processed at once, and check that the model can be trained, using a
        fictitious patient: requirements on a model must not depend on anyone's images.

        Args:
            inputs: zeros of shape (1, images, ...).
            labels: likewise.

        Raises:
            ModelRefused: one patient at a time needs more memory than allowed, or the model keeps state of its own.
        """
        saved = self._bytes_saved(inputs[0], labels[0])
        affordable = self._patients_affordable(saved * _ACTIVATION_COPIES + inputs.nbytes + labels.nbytes)
        self.patients_affordable = min(affordable, _MOST_AT_ONCE)
        most = _MOST_AT_ONCE if self.route is Route.LINEAR else torch.get_num_threads()
        self.patients_at_once = min(affordable, most)
        _LOG.info("patients' gradients %s; %d at a time", self.route, self.patients_at_once)

    def compute(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Each patient's gradient, whoever the others are.

        Args:
            inputs: shape (patients, images, ...).
            labels: shape (patients, images, ...).

        Returns:
            float32 of shape (patients, parameters).
        """
        rows = self.vector.new_empty((len(inputs), len(self.vector)))
        if self.route is Route.LINEAR and isinstance(self._module, nn.Linear):
            return _linear_gradients(self._module, self._loss, inputs, labels, rows)
        side_by_side(self._one, rows, inputs, labels)
        return rows

    def of_one(self, images: Tensor, targets: Tensor) -> Tensor:
        """One patient's gradient, float32 of shape (parameters,), of its images and labels; NaN where it fails."""
        return self.compute(images[None], targets[None])[0]

    def _one(self, row: Tensor, images: Tensor, targets: Tensor) -> None:
        parameters = list(self._parameters.values())
        try:
            gradient_of(self._module, parameters, self._loss, images, targets, on=self._on, out=row)
        except Exception:
            _LOG.exception("a patient's gradient cannot be computed")
            row.fill_(math.nan)  # as one that is not finite: it adds nothing where there is noise, and shows without

    def _patients_affordable(self, bytes_of_one: int) -> int:
        fixed = len(self.vector) * _BYTES_A_PARAMETER
        per_patient = len(self.vector) * _BYTES_A_GRADIENT + bytes_of_one
        affordable: int = (self._max_memory_mb * _MEGABYTE - fixed) // per_patient
        if affordable < 1:
            needed = -(-(fixed + per_patient) // _MEGABYTE)
            raise ModelRefused(
                f"one patient's gradient needs about {needed} MiB, {self._max_memory_mb} MiB "
                "are allowed: raise max_memory_mb, draw fewer images per patient, or use a smaller model"
            )
        return affordable

    def _bytes_saved(self, images: Tensor, targets: Tensor) -> int:
        """What autograd keeps of one patient for the backward pass, without the parameters, in bytes."""
        parameters = {p.untyped_storage().data_ptr() for p in self._module.parameters()} | {
            images.untyped_storage().data_ptr()
        }
        before = {name: b.clone() for name, b in self._module.named_buffers()}
        seen: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()

        with saved_tensors_hooks(count, lambda tensor: tensor):
            _loss_of(self._module, self._loss, images, targets, self._on)
        moved = [name for name, b in self._module.named_buffers() if not torch.equal(b, before[name])]
        if moved:
            raise ModelRefused(f"{', '.join(moved)} changes while the model runs, so patients leave traces in it")
        if self.route is Route.LINEAR:
            return sum(seen.values()) + images.nbytes  # the products, before they are added up
        return sum(seen.values())


def gradient_of(
    module: nn.Module,
    parameters: list[nn.Parameter],
    loss: Loss,
    images: Tensor,
    targets: Tensor,
    *,
    on: Placement,
    out: Tensor,
) -> None:
    """One patient's gradient, in float32 whatever the precision of the products that it is computed by.

    Args:
        images, targets: shapes (images, ...), of the device of ``on``, as module and ``out``.
        out: float32 of shape (parameters,), which it is written to.
    """
    # Copies, which begin at addresses of the same alignment: some products round by where their numbers lie.
    found = _loss_of(module, loss, images.clone(), targets.clone(), on)
    gradients = torch.autograd.grad(found, parameters, materialize_grads=True)
    torch.cat([g.reshape(-1) for g in gradients], out=out)


def _loss_of(module: nn.Module, loss: Loss, images: Tensor, targets: Tensor, on: Placement) -> Tensor:
    with on.reduced():
        outputs = module(images)
    return loss(outputs.float(), targets)


def _linear_gradients(layer: nn.Linear, loss: Loss, inputs: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """Gradients of a linear layer: of a weight it is the sum over images of input times the loss's slope."""
    slopes, values = _slopes(loss, linear_outputs(layer, inputs), labels).numpy(), inputs.numpy()
    weights = np.zeros((len(values), slopes.shape[2], values.shape[2]), np.float32)
    bias = np.zeros((len(values), slopes.shape[2]), np.float32)
    with np.errstate(all="ignore"):  # a gradient that is not finite is dropped where it is clipped
        for i in range(values.shape[1]):
            weights += slopes[:, i, :, None] * values[:, i, None, :]
            bias += slopes[:, i]
    rows[:, : weights[0].size] = torch.from_numpy(weights.reshape(len(weights), -1))
    if layer.bias is not None:
        rows[:, weights[0].size :] = torch.from_numpy(bias)
    return rows


def _slopes(loss: Loss, outputs: Tensor, labels: Tensor) -> Tensor:
    """How each patient's loss rises with each of its outputs; shape (patients, images, outputs)."""
    missing = -len(outputs) % _LANES
    padded = [torch.cat([t, t.new_zeros((missing, *t.shape[1:]))]) for t in (outputs, labels)]
    with torch.enable_grad():
        told = padded[0].requires_grad_()
        (slopes,) = torch.autograd.grad(vmap(loss)(told, padded[1]).sum(), told)  # each loss counts once in the sum
    return slopes[: len(outputs)]


def _one_vector(parameters: dict[str, nn.Parameter]) -> nn.Parameter:
    if not parameters:
        raise ModelRefused("the model has nothing to train")
    odd = [f"{name} is {p.dtype}, not float32" for name, p in parameters.items() if p.dtype != torch.float32]
    if odd:
        raise ModelRefused("; ".join(odd))
    vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters.values()]))
    pieces = torch.split(vector.detach(), [p.numel() for p in parameters.values()])
    for p, piece in zip(parameters.values(), pieces, strict=True):
        p.data = piece.view_as(p)
    return vector
