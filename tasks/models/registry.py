"""Networks by name. Every one is private by construction: group normalisation, no state but its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conf import schema
from tasks.task import Form

_MOST_ORIENTATIONS = 32
_DENSENET_LEAST = 32
"""It halves rows and columns five times."""


@dataclass(frozen=True)
class Network:
    """A network in two parts.

    Attributes:
        features: the fixed part, or ``None``: no parameter of it is trained, so its output is computed once for each
            image and kept. Maps float32 (images, *``Form.shape``) to (images, ...).
        trainable: the part that is trained and travels; maps what ``features`` gives to logits of shape (images,
            outputs): of ``Form.findings``, and then, where the network outlines, of every pixel of the first
            structure, of the second, and so on, pixels in C order.
        outlines: whether the outputs include structures.
    """

    features: nn.Module | None
    trainable: nn.Module
    outlines: bool = False

    def outputs(self, inputs: Tensor) -> Tensor:
        """All logits, shape (images, outputs), of inputs of shape (images, *``Form.shape``)."""
        kept = inputs if self.features is None else self.features(inputs)
        logits: Tensor = self.trainable(kept)
        return logits

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits of the task's own question, shape (images,), of inputs of shape (images, *``Form.shape``)."""
        return self.outputs(inputs)[:, 0]


def arrays_of(trainable: nn.Module) -> dict[str, NDArray[np.float32]]:
    """The trained tensors by name, as float32 copies: what travels."""
    return {name: p.detach().numpy().copy() for name, p in trainable.named_parameters() if p.requires_grad}


def misfits(
    trainable: nn.Module, arrays: Mapping[str, NDArray[Any]], staying: frozenset[str] = frozenset()
) -> list[str]:
    """Why these tensors are not values of the trained parameters: every one that is missing, unknown, of another shape
    or type, or not finite. Those named in ``staying`` come from elsewhere."""
    expected = {name: p for name, p in trainable.named_parameters() if p.requires_grad and name not in staying}
    problems = [f"{name} is missing" for name in expected.keys() - arrays.keys()]
    problems += [f"{name} is unknown" for name in arrays.keys() - expected.keys()]
    for name in expected.keys() & arrays.keys():
        value, shape = arrays[name], tuple(expected[name].shape)
        if value.shape != shape or value.dtype != np.float32:
            problems.append(f"{name} is {value.dtype} {value.shape}, not float32 {shape}")
        elif not np.isfinite(value).all():
            problems.append(f"{name} has values that are not finite")
    return sorted(problems)


@torch.no_grad()
def load_arrays(trainable: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Give parameters the values of tensors that fit; see ``misfits``."""
    parameters = dict(trainable.named_parameters())
    for name, value in arrays.items():
        parameters[name].copy_(torch.from_numpy(value))


class UnknownModel(ValueError):
    """There is no such network, or it does not take such options."""


def build(spec: Mapping[str, Any], form: Form, seed: int = 0) -> Network:
    """The network that a ``conf.schema.Model`` describes.

    Args:
        spec: ``name`` and the options of one choice in ``conf/model/``.
        form: of the task, see ``tasks.task.Task.form``.
        seed: draws the initial weights; the caller's random state is left alone.

    Raises:
        UnknownModel: naming the unknown name or options, and what there is.
    """
    name = spec.get("name")
    if name not in _BUILDERS:
        raise UnknownModel(f"model.name={name!r}: must be one of {', '.join(sorted(_BUILDERS))}")
    options, builder = _BUILDERS[name]
    known = {f.name: f for f in fields(options)}
    wrong = [f"{k}={v!r}" for k, v in spec.items() if k not in known or (k != "name" and not _is_count(v))]
    if wrong:
        raise UnknownModel(f"model {name}: cannot use {', '.join(wrong)}; options are {', '.join(sorted(known))}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also queues seeds for devices, for ever
        try:
            return builder(options(**spec), form)
        except ValueError as error:
            raise UnknownModel(f"model {name}: {error}") from error


def outlines(spec: Mapping[str, Any], form: Form) -> bool:
    """Whether ``build`` would give a network that outlines; needs no time.

    Raises:
        UnknownModel: there is no such network.
    """
    return form.structures > 0 and spec.get("name") in _OUTLINE


_OUTLINE = frozenset({"scatter_linear", "unet", "segresnet", "dynunet"})


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _scatter_linear(options: schema.ScatterLinear, form: Form) -> Network:
    from tasks.models.scattering import ScatterFeatures

    if options.L > _MOST_ORIENTATIONS:  # memory grows with its square, and the number may come from the network
        raise ValueError(f"L={options.L}: use at most {_MOST_ORIENTATIONS} orientations")
    features = ScatterFeatures(
        shape=_rows_and_columns(form), resolution=options.resolution, J=options.J, L=options.L, pool=options.pool
    )
    head = nn.Linear(features.features, form.findings)
    nn.init.zeros_(head.weight)  # a convex problem: zero is the neutral start, and the same at every hospital
    nn.init.zeros_(head.bias)
    return Network(features, head)


def _densenet121(options: schema.DenseNet, form: Form) -> Network:
    from monai.networks.nets.densenet import DenseNet121

    network = DenseNet121(spatial_dims=2, in_channels=form.shape[0], out_channels=form.findings)
    return Network(_frame(_rows_and_columns(form), _DENSENET_LEAST), _with_group_norm(network, options.groups))


def _resnet18(options: schema.ResNet, form: Form) -> Network:
    from monai.networks.nets.resnet import resnet18

    network = resnet18(spatial_dims=2, n_input_channels=form.shape[0], num_classes=form.findings)
    return Network(None, _with_group_norm(network, options.groups))


def _rows_and_columns(form: Form) -> tuple[int, int]:
    if len(form.shape) != 3:
        raise ValueError(f"inputs of shape {form.shape} have no plane of rows and columns")
    return form.shape[1], form.shape[2]


def _frame(shape: tuple[int, int], least: int) -> nn.Module | None:
    """Zeros around images that are smaller than so many rows or columns, the same on both sides or one more behind."""
    rows, columns = (max(0, least - size) for size in shape)
    if not rows and not columns:
        return None
    return nn.ZeroPad2d((columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def _with_group_norm(network: nn.Module, groups: int) -> nn.Module:
    """The network with every batch normalisation exchanged.

    MONAI's own ``norm`` option does not reach the blocks of its ResNet (1.6.1), so it is not used for any.
    """
    if groups < 1:
        raise ValueError(f"groups={groups}: use 1 or more")
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(groups, child.num_features))
    return network


_BUILDERS: dict[str, tuple[type[Any], Callable[[Any, Form], Network]]] = {
    "scatter_linear": (schema.ScatterLinear, _scatter_linear),
    "densenet121": (schema.DenseNet, _densenet121),
    "resnet18": (schema.ResNet, _resnet18),
}
