"""Whatever is computed of one patient is a function of that patient alone, to the last bit.

Sums of products are not added up in the same order when other rows stand beside them: a matrix product treats the last
rows of a batch in another way than the rest. With weights that make the rounding large, somebody's presence then shows
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
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

_LOG = logging.getLogger(__name__)
_ROWS_AT_ONCE = 128
_IMAGES_AT_ONCE = 8
"""Of a patient: one with hundreds of images must not need more memory than others, or a failure would tell of it."""

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

    Of a patient on whom it fails it gives NaN, which is told in the log and to nobody else: were it an error, all
    others' scores would be lost with it, and that somebody is there on whom it fails would show.

    Args:
        inputs: shape (images, ...).
        rows: for each patient the numbers of its images; all together, every image once.

    Returns:
        Shape (images, outputs).
    """
    if is_linear(module):
        return torch.cat([linear_outputs(module, chunk) for chunk in torch.split(inputs, _ROWS_AT_ONCE)])
    blank = _made_of(module, torch.zeros(1, *inputs.shape[1:]))[0]  # a model that cannot run at all says so here
    outputs = torch.full((len(inputs), *blank.shape), math.nan)
    found = side_by_side(lambda of_one: _outputs_of_one(module, inputs[of_one]), rows)
    for of_one, values in zip(rows, found, strict=True):
        if values is not None:
            outputs[of_one] = values
    return outputs


def _outputs_of_one(module: nn.Module, images: Tensor) -> Tensor | None:
    try:
        return torch.cat([_made_of(module, chunk) for chunk in torch.split(images, _IMAGES_AT_ONCE)])
    except Exception:
        _LOG.exception("a patient's images cannot be scored, and count as not told")
        return None


@torch.no_grad()  # this is of the thread that calls it
def _made_of(module: nn.Module, images: Tensor) -> Tensor:
    made: Tensor = module(images)
    return made


def is_linear(module: nn.Module) -> bool:
    """Whether it is one linear layer of which all that there is is trained."""
    return type(module) is nn.Linear and all(p.requires_grad for p in module.parameters())


def linear_outputs(layer: nn.Module, inputs: Tensor) -> Tensor:
    """What a linear layer gives: products, then the sum of each row by itself, which NumPy adds up in an order that
    follows from its length alone. So no row's place in the batch can matter.

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
