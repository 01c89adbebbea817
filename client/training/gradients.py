"""Each patient's own gradient, as one vector a patient, for any model and within a given memory.

What a patient's gradient is worth for privacy is ``client/privacy.py``'s business; here it is only computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, vmap
from torch.nn.modules.conv import _ConvNd

from client.errors import ModelRefused

_LOG = logging.getLogger(__name__)
_MOST_AT_ONCE = 256
_MEGABYTE = 2**20
_SMALL = 2 * _MEGABYTE
# What a step holds for every trained number besides its value, in bytes: momentum, sum, clipped gradient, noised
# gradient; and for each patient in hand its gradient, once in pieces and once as a vector.
_BYTES_A_PARAMETER, _BYTES_A_GRADIENT = 16, 8
# Each saved activation has a gradient of its size at some time of the backward pass.
_ACTIVATION_COPIES = 2

Loss = Callable[[Tensor, Tensor], Tensor]
"""From a patient's outputs and labels, shapes (images, ...), to the mean loss over its images."""


class Route(StrEnum):
    """How patients' gradients are computed, and why; chosen from model and shapes alone, never from timing.

    Under vmap weight gradients of convolutions become one grouped convolution, which is slow; a loop calls every
    operator once a patient, which is slow when there is little to do. Measured (tests/benchmarks/bench_dp_step.py,
    16 patients of 4 images, a network of two convolutions), CPU time in units of the plain step:

        kept for backward, MiB a patient    0.1   0.4   0.7   1.4   3.8   7.5
        loop                                4.2   2.5   2.0   1.4   0.9   0.7
        vmap                                1.7   1.7   1.3   1.2   1.8   1.6

    The loop gives each processor thread a patient of its own. Operators on a few images share badly among threads: of
    DenseNet121's step on two threads, patients in turn took 2.5 times the plain step, patients side by side 0.9.
    """

    NO_CONVOLUTION = "together under vmap: no convolution"
    SMALL = "together under vmap: convolutions of less than 2 MiB a patient"
    CONVOLUTIONS = "each for itself: convolutions of 2 MiB a patient or more"
    NOT_VECTORISED = "each for itself: vmap cannot run this model"

    @property
    def together(self) -> bool:
        """Whether one call computes several patients."""
        return self in (Route.NO_CONVOLUTION, Route.SMALL)


class PatientGradients:
    """Computes patients' gradients of a module's trainable parameters.

    The parameters become views of one vector, so that clipping, noise and the optimizer run once over it and not once
    a parameter. How many patients are in hand at a time follows from the memory that is allowed: the parameters' size
    is counted, and the activations are measured as what autograd keeps for one patient. They are at least one patient
    with all its images, because it is the whole patient's gradient that is clipped.

    Attributes:
        vector: all trainable parameters as one; shape (parameters,).
        route: how gradients are computed; ``None`` before ``choose_route``.
        patients_at_once: how many patients ``compute`` may be given; 1 before ``choose_route``.
    """

    def __init__(self, module: nn.Module, loss: Loss, max_memory_mb: int) -> None:
        """Prepare.

        Args:
            max_memory_mb: what a step may allocate on top of model and cohort, in MiB.

        Raises:
            ModelRefused: there is nothing to train, or it is not in float32.
        """
        self._module, self._loss, self._max_memory_mb = module, loss, max_memory_mb
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.vector = _one_vector(self._parameters)
        self.route: Route | None = None
        self.patients_at_once = self._affordable = 1
        self._threads = ThreadPoolExecutor(torch.get_num_threads(), "patient")

    def choose_route(self, inputs: Tensor, labels: Tensor) -> None:
        """Find out from one patient how to compute, and tell the log.

        Args:
            inputs: shape (1, images, ...).
            labels: shape (1, images, ...).

        Raises:
            ModelRefused: one patient at a time needs more memory than allowed, or the model keeps state of its own.
        """
        saved = self._bytes_saved(inputs[0], labels[0])
        self._affordable = self._patients_affordable(saved * _ACTIVATION_COPIES + inputs.nbytes + labels.nbytes)
        self._take(_route_of(self._module, saved))

    def _take(self, route: Route, why: str = "") -> None:
        self.route = route
        self.patients_at_once = min(self._affordable, _MOST_AT_ONCE if route.together else torch.get_num_threads())
        _LOG.info("patients' gradients %s; %d at a time%s", route, self.patients_at_once, why)

    def compute(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Each patient's gradient. A model that vmap cannot run is found out by the first call, and looped from then.

        Args:
            inputs: shape (patients, images, ...).
            labels: shape (patients, images, ...).

        Returns:
            float32 of shape (patients, parameters).
        """
        if self.route is not None and self.route.together:
            try:
                return self._together(inputs, labels)
            except Exception as error:  # whatever it is: if it is not vmap's, the loop meets it again and raises it
                self._take(Route.NOT_VECTORISED, f" ({type(error).__name__}: {str(error).partition(chr(10))[0]})")
        return self._each_for_itself(inputs, labels)

    def _together(self, inputs: Tensor, labels: Tensor) -> Tensor:
        def patient_loss(values: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
            return self._loss(functional_call(self._module, values, (images,)), targets)

        values = {name: p.detach() for name, p in self._parameters.items()}
        each = vmap(grad(patient_loss), in_dims=(None, 0, 0), randomness="different")(values, inputs, labels)
        rows = self.vector.new_empty((len(inputs), len(self.vector)))
        for name, columns in zip(values, torch.split(rows, [p.numel() for p in values.values()], dim=1), strict=True):
            columns.copy_(each.pop(name).flatten(start_dim=1))
        return rows

    def _each_for_itself(self, inputs: Tensor, labels: Tensor) -> Tensor:
        rows = self.vector.new_empty((len(inputs), len(self.vector)))
        if len(inputs) == 1:
            self._one(rows[0], inputs[0], labels[0])
        else:
            with _one_thread_an_operator():
                list(self._threads.map(self._one, rows, inputs, labels))
        return rows

    def _one(self, row: Tensor, images: Tensor, targets: Tensor) -> None:
        loss = self._loss(self._module(images), targets)
        each = torch.autograd.grad(loss, list(self._parameters.values()), materialize_grads=True)
        torch.cat([g.reshape(-1) for g in each], out=row)

    def _patients_affordable(self, bytes_of_one: int) -> int:
        fixed = len(self.vector) * _BYTES_A_PARAMETER
        each = len(self.vector) * _BYTES_A_GRADIENT + bytes_of_one
        affordable: int = (self._max_memory_mb * _MEGABYTE - fixed) // each
        if affordable < 1:
            raise ModelRefused(
                f"one patient's gradient needs about {-(-(fixed + each) // _MEGABYTE)} MiB, {self._max_memory_mb} MiB "
                "are allowed: raise max_memory_mb, draw fewer images of a patient, or take a smaller model"
            )
        return affordable

    def _bytes_saved(self, images: Tensor, targets: Tensor) -> int:
        """What autograd keeps of one patient for the backward pass, without the parameters, in bytes."""
        own = {p.untyped_storage().data_ptr() for p in self._module.parameters()} | {
            images.untyped_storage().data_ptr()
        }
        before = {name: b.clone() for name, b in self._module.named_buffers()}
        seen: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()

        with saved_tensors_hooks(count, lambda tensor: tensor):
            self._loss(self._module(images), targets)
        moved = [name for name, b in self._module.named_buffers() if not torch.equal(b, before[name])]
        if moved:
            raise ModelRefused(f"{', '.join(moved)} changes while the model runs, so patients leave traces in it")
        return sum(seen.values())


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


@contextmanager
def _one_thread_an_operator() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _route_of(module: nn.Module, bytes_saved: int) -> Route:
    if not any(isinstance(layer, _ConvNd) for layer in module.modules()):
        return Route.NO_CONVOLUTION
    return Route.SMALL if bytes_saved < _SMALL else Route.CONVOLUTIONS
