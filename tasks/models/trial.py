"""A network of unknown make tried on noise: whether it can be trained privately and gives what its task asks for.

Consilium's own networks are so by construction, which their tests show. One that comes from elsewhere is tried where it
is built: at the researcher before any hospital is asked, and at each hospital before anything is opened. No patient's
image is involved.

Tested in ``tests/tasks/models/test_installed.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tasks.input_spec import InputSpec
from tasks.models.network import Network
from tasks.models.unprivate import unprivate_layers

_IMAGES = 3
_DARK = 0.1
"""The others' brightness: what looks across images sees it in the first one."""
_TOLERANCE = 1e-3
"""Sums of products round differently in other company, but not by so much."""


def problems(network: Network, form: InputSpec) -> list[str]:
    """Everything that speaks against a network, each with the remedy; empty if nothing does. Opacus' reasons come
    alone: most others would follow from them.

    Raises:
        Exception: whatever the network raises.
    """
    if unprivate := unprivate_layers(network.trainable):
        return unprivate
    return [*_of_parameters(network.trainable)] or [*_of_outputs(network, form)]


def _of_parameters(trainable: nn.Module) -> Iterator[str]:
    trained = {name: p for name, p in trainable.named_parameters() if p.requires_grad}
    if not trained:
        yield "it has nothing to train"
    if fixed := [name for name, _ in trainable.named_parameters() if name not in trained]:
        yield f"{', '.join(fixed)}: not trained, so never sent and drawn anew at each hospital; use buffers"
    if odd := [name for name, p in trained.items() if p.dtype != torch.float32]:
        yield f"{', '.join(odd)}: must be float32"


def _of_outputs(network: Network, form: InputSpec) -> Iterator[str]:
    trainable = network.trainable.train()
    images = torch.rand(_IMAGES, *form.shape, generator=torch.Generator().manual_seed(1))
    images[1:] *= _DARK
    before = {name: value.clone() for name, value in trainable.named_buffers()}
    outputs, wanted = network.outputs(images), (_IMAGES, form.outputs)
    if tuple(outputs.shape) != wanted:
        yield f"it gives outputs of shape {tuple(outputs.shape)} for {_IMAGES} images, not {wanted}"
        return
    if not bool(torch.isfinite(outputs).all()):
        yield "it gives outputs that are not finite on noise between 0 and 1"
        return
    if moved := [name for name, value in trainable.named_buffers() if not torch.equal(value, before[name])]:
        yield f"{', '.join(moved)}: changes while the network runs, so patients would leave traces; keep no statistics"
    if not _alike(outputs, network.outputs(images)):
        yield "it gives another output for the same image while it trains: take out what is random, such as dropout"
    elif not _alike(outputs[:1], network.outputs(images[:1])):
        yield "an image's output depends on the other images: let no layer look across the first axis"
    yield from _of_gradients(trainable, outputs)


def _of_gradients(trainable: nn.Module, outputs: Tensor) -> Iterator[str]:
    if not outputs.requires_grad:
        yield "its outputs do not depend on anything that is trained"
        return
    trained = {name: p for name, p in trainable.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(outputs.sum(), list(trained.values()), materialize_grads=True)
    broken = [name for name, g in zip(trained, gradients, strict=True) if not bool(torch.isfinite(g).all())]
    if broken:
        yield f"{', '.join(broken)}: has a gradient that is not finite on noise between 0 and 1"


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool(torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE))
