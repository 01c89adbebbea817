"""Whatever is computed of one patient is a function of that patient alone, to the last bit.

Sums of products are not added in the same order when other rows are present: a matrix product treats the last rows of a
batch differently from the rest. With weights that make rounding errors large, a patient's presence then shows
in *others'* gradients and scores, which no clip and no count bounds (Casacuberta et al., "Widespread underestimation of
sensitivity in differentially private libraries", CCS 2022). So no two patients ever meet in one matrix product or
convolution: a linear layer is computed row by row, everything else patient by patient.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from client.cohort.on_device import OnDevice
from tasks.machine.device import PROCESSOR, Placement

_LOG = logging.getLogger(__name__)
_ROWS_AT_ONCE = 128
_IMAGES_AT_ONCE = 8
"""Per patient: one with hundreds of images must not need more memory than others, or a failure would reveal it."""

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[..., R], *of_patients: Iterable[T]) -> list[R]:
    """The results of ``work`` for each patient, in order. Each patient gets a processor thread, even a single one:
    operators that distribute a sum over several threads round it differently."""
    with ThreadPoolExecutor(torch.get_num_threads(), "patient") as threads, _one_thread_an_operator():
        return list(threads.map(work, *of_patients))


@contextmanager
def _one_thread_an_operator() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def outputs_of(module: nn.Module, inputs: Tensor, rows: list[Tensor], on: Placement = PROCESSOR) -> Tensor:
    """A module's output for each image, independent of all others; without gradients.

    Of a patient on whom it fails it gives NaN, which is told in the log and to nobody else: were it an error, all
    others' scores would be lost with it, and that somebody is there on whom it fails would show.

    Args:
        inputs: shape (images, ...).
        rows: for each patient the numbers of its images; all together, every image once.
        on: where they are computed, unless the module is one linear layer; patients in turn on a device.

    Returns:
        Shape (images, outputs).
    """
    if is_linear(module):
        return torch.cat([linear_outputs(module, chunk) for chunk in torch.split(inputs, _ROWS_AT_ONCE)])
    blank = _made_of(module, torch.zeros(1, *inputs.shape[1:]))[0]  # a model that cannot run at all says so here
    outputs = torch.full((len(inputs), *blank.shape), math.nan)
    if on.beside:
        there = OnDevice(module, on, _IMAGES_AT_ONCE)
        found = [_value_or_none(there, inputs[of_one]) for of_one in rows]
    else:
        found = side_by_side(lambda of_one: _value_or_none(partial(_in_portions, module), inputs[of_one]), rows)
    for of_one, values in zip(rows, found, strict=True):
        if values is not None:
            outputs[of_one] = values
    return outputs


def _value_or_none(made: Callable[[Tensor], Tensor], images: Tensor) -> Tensor | None:
    try:
        return made(images)
    except Exception:
        _LOG.exception("a patient's images cannot be scored; the score is undefined")
        return None


def _in_portions(module: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([_made_of(module, chunk) for chunk in torch.split(images, _IMAGES_AT_ONCE)])


@torch.no_grad()  # this is of the thread that calls it
def _made_of(module: nn.Module, images: Tensor) -> Tensor:
    made: Tensor = module(images)
    return made


def is_linear(module: nn.Module) -> bool:
    """Whether it is a single linear layer whose parameters are all trained."""
    return type(module) is nn.Linear and all(p.requires_grad for p in module.parameters())


def linear_outputs(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A linear layer's output: products, then the sum of each row by itself, which NumPy adds in an order that depends
    only on its length. So a row's position in the batch cannot matter.

    Args:
        inputs: shape (..., features).

    Returns:
        Shape (..., outputs).
    """
    parameters = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    values = inputs.numpy()
    with np.errstate(all="ignore"):  # what is no number is dealt with by whoever reads it
        outputs = np.stack([np.add.reduce(values * row, axis=-1) for row in parameters["weight"]], axis=-1)
        if "bias" in parameters:
            outputs = outputs + parameters["bias"]
    return torch.from_numpy(outputs)
