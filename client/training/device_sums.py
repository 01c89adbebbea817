"""Sums of clipped gradients from a device beside the processor, which has a copy of the network.

Patients are computed one after the other, as everywhere (``client/cohort/alone.py``): on a GPU as well, what a product
of several patients' rows gives for one of them depends on the others. How many are in hand, whose images and gradients
are on the device at once, follows from the memory. Norms and sums are in double precision, on the device where it has
that, otherwise on the processor.

Which of the two computes a patient's gradient depends on that patient alone: one on whom the device fails is computed
by the processor, and the others stay where they are, since the two do not round alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.training.gradients import Loss, gradient_of
from tasks.machine.device import PROCESSOR, Placement, has_doubles, is_short_of_memory, tell

Draw = Callable[[list[int]], tuple[Tensor, Tensor]]
"""From patients' numbers to their images and labels, shapes (patients, images, ...), on the processor."""
Alone = Callable[[Tensor, Tensor], Tensor]
"""The processor's gradient of one patient, float32 of shape (parameters,), of its images and labels; NaN where it fails
as well."""
Add = Callable[[Tensor, Tensor], None]
"""Adds clipped rows, float32 of shape (patients, parameters), to a sum, float64 of shape (parameters,)."""


@dataclass(frozen=True)
class _Copy:
    """The network on the device, and its parameters that are trained."""

    module: nn.Module
    parameters: list[nn.Parameter]


class DeviceSums:
    """Computes on a device what ``PatientSteps`` adds up.

    Args:
        module: with the parameters that are trained, as views of ``vector``; neither is changed.
        alone: computes on the processor whom the device does not compute.
    """

    def __init__(self, module: nn.Module, vector: Tensor, loss: Loss, on: Placement, alone: Alone) -> None:
        self._module, self._vector, self._loss, self._on, self._alone = module, vector, loss, on, alone
        self._copied: _Copy | None = None
        self._told = False

    def sum_of(self, patients: list[int], draw: Draw, add: Add, at_once: int) -> Tensor:
        """The sum of the patients' gradients by the parameters as they are now.

        Args:
            at_once: of how many patients images and gradients are on the device.

        Returns:
            float64 of shape (parameters,), on the device where it has double precision.

        Raises:
            RuntimeError: the device does not do it.
        """
        there = self._up_to_date()
        doubles = has_doubles(self._on.device)
        where = self._on.device if doubles else PROCESSOR.device
        total = torch.zeros(self._vector.shape, dtype=torch.float64, device=where)
        for start in range(0, len(patients), at_once):
            rows = self._rows(there, *draw(patients[start : start + at_once]))
            add(total, rows if doubles else rows.to(where))
        return total

    def try_on(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The gradient of a fictitious patient, float32 of shape (1, parameters), on the processor again.

        Args:
            inputs, labels: shapes (1, images, ...), on the processor.

        Raises:
            RuntimeError: the device does not do it.
        """
        there = self._up_to_date()
        row = torch.empty(self._vector.shape, device=self._on.device)
        self._one(there, inputs[0].to(self._on.device), labels[0].to(self._on.device), row)
        return row[None].to(PROCESSOR.device)

    def _rows(self, there: _Copy, inputs: Tensor, labels: Tensor) -> Tensor:
        """Each patient's gradient, float32 of shape (patients, parameters), on the device."""
        device = self._on.device
        rows = torch.empty((len(inputs), len(self._vector)), device=device)
        for row, images, targets, on_device, targets_there in zip(
            rows, inputs, labels, inputs.to(device), labels.to(device), strict=True
        ):
            try:
                self._one(there, on_device, targets_there, row)
            except Exception as error:
                if len(rows) > 1 and isinstance(error, RuntimeError) and is_short_of_memory(error):
                    raise  # with fewer in hand it suffices
                self._tell(error)
                row.copy_(self._alone(images, targets))
        return rows

    def _one(self, there: _Copy, images: Tensor, targets: Tensor, row: Tensor) -> None:
        gradient_of(there.module, there.parameters, self._loss, images, targets, on=self._on, out=row)

    def _tell(self, error: Exception) -> None:
        if not self._told:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            tell(f"device {self._on.device}: a patient's gradient is the processor's: {said}")
        self._told = True

    @torch.no_grad()
    def _up_to_date(self) -> _Copy:
        """The copy, with the parameters' values, which come in one piece. Whatever may have become of it on a lost
        device, the network itself is the processor's."""
        if self._copied is None:
            module = copy.deepcopy(self._module).to(self._on.device)
            self._copied = _Copy(module, [p for p in module.parameters() if p.requires_grad])
        self._copied.module.train(self._module.training)
        values, parameters = self._vector.detach().to(self._on.device), self._copied.parameters
        for p, piece in zip(parameters, torch.split(values, [p.numel() for p in parameters]), strict=True):
            p.copy_(piece.view_as(p))
        return self._copied
