"""Source: a read-only folder of DICOM files and a labels file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from client.dicom import UnreadableDicom, number_of_frames, read_frame, read_header
from client.errors import EmptySource, LabelsMatchNothing
from client.sources.acquisition import Acquisition, acquisition_reader
from client.sources.annotations import labels_of
from client.sources.labels import KEYS, Labels
from client.sources.labels_seg import is_segmentation
from client.sources.record import Listing, Record, Unreadable
from client.sources.settings import FolderSource
from tasks.task import Picture, Task


def list_folder(source: FolderSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """Every labelled image under the folder; see ``list_files``."""
    return list_files(source.path, labels_of(source, task), withdrawn, acquisition_reader(source, task))


def list_files(
    folder: Path,
    labels: Labels,
    withdrawn: frozenset[str],
    acquired: Callable[[Dataset], Acquisition],
    answered: Set[str] = frozenset(),
) -> Listing:
    """Every labelled DICOM image under a folder.

    Files that are no DICOM, have no label or no PatientID or a withdrawn patient, and labels that no file answers to,
    are counted. Labels in ``answered`` are known to have an image elsewhere and are not.

    Raises:
        EmptySource: no DICOM file is there.
        LabelsMatchNothing: no file has a label.
        SiteMisconfigured: the labels file is wrong.
    """
    left_out = Counter(labels.left_out)
    headers = list(_headers(folder, labels.key, acquired, left_out))
    if not headers:
        raise EmptySource(f"no DICOM file under {folder}; is the volume mounted?")
    records, used = _join(headers, labels, withdrawn, left_out)
    if not used:
        raise LabelsMatchNothing(
            f"none of {len(headers)} images has a label: {labels.path} is keyed by {labels.key}, of which it has "
            f"values like {next(iter(labels.values), 'none')!r}; the files have values like {headers[0].name!r}"
        )
    left_out["LABEL_WITHOUT_IMAGE"] += len(labels.values.keys() - used - answered)
    return Listing(records, +left_out)


@dataclass(frozen=True)
class _Header:
    """What is kept of a file's header; whole headers of a large archive would fill the memory."""

    path: Path
    name: str
    uid: str
    patient: str
    middle: int
    acquisition: Acquisition


def _headers(
    folder: Path, key: str, acquired: Callable[[Dataset], Acquisition], left_out: Counter[str]
) -> Iterator[_Header]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = read_header(path)
        except UnreadableDicom as error:
            left_out[str(error.reason)] += 1
            continue
        if is_segmentation(header):
            continue
        name, uid, patient = (str(header.get(keyword, "")).strip() for keyword in (key, KEYS[0], "PatientID"))
        yield _Header(path, name, uid, patient, number_of_frames(header) // 2, acquired(header))


def _join(
    headers: list[_Header], labels: Labels, withdrawn: frozenset[str], left_out: Counter[str]
) -> tuple[list[Record], set[str]]:
    records: dict[str, Record] = {}
    used: set[str] = set()
    for file in headers:
        if file.name in labels.values:
            used.add(file.name)
        if file.patient in withdrawn:
            left_out["WITHDRAWN"] += 1
        elif file.name not in labels.values:
            left_out["IMAGE_WITHOUT_LABEL"] += 1
        elif not file.patient:
            left_out["NO_PATIENT_ID"] += 1
        elif file.uid in records:
            left_out["DUPLICATE_INSTANCE"] += 1
        else:
            records[file.uid] = _record(file, labels.values[file.name])
    return list(records.values()), used


def _record(file: _Header, label: int) -> Record:
    stat = file.path.stat()
    signature = f"{stat.st_size}-{stat.st_mtime_ns}"
    middle = MiddleFrame(file.path, file.middle)
    return Record(file.patient, file.uid, label, signature, middle, acquisition=file.acquisition)


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
