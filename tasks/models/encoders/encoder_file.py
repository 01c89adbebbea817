"""An encoder's file: tensors in a layout that we know, an ONNX graph, or what ``consilium encoder`` has made of either.

What the command makes is safetensors with a head in JSON, the ``Facts``, and of a graph its bytes as a tensor. It may
carry ``Directions``. Everything that decides what the encoder computes is in the file, so its SHA-256 is all that an
order has to say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import interpolate

from tasks.models.encoders import graph, layouts
from tasks.models.encoders.directions import Directions
from tasks.models.encoders.facts import Facts
from tasks.models.encoders.tensors import Layer
from tasks.models.scatter import ScatterFeatures

SUFFIXES = (".safetensors", ".onnx")
MOST_BYTES = 3 << 29
"""1.5 GB; in half precision it may take three gigabytes of memory."""
MOST_FEATURES = 1 << 16
SCATTERING = "scattering"
_OPTIONS = 5
_TRIED = {2: 128, 3: 64}
"""Side of what an encoder is tried on that takes every size."""
_HEAD = "consilium-encoder"
_OURS = "consilium."
_GRAPH, _MEAN, _SPREAD, _AXES = (f"{_OURS}{name}" for name in ("graph", "mean", "spread", "axes"))
_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)
_LENGTH = 8


class BadEncoder(ValueError):
    """The file is no encoder that can be run; the text says why, and what to do."""


@dataclass(frozen=True)
class PublicEncoder:
    """Ready to run.

    Attributes:
        facts: what is known of it.
        channels, axes: of its input: 2 axes for images, 3 for volumes.
        features: how many values it gives for one image.
        directions: if the file has some.
        layer: float32 (images, channels, ...), as the encoder was trained on them, to float32 (images, features); on
            the processor.
        layer_on: the same for a device's images, whose tensors the device keeps.
    """

    facts: Facts
    channels: int
    axes: int
    features: int
    directions: Directions | None
    layer: Layer
    layer_on: Callable[[torch.device], Layer]

    @torch.no_grad()
    def encode(self, planes: Tensor) -> Tensor:
        """Features of float32 (images, 1 or ``channels``, ...) in [0, 1], of any size: float32 (images, features)."""
        size = (self.facts.side,) * self.axes if self.facts.side else tuple(planes.shape[2:])
        sized = planes if tuple(planes.shape[2:]) == size else _resized(planes, size)
        shape = (1, -1, *[1] * self.axes)
        mean, std = (torch.tensor(values).view(shape).to(planes.device) for values in (self.facts.mean, self.facts.std))
        layer = self.layer if planes.device.type == "cpu" else self.layer_on(planes.device)
        return layer((sized.expand(-1, self.channels, *sized.shape[2:]) - mean) / std)


def _resized(planes: Tensor, size: tuple[int, ...]) -> Tensor:
    if len(size) == 2:
        return interpolate(planes, size=size, mode="bilinear", align_corners=False, antialias=True)
    if all(there >= here for there, here in zip(planes.shape[2:], size, strict=True)):
        return interpolate(planes, size=size, mode="area")
    return interpolate(planes, size=size, mode="trilinear", align_corners=False)


def read(content: bytes) -> PublicEncoder:
    """The encoder in a file; the last two are kept.

    Raises:
        BadEncoder: it is none, or it does not run.
    """
    digest = hashlib.sha256(content).digest()
    if digest not in _READ:
        while len(_READ) >= _MOST_KEPT:
            _READ.pop(next(iter(_READ)))
        _READ[digest] = unpacked(content)
    return _READ[digest]


_MOST_KEPT = 2
_READ: dict[bytes, PublicEncoder] = {}
"""By the file's SHA-256: a round's orders come one after the other, and reading a large encoder takes a second."""


def unpacked(content: bytes, facts: Facts | None = None) -> PublicEncoder:
    """The encoder in a file, anew.

    Args:
        facts: in place of those in its head, or of its layout.

    Raises:
        BadEncoder: as ``read``.
    """
    if len(content) > MOST_BYTES:
        raise BadEncoder(f"it has {len(content) / 1e9:.1f} GB; an encoder may have {MOST_BYTES / 1e9:.1f}")
    try:
        if graph.is_graph(content) and not _is_safetensors(content):
            return _of_graph(content, facts, None)
        tensors, head = _opened(content)
        directions = _directions(tensors, head.directions if head else "")
        facts = facts or head
        if facts is not None and facts.layout == SCATTERING:
            return _scattering(facts, directions)
        if _GRAPH in tensors:
            return _of_graph(tensors[_GRAPH].numpy().tobytes(), facts, directions)
        own = _own(tensors)
        found = layouts.recognise(own, facts)
        made = _tried(found.facts, found.channels, found.axes, directions=directions, run=found.run)
        return replace(made, layer_on=cache(partial(_layer_on, own, found.facts)))
    except (graph.BadGraph, layouts.OtherLayout) as error:
        raise BadEncoder(str(error)) from error


def _layer_on(tensors: Mapping[str, Tensor], facts: Facts, device: torch.device) -> Layer:
    return layouts.recognise({name: tensor.to(device) for name, tensor in tensors.items()}, facts).run


def _is_safetensors(content: bytes) -> bool:
    length = int.from_bytes(content[:_LENGTH], "little")
    return length < len(content) and content[_LENGTH : _LENGTH + 1] == b"{"


def _opened(content: bytes) -> tuple[dict[str, Tensor], Facts | None]:
    try:
        tensors = load(content)
        length = int.from_bytes(content[:_LENGTH], "little")
        metadata = json.loads(content[_LENGTH : _LENGTH + length]).get("__metadata__") or {}
        head = _FACTS.validate_json(metadata[_HEAD]) if _HEAD in metadata else None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise BadEncoder(f"its head is of another release, or damaged: {problems}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadEncoder(
            f"it is neither safetensors nor ONNX ({error}); a .pth file becomes one by: consilium encoder FILE"
        ) from error
    return tensors, head


def _directions(tensors: Mapping[str, Tensor], told: str) -> Directions | None:
    if not {_MEAN, _SPREAD, _AXES} <= tensors.keys():
        return None
    mean, spread, axes = (tensors[name] for name in (_MEAN, _SPREAD, _AXES))
    fits = mean.shape == spread.shape == axes.shape[:1] and axes.dim() == 2
    if not fits or not all(t.dtype == torch.float32 and bool(torch.isfinite(t).all()) for t in (mean, spread, axes)):
        raise BadEncoder("its directions are damaged: fit them again, consilium encoder FILE --directions ...")
    return Directions(mean, spread, axes, told)


def of_scattering(options: Sequence[int]) -> bytes:
    """The content of a file without tensors: scattering, which needs none, but may get directions.

    Args:
        options: resolution, J, L, pool and axes.
    """
    return packed(b"", Facts(SCATTERING, 0, [0.0], [1.0], scattering=list(options)), None)


def _scattering(facts: Facts, directions: Directions | None) -> PublicEncoder:
    if len(facts.scattering) != _OPTIONS or facts.scattering[-1] not in (2, 3):
        raise BadEncoder(
            f"its scattering has options {facts.scattering}: must be resolution, J, L, pool, and 2 or 3 axes"
        )
    resolution, J, L, pool, axes = facts.scattering

    def run(images: Tensor) -> Tensor:
        fixed = ScatterFeatures(shape=tuple(images.shape[1:]), resolution=resolution, J=J, L=L, pool=pool)
        made: Tensor = fixed(images)
        return made

    return _tried(facts, 1, axes, directions=directions, run=run)


def _of_graph(content: bytes, facts: Facts | None, directions: Directions | None) -> PublicEncoder:
    facts, run, channels, axes = graph.read(content, facts)
    return _tried(facts, channels, axes, directions=directions, run=run)


def _tried(facts: Facts, channels: int, axes: int, *, directions: Directions | None, run: Layer) -> PublicEncoder:
    """The encoder after it has been run once, on nothing: what does not fit shows here and not at a patient."""
    if len(facts.mean) != channels or len(facts.std) != channels:
        raise BadEncoder(f"it takes {channels} channels, and has mean and std of {len(facts.mean)}, {len(facts.std)}")
    side = facts.side or _TRIED[axes]
    try:
        with torch.no_grad():
            made = run(torch.zeros(1, channels, *[side] * axes))
    except (RuntimeError, IndexError, ValueError) as error:
        raise BadEncoder(f"its tensors do not fit together: {str(error)[:300]}") from error
    if made.dim() != 2 or not 1 <= made.shape[1] <= MOST_FEATURES:
        raise BadEncoder(f"it gives values of shape {tuple(made.shape[1:])} for an image, and should give one vector")
    if not bool(torch.isfinite(made).all()):
        raise BadEncoder("it gives values that are not finite for an image of zeros")
    if directions is not None and len(directions.mean) != made.shape[1]:
        raise BadEncoder(f"its directions are of {len(directions.mean)} features, and it gives {made.shape[1]}")
    return PublicEncoder(
        facts, channels, axes, made.shape[1], directions=directions, layer=run, layer_on=lambda device: run
    )


def with_facts(facts: Facts, told: Mapping[str, Any]) -> Facts:
    """Facts with some of them as told.

    Raises:
        BadEncoder: one is no such fact, or out of bounds.
    """
    try:
        return _FACTS.validate_json(json.dumps(asdict(facts) | dict(told)))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise BadEncoder(problems) from error


def facts_of(content: bytes, told: Mapping[str, Any]) -> Facts | None:
    """Of a graph that cannot be read without being told its sizes or its output: what it says, and what is told.

    Raises:
        BadEncoder: as ``with_facts``.
    """
    if not graph.is_graph(content) or _is_safetensors(content):
        return None
    try:
        channels = graph.channels_of(content)
    except graph.BadGraph as error:
        raise BadEncoder(str(error)) from error
    told = {
        name: value * channels if name in ("mean", "std") and len(value) == 1 else value for name, value in told.items()
    }
    return with_facts(Facts("onnx", 0, *graph.norm_of(channels)), told)


def packed(content: bytes, facts: Facts, directions: Directions | None) -> bytes:
    """A file with a head, of an encoder's file with or without one; the same for the same."""
    facts = replace(facts, directions="" if directions is None else directions.told)
    metadata = {_HEAD: json.dumps(_FACTS.dump_python(facts), sort_keys=True, allow_nan=False)}
    tensors: dict[str, Tensor] = {}
    if facts.layout == SCATTERING:
        pass
    elif graph.is_graph(content) and not _is_safetensors(content):
        tensors = {_GRAPH: torch.from_numpy(np.frombuffer(bytearray(content), np.uint8))}
    else:
        every = _opened(content)[0]
        kept = () if _GRAPH in every else layouts.recognise(_own(every), facts).kept
        tensors = {name: every[name] for name in (*kept, *([_GRAPH] if _GRAPH in every else []))}
    if directions is not None:
        tensors |= {_MEAN: directions.mean, _SPREAD: directions.spread, _AXES: directions.axes}
    return save({name: tensor.contiguous() for name, tensor in sorted(tensors.items())}, metadata)


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_OURS)}


def content_of(file: Path) -> bytes:
    """The content of a file that may be an encoder.

    Raises:
        BadEncoder: it is too large, or cannot be read.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BadEncoder(f"{file.name} has more than {MOST_BYTES / 1e9:.1f} GB")
        return file.read_bytes()
    except OSError as error:
        raise BadEncoder(f"{file.name} cannot be read: {error.strerror}") from error
