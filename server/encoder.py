"""``consilium encoder``: what an encoder's file is, and the file that hospitals get of it.

A ``.pth`` file is read with PyTorch's reader for tensors alone, which runs no code; whatever else it holds is refused.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors.torch import save
from torch import Tensor

from server.errors import StudyError
from tasks import task as tasks
from tasks.machine.disk import write_whole
from tasks.models.encoders import encoder_file, random_images
from tasks.models.encoders.directions import LEAST_IMAGES, Directions, fitted
from tasks.models.encoders.encoder_file import BadEncoder, PublicEncoder
from tasks.task import Picture, Task

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_WITHIN = ("state_dict", "model_state_dict", "model", "teacher", "encoder")
"""Where training programs put a network's tensors in what they save."""
_TIMED = 3
_SCATTERING = {2: (32, 3, 4, 4), 3: (16, 2, 3, 4)}
"""Resolution, J, L and pool that won on phantoms: `conf/model/scatter_linear_32.yaml`, `scatter_linear_3d_16.yaml`."""

DrawPhantoms = Callable[[str, int], Tensor]
"""From a task's name and a number of images to float32 (images, channels, ...) of phantoms."""


class EncoderRefused(StudyError):
    """The file is no encoder that can be used, or directions cannot be fitted."""


@dataclass(frozen=True)
class Wanted:
    """What the person says about the file, beside what it says itself.

    Attributes:
        facts: fields of ``Facts`` by name.
        directions: ``noise``, ``phantoms``, folders of public images: what directions are fitted to; none for none.
        task: whose transform brings these images into form.
        images: how many of each are looked at.
        scattering: resolution, J, L and pool, for scattering in place of a file.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    directions: Sequence[str] = ()
    task: str = ""
    images: int = 600
    scattering: Sequence[int] = ()

    def nothing(self) -> bool:
        """Whether the file is to stay as it is."""
        return not (self.facts or self.directions)


@dataclass(frozen=True)
class DescribedEncoder:
    """A file, as told.

    Attributes:
        path: of the file that can be used as ``model.weights``.
        digest: its SHA-256.
        size: bytes.
        encoder: what it holds.
        seconds: for one image.
        written: whether it is new.
    """

    path: Path
    digest: str
    size: int
    encoder: PublicEncoder
    seconds: float
    written: bool


def describe(file: Path, wanted: Wanted, out: Path | None, draw: DrawPhantoms) -> DescribedEncoder:
    """What the file is; a new one is written where it has to change, or where ``out`` says so.

    Raises:
        EncoderRefused: with what is wrong and what to do.
    """
    try:
        if not file.exists() and file.name == encoder_file.SCATTERING:
            return _of_scattering(wanted, out or Path(f"{wanted.task}.scattering.safetensors"), draw)
        content = encoder_file.content_of(file)
        pickled = file.suffix in PICKLED
        content = _tensors_of(content, file.name) if pickled else content
        encoder = _read(content, wanted.facts, file)
        if wanted.directions:
            encoder = replace(encoder, directions=_directions(encoder, wanted, draw))
        if pickled or out is not None or not wanted.nothing() or file.suffix not in encoder_file.SUFFIXES:
            path = out or file.with_name(f"{file.stem}.encoder.safetensors")
            packed = encoder_file.packed(content, encoder.facts, encoder.directions)
            write_whole(path, packed, mode=0o644)
            return _told(path, packed, encoder, written=True)
        return _told(file, content, encoder, written=False)
    except BadEncoder as error:
        raise EncoderRefused(f"{file}: {error}") from error


def _of_scattering(wanted: Wanted, out: Path, draw: DrawPhantoms) -> DescribedEncoder:
    """Directions of scattering: a small file, and the only one that is nobody else's."""
    axes = len(_task(wanted.task).example_shape) - 1
    content = encoder_file.of_scattering((*(wanted.scattering or _SCATTERING[axes]), axes))
    encoder = encoder_file.unpacked(content)
    found = replace(encoder, directions=_directions(encoder, wanted, draw)) if wanted.directions else encoder
    packed = encoder_file.packed(content, found.facts, found.directions)
    write_whole(out, packed, mode=0o644)
    return _told(out, packed, found, written=True)


def _read(content: bytes, told: dict[str, Any], file: Path) -> PublicEncoder:
    """The encoder, with facts that somebody has told in place of those that were assumed."""
    digest = hashlib.sha256(content if file.suffix not in PICKLED else file.read_bytes()).hexdigest()
    try:
        found = encoder_file.unpacked(content)
    except BadEncoder:
        if not told:
            raise
        found = encoder_file.unpacked(content, encoder_file.facts_of(content, told))
    changed = {name: _for_channels(value, found.channels) for name, value in told.items()}
    facts = encoder_file.with_facts(found.facts, changed | ({} if found.facts.source else {"source": digest}))
    return encoder_file.unpacked(content, facts)


def _for_channels(value: Any, channels: int) -> Any:
    return value * channels if isinstance(value, list) and len(value) == 1 else value


def _told(path: Path, content: bytes, encoder: PublicEncoder, written: bool) -> DescribedEncoder:
    side = encoder.facts.side or 128 // (encoder.axes - 1)
    image = torch.full((1, encoder.channels, *[side] * encoder.axes), 0.5)
    started = time.perf_counter()
    for _ in range(_TIMED):
        encoder.encode(image)
    seconds = (time.perf_counter() - started) / _TIMED
    digest = hashlib.sha256(content).hexdigest()
    return DescribedEncoder(path, digest, len(content), encoder, seconds=seconds, written=written)


def _tensors_of(content: bytes, name: str) -> bytes:
    """The tensors of a file that PyTorch has written, as safetensors."""
    try:
        held = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the reader's errors have no common class of their own
        raise BadEncoder(
            f"{name} holds more than tensors, or is damaged, and is not opened: what else it holds may run as a "
            "program. Where you trust it, save its tensors alone: torch.save(model.state_dict(), FILE) "
            f"({str(error).splitlines()[0][:120]})"
        ) from error
    for key in _WITHIN:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    tensors = {
        str(key): value.detach().clone().contiguous()
        for key, value in (held.items() if isinstance(held, Mapping) else ())
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise BadEncoder(f"{name} holds no tensors by name: save model.state_dict()")
    return save(tensors)


def _directions(encoder: PublicEncoder, wanted: Wanted, draw: DrawPhantoms) -> Directions:
    if wanted.images < LEAST_IMAGES:
        raise EncoderRefused(f"--images {wanted.images}: use {LEAST_IMAGES} or more")
    task = _task(wanted.task)
    channels, *size = task.example_shape
    if encoder.axes != len(size):
        raise EncoderRefused(f"the encoder takes {encoder.axes} axes and {task.name} has {len(size)}; take another one")
    features, told = [], []
    for source in wanted.directions:
        images, named = _images(source, task, wanted.images, draw)
        planes = images if encoder.channels == channels == images.shape[1] else images.reshape(-1, 1, *size)
        shown = planes[planes.flatten(1).any(dim=1)][: wanted.images]
        features += [encoder.encode(one[None]) for one in shown]
        told.append(f"{len(shown)} {named}")
    try:
        return fitted(torch.cat(features), ", ".join(told))
    except ValueError as error:
        raise EncoderRefused(str(error)) from error


def _images(source: str, task: Task, number: int, draw: DrawPhantoms) -> tuple[Tensor, str]:
    """Images in the form of a task's examples, and what they are."""
    if source == "noise":
        return random_images.drawn(number, task.example_shape[1:]), random_images.TOLD
    if task.moments and source != "phantoms":
        raise EncoderRefused(
            f"--directions {source}: {task.name} looks at several frames together, and a picture has one; "
            "use --directions noise or phantoms"
        )
    if source == "phantoms":
        return draw(task.name, number), f"phantoms of {task.name}"
    folder = Path(source)
    return _pictures(folder, task, number), f"images of the folder {folder.name}, declared to be public"


def _task(name: str) -> Task:
    if not name:
        raise EncoderRefused(
            "--directions needs --task TASK: its transform brings images into the form of its hospitals'"
        )
    try:
        return tasks.get(name)
    except tasks.UnknownTask as error:
        raise EncoderRefused(str(error)) from error


def _pictures(folder: Path, task: Task, most: int) -> Tensor:
    """Public pictures through the task's own transform, evenly from the whole folder."""
    if task.sequences:
        raise EncoderRefused(f"{task.name} reads volumes: fit its directions with --directions noise or phantoms")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES) if folder.is_dir() else []
    if len(files) < LEAST_IMAGES:
        raise EncoderRefused(
            f"--directions {folder}: has {len(files)} pictures ({', '.join(_PICTURES)}); use {LEAST_IMAGES} or more, "
            "or --directions noise, or --directions phantoms"
        )
    chosen = [files[index] for index in np.linspace(0, len(files) - 1, min(most, len(files))).astype(int)]
    examples = []
    for path in chosen:
        try:
            with Image.open(path) as image:
                grey = np.asarray(image.convert("F"), np.float32)
        except (OSError, UnidentifiedImageError) as error:
            raise EncoderRefused(f"{path} cannot be read: {error}") from error
        examples.append(task.read_example(Picture((grey / max(255.0, float(grey.max()))).clip(0, 1))))
    return torch.from_numpy(np.stack(examples))


def lines(found: DescribedEncoder) -> list[tuple[str, str]]:
    """What to tell of a file, by name."""
    encoder, facts = found.encoder, found.encoder.facts
    side = f"{facts.side} along each axis" if facts.side else "as large as the task gives them"
    kind = {2: "images", 3: "volumes"}[encoder.axes]
    widest = "none: model.directions=0, or fit some with --directions"
    if encoder.directions is not None:
        widest = f"{encoder.directions.axes.shape[1]}, from {encoder.directions.told}"
    return [
        ("layout", facts.layout),
        ("inputs", f"{kind}, {encoder.channels} channels, {side}"),
        ("mean, std", f"{_numbers(facts.mean)}; {_numbers(facts.std)} (of [0, 1]; --mean and --std if it was trained "
         "otherwise)"),
        ("outputs", f"{encoder.features} features, {found.seconds:.2g} s an image here"),
        ("directions", widest),
        ("licence", facts.licence or "not told: ask its publisher, and note it with --licence"),
        ("file", f"{found.path}, {found.size / 1e6:.1f} MB, {'written' if found.written else 'used as it is'}"),
        ("SHA-256", found.digest),
        ("hospitals", "put this file into the folder that site.yaml names as `weights`"),
        ("study", f"model=encoder model.weights={found.path}"),
    ]  # fmt: skip


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
