"""Source: a read-only folder of DICOM files and a labels file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.dicom import UnreadableDicom, number_of_frames, read_frame, read_header
from client.errors import EmptySource, LabelsMatchNothing
from client.sources.labels import KEYS, Labels, read_labels
from client.sources.record import Listing, Record, Unreadable
from client.sources.settings import FolderSource
from tasks.task import Picture, Task


def list_folder(source: FolderSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """Every labelled image under the folder; see ``list_files``."""
    return list_files(source.path, read_labels(source.labels, task.classes), withdrawn)


def list_files(folder: Path, labels: Labels, withdrawn: frozenset[str], answered: Set[str] = frozenset()) -> Listing:
    """Every labelled DICOM image under a folder.

    Files that are no DICOM, have no label or no PatientID or a withdrawn patient, and labels that no file answers to,
    are counted. Labels in ``answered`` are known to have an image elsewhere and are not.

    Raises:
        EmptySource: no DICOM file is there.
        LabelsMatchNothing: no file has a label.
        SiteMisconfigured: the labels file is wrong.
    """
    left_out = Counter(labels.left_out)
    headers = _headers(folder, left_out)
    if not headers:
        raise EmptySource(f"no DICOM file under {folder}; is the volume mounted?")
    records, used = _join(headers, labels, withdrawn, left_out)
    if not used:
        example = str(next(iter(headers.values())).get(labels.key, "absent"))
        raise LabelsMatchNothing(
            f"none of {len(headers)} images has a label: {labels.path} is keyed by {labels.key}, of which it has "
            f"values like {next(iter(labels.values), 'none')!r}; the files have values like {example!r}"
        )
    left_out["LABEL_WITHOUT_IMAGE"] += len(labels.values.keys() - used - answered)
    return Listing(records, +left_out)


def _headers(folder: Path, left_out: Counter[str]) -> dict[Path, Any]:
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            found[path] = read_header(path)
        except UnreadableDicom as error:
            left_out[str(error.reason)] += 1
    return found


def _join(
    headers: dict[Path, Any], labels: Labels, withdrawn: frozenset[str], left_out: Counter[str]
) -> tuple[list[Record], set[str]]:
    records: dict[str, Record] = {}
    used: set[str] = set()
    for path, header in headers.items():
        name = str(header.get(labels.key, "")).strip()
        uid, patient = str(header.get(KEYS[0], "")), str(header.get("PatientID", "")).strip()
        if name in labels.values:
            used.add(name)
        if patient in withdrawn:
            left_out["WITHDRAWN"] += 1
        elif name not in labels.values:
            left_out["IMAGE_WITHOUT_LABEL"] += 1
        elif not patient:
            left_out["NO_PATIENT_ID"] += 1
        elif uid in records:
            left_out["DUPLICATE_INSTANCE"] += 1
        else:
            stat = path.stat()
            signature = f"{stat.st_size}-{stat.st_mtime_ns}"
            middle = MiddleFrame(path, number_of_frames(header) // 2)
            records[uid] = Record(patient, uid, labels.values[name], signature, middle)
    return list(records.values()), used


@dataclass(frozen=True)
class MiddleFrame:
    """Reads the middle frame of a file: in a clip it is the one most likely to show what the clip was made for.

    Whoever decodes in processes of its own (``client/decoding.py``) takes ``path`` and ``index`` from here.
    """

    path: Path
    index: int

    def __call__(self) -> Picture:
        try:
            return read_frame(self.path, self.index)
        except UnreadableDicom as error:
            raise Unreadable(str(error.reason), str(error)) from error
