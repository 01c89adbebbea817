"""Source: a read-only folder of DICOM files and a labels file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from client.errors import LabelsMatchNothing
from client.pixels.refusal import UnreadableDicom
from client.sources.acquisition import Acquisition, AcquisitionReader, acquisition_reader
from client.sources.files.files_under import files_under, nothing_there, reason_of
from client.sources.files.scans import list_scans
from client.sources.frame import Frame
from client.sources.headers import FileHeader, Known, read_headers
from client.sources.labels.annotations import labels_of
from client.sources.labels.outlines import FrameOutlines
from client.sources.labels.segmentations import OWN
from client.sources.labels.table import KEYS, Labels, following, renamed
from client.sources.record import Listing, Record, signature_of
from client.sources.settings import FolderSource
from client.sources.visit import Sighting, Visit
from tasks.task import Task


def list_folder(source: FolderSource, task: Task, withdrawn: frozenset[str], visit: Visit | None = None) -> Listing:
    """Every labelled image under the folder; see ``list_files``, and for tasks of volumes ``list_scans``."""
    return list_files(
        source.path,
        following(labels_of(source, task), visit, source.issuer),
        withdrawn=withdrawn,
        acquired=acquisition_reader(source, task),
        task=task,
        known=None if visit is None else known_of(visit, source.path),
    )


def known_of(visit: Visit, folder: Path) -> Known | None:
    """What earlier visits have read of a folder."""
    return None if visit.headers is None else Known(visit.headers, str(folder))


def list_files(
    folder: Path,
    labels: Labels,
    withdrawn: frozenset[str],
    acquired: AcquisitionReader,
    task: Task,
    answered: Set[str] = frozenset(),
    known: Known | None = None,
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
        return list_scans(
            folder, labels, withdrawn=withdrawn, acquired=acquired, task=task, answered=answered, known=known
        )
    left_out = Counter(labels.left_out)
    segmentations: list[tuple[Path, FileHeader]] = []
    paths = files_under(folder, lambda _, reason: left_out.update([reason]))
    read = read_headers(paths, acquired, known=known)
    headers = list(_headers(read, labels.key, task.frames, left_out, segmentations))
    if not headers:
        raise nothing_there(folder, left_out)
    labels = renamed(labels, map(_seen, headers))
    left_out["CONTRADICTING_LABEL_ROWS"] = labels.left_out["CONTRADICTING_LABEL_ROWS"]
    outlines = FrameOutlines(segmentations, task.structures) if task.structures else None
    records, used = _join(headers, labels, withdrawn, left_out, outlines=outlines, task=task)
    if not used:
        raise LabelsMatchNothing(
            f"none of {len(headers)} images has a label: {labels.path} is keyed by {labels.key}, with "
            f"values like {next(iter(labels.values), 'none')!r}; the files have values like {headers[0].name!r}",
            left_out,
        )
    left_out["LABEL_WITHOUT_IMAGE"] += len(labels.values.keys() - used - answered)
    if outlines is not None:
        left_out.update(outlines.left_out)
    named = [file for file in headers if file.patient and file.uid]
    return Listing(
        records,
        +left_out,
        list(labels.warnings),
        sightings=[_seen(file) for file in named if file.patient not in withdrawn and file.name in labels.values],
        unwilling=[_seen(file) for file in named if file.patient in withdrawn],
    )


def _seen(file: _Header) -> Sighting:
    return Sighting(file.patient, "", file.uid, file.study)


@dataclass(frozen=True)
class _Header:
    """What is kept of a file's header; complete headers of a large archive would fill the memory."""

    path: Path
    name: str
    uid: str
    study: str
    patient: str
    frames: tuple[int, ...]
    """The frames that are used."""
    of: int
    """The number of frames."""
    size: tuple[int, int]
    acquisition: Acquisition


def _headers(
    read: Iterable[tuple[Path, FileHeader | UnreadableDicom]],
    key: str,
    frames: Callable[[int], tuple[int, ...]],
    left_out: Counter[str],
    segmentations: list[tuple[Path, FileHeader]],
) -> Iterator[_Header]:
    for path, header in read:
        if isinstance(header, UnreadableDicom):
            left_out[reason_of(path, header)] += 1
        elif header.acquisition is None:
            if header.own:
                left_out[OWN] += 1
            else:
                segmentations.append((path, header))
        else:
            texts = header.texts
            yield _Header(
                path=path,
                name=texts[key],
                uid=texts[KEYS[0]],
                study=texts["StudyInstanceUID"],
                patient=texts["PatientID"],
                frames=frames(header.frames),
                of=header.frames,
                size=header.size,
                acquisition=header.acquisition,
            )


def _join(
    headers: list[_Header],
    labels: Labels,
    withdrawn: frozenset[str],
    left_out: Counter[str],
    outlines: FrameOutlines | None,
    task: Task,
) -> tuple[list[Record], set[str]]:
    records: dict[str, list[Record]] = {}
    of_study, of_uid = _patients(headers, lambda file: file.study), _patients(headers, lambda file: file.uid)
    for file in headers:
        reason = _why_not(file, labels, withdrawn)
        if not reason and len(of_study.get(file.study, ())) > 1:
            reason = "STUDY_OF_SEVERAL_PATIENTS"
        elif not reason and len(of_uid[file.uid]) > 1:
            reason = "INSTANCE_OF_SEVERAL_PATIENTS"
        elif not reason and file.uid in records:
            reason = "DUPLICATE_INSTANCE"
        if reason:
            left_out[reason] += len(file.frames)
            continue
        try:
            records[file.uid] = list(_records(file, labels, outlines, task))
        except OSError:  # the file has gone since its header was read
            left_out["UNREADABLE_FILE"] += len(file.frames)
    used = {file.name for file in headers if file.name in labels.values}
    return [record for of_file in records.values() for record in of_file], used


def _patients(headers: list[_Header], key: Callable[[_Header], str]) -> dict[str, set[str]]:
    """PatientIDs by what files of one patient may share; without those that lack either."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for file in headers:
        if key(file) and file.patient:
            found[key(file)].add(file.patient)
    return found


def _why_not(file: _Header, labels: Labels, withdrawn: frozenset[str]) -> str:
    """Why an image cannot be used, whatever the others are; "" if it can."""
    if file.patient in withdrawn:
        return "WITHDRAWN"
    if file.name not in labels.values:
        return "IMAGE_WITHOUT_LABEL"
    if not file.patient:
        return "NO_PATIENT_ID"
    return "" if file.uid else "NO_UID"


def _records(file: _Header, labels: Labels, outlines: FrameOutlines | None, task: Task) -> Iterator[Record]:
    own = signature_of(file.path)
    for index in file.frames:
        masks = None if outlines is None else outlines.of(file.uid, index, file.of, file.size)
        yield Record(
            patient_id=file.patient,
            image_id=image_id(file.uid, index, len(file.frames)),
            label=labels.values[file.name],
            signature=own + ("" if masks is None else f"+{masks.signature}"),
            read=Frame(file.path, index, task.beside(file.of)),
            acquisition=file.acquisition,
            findings=labels.findings.get(file.name, ()),
            read_masks=masks,
        )


def image_id(uid: str, index: int, taken: int) -> str:
    """The unique name of a frame in its source; ``index`` is only part of it if several frames of the file are used."""
    return uid if taken == 1 else f"{uid} frame {index}"
