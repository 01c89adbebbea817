"""Source: images and clips listed in a ``manifest.csv``, as public research sets come."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from client.errors import EmptySource, SiteMisconfigured
from client.sources.clips import Clip, is_clip
from client.sources.record import Listing, Record, Unreadable
from client.sources.settings import ManifestSource
from tasks.task import Picture, Task

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded."""


def list_manifest(source: ManifestSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """Every image of the manifest that belongs to this source; a clip gives the frames that the task takes of it.

    Raises:
        EmptySource: no row is left.
        SiteMisconfigured: the manifest cannot be read, lacks a column, has labels other than 0 and 1, or has videos
            where nothing can decode them.
    """
    rows = read_manifest(source.path, [source.patient_column, source.label_column, *source.where])
    members = None if source.patients is None else set(source.patients.read_text("utf-8").split())
    left_out: Counter[str] = Counter()
    records: dict[str, list[Record]] = {}
    for line, row in enumerate(rows, start=2):
        if any(row[column] not in values for column, values in source.where.items()):
            continue
        patient, label, name = row[source.patient_column].strip(), row[source.label_column].strip(), row["file"]
        if members is not None and patient not in members:
            continue
        if label not in ("0", "1"):
            raise SiteMisconfigured(f"{source.path}/manifest.csv line {line}: {source.label_column}={label!r}, not 0/1")
        if patient in withdrawn:
            left_out["WITHDRAWN"] += 1
        elif not patient:
            left_out["NO_PATIENT_ID"] += 1
        elif name in records:
            left_out["DUPLICATE_LABEL_ROW"] += 1
        else:
            records[name] = list(_records(source.path / name, name, patient, int(label), task))
    if not records and not left_out["WITHDRAWN"]:
        raise EmptySource(f"no row of {source.path}/manifest.csv is for this hospital (where {source.where})")
    return Listing([record for of_file in records.values() for record in of_file], +left_out)


def _records(path: Path, name: str, patient: str, label: int, task: Task) -> Iterator[Record]:
    signature = _signature(path)
    if not is_clip(path):
        yield Record(patient, name, label, signature, partial(_read_image, path))
        return
    try:
        clip = Clip(path, task.frames, MAX_PIXELS)
    except Unreadable as refusal:
        yield Record(patient, name, label, signature, partial(_refuse, refusal))
        return
    for frame in clip.wanted:
        number = name if len(clip.wanted) == 1 else f"{name} frame {frame}"
        yield Record(patient, number, label, signature, partial(clip.picture, frame))


def _refuse(refusal: Unreadable) -> Picture:
    raise refusal


def read_manifest(folder: Path, columns: list[str]) -> list[dict[str, str]]:
    """The rows of ``folder/manifest.csv``.

    Raises:
        SiteMisconfigured: it cannot be read or lacks one of the columns.
    """
    path = folder / "manifest.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"file", *columns} - set(reader.fieldnames or ())
            if missing:
                raise SiteMisconfigured(f"{path} lacks the column(s) {', '.join(sorted(missing))}")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SiteMisconfigured(f"cannot read {path}: {error}") from error


def _signature(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return "absent"
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _read_image(path: Path) -> Picture:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable("TOO_LARGE", str(path))
            deep = image.mode.startswith("I")
            pixels = np.asarray(image if deep else image.convert("L"), dtype=np.float32)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise Unreadable("DECODE_FAILED", f"{path}: {error}") from error
    if pixels.min() == pixels.max():
        raise Unreadable("CONSTANT_IMAGE", str(path))
    return Picture(pixels / np.float32(65535 if deep else 255))
