"""Source: a read-only folder of DICOM files and a labels file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from client.errors import EmptySource, LabelsMatchNothing
from client.pixels.pixel_format import number_of_frames
from client.pixels.refusal import UnreadableDicom
from client.reading.dicom import read_header
from client.sources.acquisition import Acquisition, acquisition_reader
from client.sources.files.scans import list_scans
from client.sources.frame import Frame
from client.sources.labels.annotations import labels_of
from client.sources.labels.outlines import FrameOutlines
from client.sources.labels.own import is_own
from client.sources.labels.segmentations import OWN, is_segmentation
from client.sources.labels.table import KEYS, Labels
from client.sources.record import Listing, Record, signature_of
from client.sources.settings import FolderSource
from tasks.task import Task


def list_folder(source: FolderSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """Every labelled image under the folder; see ``list_files``, and for tasks of volumes ``list_scans``."""
    return list_files(source.path, labels_of(source, task), withdrawn, acquisition_reader(source, task), task)


def list_files(
    folder: Path,
    labels: Labels,
    withdrawn: frozenset[str],
    acquired: Callable[[Dataset], Acquisition],
    task: Task,
    answered: Set[str] = frozenset(),
) -> Listing:
    """Every labelled DICOM image under a folder; a multi-frame file gives the frames that ``task.frames`` chooses.

    Files that are no DICOM, and labels that no file answers to, are counted; so are the images of files that have no
    label or no PatientID or a withdrawn patient. Labels in ``answered`` are not: they are known to have an image
    elsewhere. DICOM segmentations in the folder are what was outlined on the images, see
    ``client/sources/labels/outlines.py``. A task with sequences reads scans: ``client/sources/files/scans.py``.

    Raises:
        EmptySource: no DICOM file is there.
        LabelsMatchNothing: no file has a label.
        SiteMisconfigured: the labels file is wrong.
    """
    if task.sequences:
        return list_scans(folder, labels, withdrawn=withdrawn, acquired=acquired, task=task, answered=answered)
    left_out = Counter(labels.left_out)
    segmentations: list[Path] = []
    headers = list(
        _headers(
            folder, labels.key, acquired=acquired, frames=task.frames, left_out=left_out, segmentations=segmentations
        )
    )
    if not headers:
        raise EmptySource(f"no DICOM file under {folder}; is the volume mounted?")
    outlines = FrameOutlines(segmentations, task.structures) if task.structures else None
    records, used = _join(headers, labels, withdrawn, left_out, outlines)
    if not used:
        raise LabelsMatchNothing(
            f"none of {len(headers)} images has a label: {labels.path} is keyed by {labels.key}, with "
            f"values like {next(iter(labels.values), 'none')!r}; the files have values like {headers[0].name!r}"
        )
    left_out["LABEL_WITHOUT_IMAGE"] += len(labels.values.keys() - used - answered)
    if outlines is not None:
        left_out.update(outlines.left_out)
    return Listing(records, +left_out, list(labels.warnings))


@dataclass(frozen=True)
class _Header:
    """What is kept of a file's header; complete headers of a large archive would fill the memory."""

    path: Path
    name: str
    uid: str
    patient: str
    frames: tuple[int, ...]
    """The frames that are used."""
    of: int
    """The number of frames."""
    size: tuple[int, int]
    acquisition: Acquisition


def _headers(
    folder: Path,
    key: str,
    acquired: Callable[[Dataset], Acquisition],
    frames: Callable[[int], tuple[int, ...]],
    left_out: Counter[str],
    segmentations: list[Path],
) -> Iterator[_Header]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = read_header(path)
        except UnreadableDicom as error:
            left_out[str(error.reason)] += 1
            continue
        if is_segmentation(header):
            if is_own(header):
                left_out[OWN] += 1
            else:
                segmentations.append(path)
            continue
        name, uid, patient = (str(header.get(keyword, "")).strip() for keyword in (key, KEYS[0], "PatientID"))
        number = number_of_frames(header)
        yield _Header(
            path=path,
            name=name,
            uid=uid,
            patient=patient,
            frames=frames(number),
            of=number,
            size=_size(header),
            acquisition=acquired(header),
        )


def _size(header: Dataset) -> tuple[int, int]:
    """Rows and columns; 0 if missing, so that no outline fits."""
    try:
        return int(header.Rows), int(header.Columns)
    except (AttributeError, TypeError, ValueError):
        return 0, 0


def _join(
    headers: list[_Header],
    labels: Labels,
    withdrawn: frozenset[str],
    left_out: Counter[str],
    outlines: FrameOutlines | None,
) -> tuple[list[Record], set[str]]:
    records: dict[str, list[Record]] = {}
    used: set[str] = set()
    for file in headers:
        images = len(file.frames)
        if file.name in labels.values:
            used.add(file.name)
        if file.patient in withdrawn:
            left_out["WITHDRAWN"] += images
        elif file.name not in labels.values:
            left_out["IMAGE_WITHOUT_LABEL"] += images
        elif not file.patient:
            left_out["NO_PATIENT_ID"] += images
        elif file.uid in records:
            left_out["DUPLICATE_INSTANCE"] += images
        else:
            records[file.uid] = list(_records(file, labels, outlines))
    return [record for of_file in records.values() for record in of_file], used


def _records(file: _Header, labels: Labels, outlines: FrameOutlines | None) -> Iterator[Record]:
    own = signature_of(file.path)
    for index in file.frames:
        masks = None if outlines is None else outlines.of(file.uid, index, file.of, file.size)
        yield Record(
            patient_id=file.patient,
            image_id=image_id(file.uid, index, len(file.frames)),
            label=labels.values[file.name],
            signature=own + ("" if masks is None else f"+{masks.signature}"),
            read=Frame(file.path, index),
            acquisition=file.acquisition,
            findings=labels.findings.get(file.name, ()),
            read_masks=masks,
        )


def image_id(uid: str, index: int, taken: int) -> str:
    """The unique name of a frame in its source; ``index`` is only part of it if several frames of the file are used."""
    return uid if taken == 1 else f"{uid} frame {index}"
