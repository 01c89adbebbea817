"""Source: images and clips listed in a ``manifest.csv``, as in public research sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from client.errors import EmptySource, SiteMisconfigured
from client.sources.files.clips import Clip, is_clip
from client.sources.labels.mask_files import MAX_PIXELS, files_of, image_size, read_mask_files
from client.sources.labels.rows import TextTable, listed, read_table, shown
from client.sources.labels.table import Findings, finding_of, wrong_findings
from client.sources.record import Listing, Record, Unreadable, signature_of
from client.sources.settings import ManifestSource
from tasks.task import Picture, Task


def list_manifest(source: ManifestSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """Every image of the manifest that belongs to this source; a clip gives the frames that the task uses.

    Raises:
        EmptySource: no row is left.
        SiteMisconfigured: the manifest cannot be read, lacks a column, has labels or findings other than 0 and 1, or
            has videos where nothing can decode them.
    """
    of_findings, of_masks = source.finding_columns.values(), source.mask_columns.values()
    columns = [source.patient_column, source.label_column, *source.where, *of_findings, *of_masks]
    table = _manifest(source.path, columns)
    members = None if source.patients is None else _members(source.patients)
    left_out: Counter[str] = Counter()
    records: dict[str, list[Record]] = {}
    wrong: list[str] = []
    for line, row in zip(table.lines, table.rows, strict=True):
        if any(row[column] not in values for column, values in source.where.items()):
            continue
        patient, label, name = row[source.patient_column].strip(), row[source.label_column].strip(), row["file"]
        if members is not None and patient not in members:
            continue
        if label not in ("0", "1"):
            raise SiteMisconfigured(
                f"{source.path}/manifest.csv line {line}: {source.label_column}={shown(label)}, not 0/1"
            )
        if unclear := wrong_findings(row, of_findings):
            wrong.append(f"line {line}: {', '.join(unclear)}")
        elif patient in withdrawn:
            left_out["WITHDRAWN"] += 1
        elif not patient:
            left_out["NO_PATIENT_ID"] += 1
        elif name in records:
            left_out["DUPLICATE_LABEL_ROW"] += 1
        else:
            path, findings = source.path / name, _findings(source, row, task)
            still = partial(_read_image, path)
            whole = Record(
                patient_id=patient,
                image_id=name,
                label=int(label),
                signature=_signature(path),
                read=still,
                findings=findings,
            )
            records[name] = list(_records(source, row, whole, task, left_out))
    if wrong:
        raise SiteMisconfigured(
            f"{source.path}/manifest.csv: a finding must be 0, 1 or empty (not known):\n  {listed(wrong)}"
        )
    if not records and not left_out["WITHDRAWN"]:
        raise EmptySource(f"no row of {source.path}/manifest.csv is for this hospital (where {source.where})")
    return Listing([record for of_file in records.values() for record in of_file], +left_out)


def _findings(source: ManifestSource, row: dict[str, str], task: Task) -> Findings:
    if not source.finding_columns:
        return ()
    columns = [source.finding_columns.get(finding.name) for finding in task.secondary_findings]
    return tuple(None if column is None else finding_of(row[column]) for column in columns)


def _records(
    source: ManifestSource, row: dict[str, str], whole: Record, task: Task, left_out: Counter[str]
) -> Iterator[Record]:
    """The record of an image, or those of a clip's frames, from that of the whole file."""
    path = source.path / whole.image_id
    masks = [
        files_of(source.path, row[source.mask_columns[one.name]]) for one in task.structures if source.mask_columns
    ]
    if not is_clip(path):
        yield _outlined(whole, path, masks, left_out)
        return
    left_out["MASK_OF_CLIP"] += any(masks)  # which frame it is of is not said
    try:
        clip = Clip(path, task.frames, MAX_PIXELS)
    except Unreadable as refusal:
        yield replace(whole, read=partial(_refuse, refusal))
        return
    for frame in clip.wanted:
        name = whole.image_id if len(clip.wanted) == 1 else f"{whole.image_id} frame {frame}"
        yield replace(whole, image_id=name, read=partial(clip.picture, frame))


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


def read_manifest(folder: Path, columns: list[str]) -> list[dict[str, str]]:
    """The rows of ``folder/manifest.csv``.

    Raises:
        SiteMisconfigured: it cannot be read or lacks one of the columns.
    """
    return _manifest(folder, columns).rows


def _manifest(folder: Path, columns: list[str]) -> TextTable:
    path = folder / "manifest.csv"
    table = read_table(path, delimiter=",")
    if missing := {"file", *columns} - set(table.columns):
        raise SiteMisconfigured(f"{path} lacks the column(s) {', '.join(sorted(missing))}")
    return table


def _members(path: Path) -> set[str]:
    try:
        return set(path.read_text("utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise SiteMisconfigured(f"cannot read the list of patients {path}: {error}") from error


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
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise Unreadable("DECODE_FAILED", f"{path}: {error}") from error
    if pixels.min() == pixels.max():
        raise Unreadable("CONSTANT_IMAGE", str(path))
    return Picture(pixels / np.float32(65535 if deep else 255))
