"""Source: some images of a MedMNIST archive. It does not identify patients, so every image counts as one.

Tested in ``tests/client/sources/files/test_manifest.py``.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from client.errors import EmptySource, SiteMisconfigured
from client.sources.record import Listing, Record, Side
from client.sources.settings import MedmnistSource
from client.sources.text_file import text_of
from tasks.task import Picture, Task

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
"""As MedMNIST publishes them, and in the order in which its images are numbered here."""


def list_medmnist(source: MedmnistSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """The images whose numbers are in ``source.indices``.

    Raises:
        EmptySource: there are none.
        SiteMisconfigured: the archive or the list of numbers cannot be used.
    """
    try:
        indices = [int(text) for text in text_of(source.indices).split()]
        images, labels, parts = read_archive(source)
        chosen = [(i, images[i], int(labels[i]), source.split_sides.get(parts[i])) for i in indices]
    except (OSError, ValueError, IndexError) as error:
        raise SiteMisconfigured(f"cannot use {source.path} with {source.indices}: {error}") from error
    if not chosen:
        raise EmptySource(f"{source.indices} lists no image")
    used = [_record(i, image, label, side) for i, image, label, side in chosen if side != "leave_out"]
    staying = [record for record in used if record.patient_id not in withdrawn]
    return Listing(staying, +Counter(WITHDRAWN=len(used) - len(staying), HELD_OUT=len(chosen) - len(used)))


def read_archive(source: MedmnistSource) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[Part]]:
    """Images (n, rows, columns), labels (n,) and parts of the archive's three parts, one after the other.

    Raises:
        ValueError: it is no MedMNIST archive of grey images with one label of two classes.
    """
    try:
        with np.load(source.path, allow_pickle=False) as archive:
            images = np.concatenate([archive[f"{part}_images"] for part in PARTS])
            labels = np.concatenate([archive[f"{part}_labels"] for part in PARTS]).reshape(-1).astype(np.int64)
            parts = [part for part in PARTS for _ in range(len(archive[f"{part}_labels"]))]
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a MedMNIST archive: {error}") from error
    if images.ndim != 3 or images.dtype != np.uint8 or set(np.unique(labels)) - {0, 1}:
        raise ValueError("the images must be 8-bit greyscale with one label, 0 or 1")
    return images, labels, parts


def _record(index: int, image: NDArray[np.uint8], label: int, side: Side | None) -> Record:
    name = f"image-{index:06d}"
    signature = hashlib.sha256(image.tobytes()).hexdigest()
    return Record(name, name, label, signature, partial(_picture, image), side=side)


def _picture(image: NDArray[np.uint8]) -> Picture:
    return Picture(image.astype(np.float32) / np.float32(255))
