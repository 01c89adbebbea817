"""Networks by name. Every one is private by construction: group normalisation, no state but its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from conf.schema import model as schema
from tasks.input_spec import InputSpec
from tasks.models import deep, frozen, installed, linear, segmenting
from tasks.models.network import Network
from tasks.models.weights import Finder, NoWeights, equipped, file_of

LARGEST = 1e4
"""No value of a model is larger, on either side: sums of products stay far below float32's limits, and nobody can probe
a hospital with weights that overflow on one patient's image."""


def arrays_of(trainable: nn.Module) -> dict[str, NDArray[np.float32]]:
    """The trained tensors by name, as float32 copies: what is sent."""
    return {name: p.detach().numpy().copy() for name, p in trainable.named_parameters() if p.requires_grad}


def misfits(
    trainable: nn.Module, arrays: Mapping[str, NDArray[Any]], staying: frozenset[str] = frozenset()
) -> list[str]:
    """Why these tensors are not values of the trained parameters: every one that is missing, unknown, of another shape
    or type, not finite, or larger than ``LARGEST``. Those named in ``staying`` are stored at the hospital."""
    expected = {name: p for name, p in trainable.named_parameters() if p.requires_grad and name not in staying}
    problems = [f"{name} is missing" for name in expected.keys() - arrays.keys()]
    problems += [f"{name} is unknown" for name in arrays.keys() - expected.keys()]
    for name in expected.keys() & arrays.keys():
        value, shape = arrays[name], tuple(expected[name].shape)
        if value.shape != shape or value.dtype != np.float32:
            problems.append(f"{name} is {value.dtype} {value.shape}, not float32 {shape}")
        elif not np.isfinite(value).all():
            problems.append(f"{name} has values that are not finite")
        elif value.size and np.abs(value).max() > LARGEST:
            problems.append(f"{name} has values beyond {LARGEST:g}, which no converging training reaches")
    return sorted(problems)


@torch.no_grad()
def load_arrays(trainable: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Set the parameters to the values of tensors that fit; see ``misfits``."""
    parameters = dict(trainable.named_parameters())
    for name, value in arrays.items():
        parameters[name].copy_(torch.from_numpy(value))


class UnknownModel(ValueError):
    """There is no such network, or it does not have such options."""


class WeightsMissing(UnknownModel):
    """A network's file of weights is missing."""


class EntryRefused(UnknownModel):
    """A network of another package is not installed, is of another version, or cannot be trained privately."""


def build(spec: Mapping[str, Any], form: InputSpec, seed: int = 0, find: Finder | None = None) -> Network:
    """The network that a class of ``conf/schema/model.py`` describes.

    >>> from tasks import task as tasks
    >>> network = build({"name": "scatter_linear", "resolution": 32}, tasks.get("breast_ultrasound").form)
    >>> {name: array.shape for name, array in arrays_of(network.trainable).items()}
    {'weight': (1, 452), 'bias': (1,)}

    Args:
        spec: ``name`` and the options of one choice in ``conf/model/``.
        form: of the task, see ``tasks.task.Task.form``.
        seed: draws the initial weights; the caller's random state is left alone.
        find: where a file of weights is; ``None`` where there is none, or where the caller brings values of all that is
            trained.

    Raises:
        UnknownModel: naming the unknown name or options, and what there is.
        WeightsMissing: ``find`` does not find the network's file of weights.
        EntryRefused: see ``tasks.models.installed``.
    """
    name = spec.get("name")
    options = _OPTIONS.get(str(name))
    if options is None:
        raise UnknownModel(f"model.name={name!r}: must be one of {', '.join(sorted(_OPTIONS))}")
    known = {f.name: f for f in fields(options)}
    wrong = [f"{k}={v!r}" for k, v in spec.items() if k not in known or (k != "name" and not _fits(k, v))]
    if wrong:
        raise UnknownModel(f"model {name}: cannot use {', '.join(wrong)}; options are {', '.join(sorted(known))}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also queues seeds for devices, for ever
        try:
            if name == _ON_A_FILE:
                return frozen.encoder(options(**spec), form, file_of(str(spec.get("weights", "")), find))
            if name == _BEGINS_WITH_OUTLINES and spec.get("weights"):
                return linear.scatter_outline(options(**spec), form, file_of(str(spec["weights"]), find))
            network = _BUILDERS[str(name)](options(**spec), form)
            if digest := spec.get("weights"):
                network = equipped(network, form, digest, spec.get("freeze", "nothing"), find)
            elif spec.get("freeze", "nothing") != "nothing":
                raise ValueError(f"freeze={spec['freeze']!r} needs weights=FILE")
            if schema.is_foreign(spec):
                installed.refuse_unfit(network, options(**spec), form)
            return network
        except installed.NotUsable as error:
            raise EntryRefused(f"model.entry={spec.get('entry')}: {error}") from error
        except NoWeights as error:
            raise WeightsMissing(f"model {name}: {error}") from error
        except ValueError as error:
            raise UnknownModel(f"model {name}: {error}") from error


def outlines(spec: Mapping[str, Any], form: InputSpec) -> bool:
    """Whether ``build`` would give a network that outlines, without building it; ``False`` for an unknown one."""
    return form.structures > 0 and spec.get("name") in _OUTLINE


_OUTLINE = frozenset({"scatter_outline", "unet", "segresnet", "dynunet"})


def _fits(option: str, value: object) -> bool:
    if option in ("weights", "freeze", "entry", "version"):
        return isinstance(value, str)
    return type(value) is int and value >= 0


_BUILDERS: dict[str, Callable[[Any, InputSpec], Network]] = {
    "scatter_linear": linear.scatter_linear,
    "scatter_outline": linear.scatter_outline,
    "densenet121": deep.densenet121,
    "resnet18": deep.resnet18,
    "efficientnet": deep.efficientnet,
    "vit": deep.vit,
    "unet": segmenting.unet,
    "segresnet": segmenting.segresnet,
    "dynunet": segmenting.dynunet,
    "custom": installed.build,
}
_ON_A_FILE = "encoder"
"""The network that is nothing without its file."""
_BEGINS_WITH_OUTLINES = "scatter_outline"
"""The network that may have a file of outlines, which stays as it is."""
_OPTIONS: dict[str, type[Any]] = {
    "scatter_linear": schema.ScatterLinear,
    "scatter_outline": schema.ScatterOutline,
    "densenet121": schema.DenseNet,
    "resnet18": schema.ResNet,
    "efficientnet": schema.EfficientNet,
    "vit": schema.ViT,
    "unet": schema.UNet,
    "segresnet": schema.SegResNet,
    "dynunet": schema.DynUNet,
    "custom": schema.Custom,
    _ON_A_FILE: schema.Encoder,
}
