"""Source: images, clips and NIfTI volumes listed in a CSV, as in public research sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from client.errors import EmptySource
from client.sources.files.clips import Clip, is_clip
from client.sources.files.manifest_rows import ManifestRow, manifest_rows
from client.sources.files.nifti import ReadNifti
from client.sources.labels.mask_files import MAX_PIXELS, files_of, image_size, read_mask_files
from client.sources.nifti_volume import NiftiReader, is_nifti
from client.sources.record import Listing, Record, Unreadable, signature_of
from client.sources.settings import ManifestSource
from tasks.task import Picture, Task


def list_manifest(source: ManifestSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """Every image of the manifest that belongs to this source; a clip gives the frames that the task uses.

    Rows of one file are joined: their masks, and what each knows of the findings. A file whose rows contradict each
    other in label or patient has no label at all. Both are counted, as are patients whom the published split keeps out
    (``HELD_OUT``) and labels that the source leaves out.

    Raises:
        EmptySource: no row is left.
        SiteMisconfigured: see ``manifest_rows``; or there are videos, and nothing that can decode them.
    """
    left_out: Counter[str] = Counter()
    rows: dict[str, ManifestRow | None] = {}
    for row in manifest_rows(source, task):
        if reason := _reason(row, withdrawn):
            left_out[reason] += 1
        elif row.file not in rows:
            rows[row.file] = row
        elif (before := rows[row.file]) is not None:
            rows[row.file] = _joined(before, row)
            left_out["CONTRADICTING_LABEL_ROWS" if rows[row.file] is None else "DUPLICATE_LABEL_ROW"] += 1
    kept = [row for row in rows.values() if row is not None]
    if not kept and not left_out["WITHDRAWN"]:
        why = ", ".join(f"{reason} {number}" for reason, number in sorted(left_out.items()))
        raise EmptySource(
            f"no row of {source.manifest} is for this hospital (where {source.where})" + (f"; {why}" if why else "")
        )
    records = [record for row in kept for record in _records(source, row, task, left_out)]
    return Listing(records, +left_out)


def _reason(row: ManifestRow, withdrawn: frozenset[str]) -> str:
    """Why a row is not used, "" if it is."""
    if row.patient in withdrawn:
        return "WITHDRAWN"
    if not row.patient:
        return "NO_PATIENT_ID"
    if row.held_out:
        return "HELD_OUT"
    if row.left_out:
        return "LABEL_LEFT_OUT"
    return "IMAGE_WITHOUT_LABEL" if row.label is None else ""


def _joined(one: ManifestRow, other: ManifestRow) -> ManifestRow | None:
    """Two rows of one file as one; ``None`` if they contradict each other in label or patient. Where they contradict
    each other in a finding, it is not known."""
    if (one.patient, one.label) != (other.patient, other.label):
        return None
    masks = tuple(";".join(dict.fromkeys([a, b])) for a, b in zip(one.masks, other.masks, strict=True))
    known = [{value for value in both if value is not None} for both in zip(one.findings, other.findings, strict=True)]
    return replace(one, masks=masks, findings=tuple(min(v) if len(v) == 1 else None for v in known))


def _records(source: ManifestSource, row: ManifestRow, task: Task, left_out: Counter[str]) -> Iterator[Record]:
    """The record of an image or a volume, or those of a clip's frames."""
    path = source.path / row.file
    whole = Record(
        patient_id=row.patient,
        image_id=row.file,
        label=row.label or 0,
        signature=_signature(path),
        read=partial(_read_image, path),
        findings=row.findings,
        side=row.side,
    )
    masks = [files_of(source.path, cell) for cell in row.masks]
    if is_nifti(path):
        left_out["MASK_OF_VOLUME"] += any(masks)
        yield _volume(whole, path, task)
        return
    if task.sequences:
        left_out["NOT_A_SCAN"] += 1
        return
    if not is_clip(path):
        yield _outlined(whole, path, masks, left_out)
        return
    left_out["MASK_OF_CLIP"] += any(masks)  # which frame it is of is not said
    try:
        clip = Clip(path, task.frames, MAX_PIXELS, task.beside)
    except Unreadable as refusal:
        yield replace(whole, read=partial(_refuse, refusal))
        return
    for frame in clip.wanted:
        name = whole.image_id if len(clip.wanted) == 1 else f"{whole.image_id} frame {frame}"
        yield replace(whole, image_id=name, read=partial(clip.picture, frame))


def _volume(record: Record, path: Path, task: Task) -> Record:
    """A volume as the task's first sequence; the row says what it is, so its name is not asked."""
    reader = NiftiReader(path)
    scan = ReadNifti({task.sequences[0].name: reader}) if task.sequences else None
    return replace(record, read=reader.picture, read_scan=scan)


def _outlined(record: Record, image: Path, masks: list[list[Path]], left_out: Counter[str]) -> Record:
    """The record with its masks, if every structure has some, of the right size."""
    if not any(masks):
        return record
    if not all(masks):
        left_out["MASK_INCOMPLETE"] += 1
        return record
    size = image_size(image)
    if size is None:
        return record  # the image itself will be refused
    sizes = {image_size(path) for files in masks for path in files}
    if sizes != {size}:
        left_out["MASK_UNREADABLE" if None in sizes else "MASK_OF_OTHER_SIZE"] += 1
        return record
    signatures = [_signature(path) for files in masks for path in files]
    signature = "+".join([record.signature, *signatures])
    return replace(record, signature=signature, read_masks=partial(read_mask_files, masks))


def _refuse(refusal: Unreadable) -> Picture:
    raise refusal


def _signature(path: Path) -> str:
    try:
        return signature_of(path)
    except OSError:
        return "absent"


def _read_image(path: Path) -> Picture:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable("TOO_LARGE", str(path))
            deep = image.mode.startswith("I")
            pixels = np.asarray(image if deep else image.convert("L"), dtype=np.float32)
    except FileNotFoundError as error:
        raise Unreadable("FILE_ABSENT", str(path)) from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise Unreadable("DECODE_FAILED", f"{path}: {error}") from error
    if pixels.min() == pixels.max():
        raise Unreadable("CONSTANT_IMAGE", str(path))
    return Picture(pixels / np.float32(65535 if deep else 255))
