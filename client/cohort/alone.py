"""Whatever is computed of one patient is a function of that patient alone, to the last bit.

Sums of products are not added up in the same order when other rows stand beside them: a matrix product treats the last
rows of a batch in another way than the rest. With weights that make the rounding large, somebody's presence then shows
in *others'* gradients and scores, which no clip and no count bounds (Casacuberta et al., "Widespread underestimation of
sensitivity in differentially private libraries", CCS 2022). So no two patients ever meet in one matrix product or
convolution: a linear layer is computed value by value, everything else patient by patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

_IMAGES_AT_ONCE = 128

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[..., R], *of_patients: Iterable[T]) -> list[R]:
    """What ``work`` gives for each patient, in order. Each has a processor thread of its own, also a patient who is
    alone: operators that share a sum out to several threads round it in another way."""
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


def outputs_of(module: nn.Module, inputs: Tensor, rows: list[Tensor]) -> Tensor:
    """What a module gives for each image, whoever else is there; without gradients.

    Args:
        inputs: shape (images, ...).
        rows: for each patient the numbers of its images; all together, every image once.

    Returns:
        Shape (images, outputs).
    """
    if is_linear(module):
        return torch.cat([linear_outputs(module, chunk) for chunk in torch.split(inputs, _IMAGES_AT_ONCE)])
    found = side_by_side(lambda of_one: _outputs_of_one(module, inputs[of_one]), rows)
    outputs = found[0].new_empty((len(inputs), *found[0].shape[1:]))
    for of_one, values in zip(rows, found, strict=True):
        outputs[of_one] = values
    return outputs


@torch.no_grad()  # this is of the thread that calls it
def _outputs_of_one(module: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([module(chunk) for chunk in torch.split(images, _IMAGES_AT_ONCE)])


def is_linear(module: nn.Module) -> bool:
    """Whether it is one linear layer of which all that there is is trained."""
    return type(module) is nn.Linear and all(p.requires_grad for p in module.parameters())


@torch.no_grad()
def linear_outputs(layer: nn.Module, inputs: Tensor) -> Tensor:
    """What a linear layer gives: products, then sums of halves. Every step rounds one value at a time (IEEE 754), so no
    row's place in the batch can matter.

    Args:
        inputs: shape (..., features).

    Returns:
        Shape (..., outputs).
    """
    parameters = dict(layer.named_parameters())
    outputs = torch.stack([_added_up(inputs * row) for row in parameters["weight"]], dim=-1)
    return outputs + parameters["bias"] if "bias" in parameters else outputs


def _added_up(values: Tensor) -> Tensor:
    """The sums along the last axis."""
    while (length := values.shape[-1]) > 1:
        half = length // 2
        sums = values[..., :half] + values[..., half : 2 * half]
        if length % 2:
            sums[..., :1] += values[..., -1:]
        values = sums
    return values[..., 0]
