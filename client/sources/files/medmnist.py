"""Source: some images of a MedMNIST archive. It does not identify patients, so every image counts as one."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from client.errors import EmptySource, SiteMisconfigured
from client.reading.dicom import Measured
from client.sources.record import Listing, Record, Side
from client.sources.settings import MedmnistSource
from client.sources.text_file import text_of
from tasks.answers import Measure
from tasks.task import Picture, Scan, Task, Volume

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
"""As MedMNIST publishes them, and in the order in which its images are numbered here."""
_BROKEN = (OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises of a file that is no archive of arrays, of a damaged one, and of one that lacks an array."""


@dataclass(frozen=True)
class ArchiveImages:
    """The three parts of an archive, one after the other.

    Attributes:
        images: uint8 (images, rows, columns), with 3 colours behind them, or (images, slices, rows, columns).
        truths: float64 (images, questions), of the task's own question and of its secondary findings.
        parts: of each image.
    """

    images: NDArray[np.uint8]
    truths: NDArray[np.float64]
    parts: list[Part]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Of the answers to the task's own question."""
        return self.truths[:, 0].astype(np.int64)


def list_medmnist(source: MedmnistSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """The images whose numbers are in ``source.indices``.

    Raises:
        EmptySource: there are none.
        SiteMisconfigured: the archive or the list of numbers cannot be used.
    """
    archive = read_archive(source.path, task)
    try:
        indices = [int(text) for text in text_of(source.indices).split()]
        chosen = [(i, source.split_sides.get(archive.parts[i])) for i in indices]
    except (OSError, ValueError, IndexError) as error:
        raise SiteMisconfigured(f"cannot use {source.path} with {source.indices}: {error}") from error
    if not chosen:
        raise EmptySource(f"{source.indices} lists no image")
    used = [_record(archive, i, side, task) for i, side in chosen if side != "leave_out"]
    staying = [record for record in used if record.patient_id not in withdrawn]
    return Listing(staying, +Counter(WITHDRAWN=len(used) - len(staying), HELD_OUT=len(chosen) - len(used)))


def read_archive(path: Path, task: Task) -> ArchiveImages:
    """All of an archive, as the task reads it.

    Raises:
        SiteMisconfigured: it is no MedMNIST archive, or one that does not fit the task.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            images = [file[f"{part}_images"] for part in PARTS]
            labels = [file[f"{part}_labels"] for part in PARTS]
    except _BROKEN as error:
        raise SiteMisconfigured(
            f"{path} is no archive of MedMNIST ({error}): use an .npz that has images and labels of train, val and test"
        ) from error
    problem = _not_images(images, task) or _not_labels(labels, [len(each) for each in images], task)
    if problem:
        raise SiteMisconfigured(f"{path} does not fit task {task.name}: {problem}")
    parts = [part for part, some in zip(PARTS, images, strict=True) for _ in some]
    return ArchiveImages(np.concatenate(images), _truths(np.concatenate(labels), task), parts)


def _not_images(parts: list[NDArray[np.generic]], task: Task) -> str:
    """Why these cannot be its images; "" if they can."""
    channels, *sides = task.example_shape
    axes = ("images", *(("slices",) if task.sequences else ()), "rows", "columns")
    wanted = f"({', '.join([*axes, *([str(channels)] if channels > 1 else [])])})"
    for name, images in zip(PARTS, parts, strict=True):
        coloured = channels == 1 or images.shape[-1:] == (channels,)
        if images.dtype != np.uint8 or not coloured or images.ndim != 1 + len(sides) + (channels > 1):
            return f"{name}_images are {images.dtype} of shape {images.shape}, not uint8 of shape {wanted}"
    return ""


def _not_labels(parts: list[NDArray[np.generic]], sizes: list[int], task: Task) -> str:
    """Why these cannot be its labels; "" if they can."""
    if isinstance(task.answer, Measure):
        return "an archive has numbers of classes, and the task asks for a measured value"
    shapes, most = {1, len(task.secondary_findings) or 1}, task.answer.cells - 1
    for name, labels, size in zip(PARTS, parts, sizes, strict=True):
        if labels.shape not in [(size, columns) for columns in shapes] or labels.dtype.kind not in "iub":
            columns = " or ".join(map(str, sorted(shapes)))
            wanted = f"whole numbers of shape ({size}, {columns})"
            return f"{name}_labels are {labels.dtype} of shape {labels.shape}, not {wanted}"
        if size and not 0 <= int(labels.min()) <= int(labels.max()) <= most:
            return f"{name}_labels go from {labels.min()} to {labels.max()}, not from 0 to {most}"
    return ""


def _truths(labels: NDArray[np.generic], task: Task) -> NDArray[np.float64]:
    """Of several labels an image the question is whether it has any."""
    numbers = labels.astype(np.float64)
    several = numbers.shape[1] > 1
    return np.concatenate([numbers.max(axis=1, keepdims=True), numbers], axis=1) if several else numbers


def _record(archive: ArchiveImages, index: int, side: Side | None, task: Task) -> Record:
    image, truths = archive.images[index], archive.truths[index].tolist()
    name = f"image-{index:06d}"
    signature = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    read = partial(_slice, image) if task.sequences else partial(_picture, image)
    scan = partial(_scan, task.sequences[0].name, image) if task.sequences else None
    return Record(name, name, truths[0], signature, read, read_scan=scan, findings=tuple(truths[1:]), side=side)


def _picture(image: NDArray[np.uint8]) -> Picture:
    grey = image.astype(np.float32) / np.float32(255)
    planes = [grey] if grey.ndim == 2 else list(np.moveaxis(grey, -1, 0))
    return Picture(planes[0], beside=tuple(planes[1:]))


def _slice(image: NDArray[np.uint8]) -> Picture:
    return _picture(image[len(image) // 2])


def _scan(name: str, image: NDArray[np.uint8], _decode: Callable[[Path, int], Measured] | None) -> Scan:
    """A volume in space: voxels of 1 mm, as nothing is known of their size."""
    return Scan({name: Volume(image.astype(np.float32) / np.float32(255), np.eye(4))})
