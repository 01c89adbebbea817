"""The DICOM files of a folder as examinations: sorted by DICOM study and series, and stacked into volumes.

For each of the task's sequences the longest stack that is a volume is used (``client/reading/stacks.py``), among all
series of the contract's modalities whose SeriesDescription matches the sequence. An examination is one image of the
task, named by its StudyInstanceUID. Labels are not needed here; ``client/sources/files/scans.py`` joins them.

Tested in ``tests/client/sources/files/test_scans.py``.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom import Dataset

from client.pixels.refusal import UnreadableDicom
from client.reading.contract import Judgement, merged
from client.reading.dicom import Measured, read_header
from client.reading.slices import Slice, slices_of
from client.reading.stacks import NoVolume, Stack, arrange
from client.reading.volume import read_volume
from client.sources.acquisition import Acquisition
from client.sources.labels.own import is_own
from client.sources.labels.scan_outlines import ReadOutlines, Segmentation, placed, read_segmentation
from client.sources.labels.segmentations import OWN, is_segmentation
from client.sources.record import Unreadable, signature_of
from tasks import contract as contracts
from tasks.task import Scan, Task

_LONGEST_DESCRIPTION = 64  # LO (PS3.5 table 6.2-1); whoever writes more shall not occupy a regular expression for long


@dataclass(frozen=True)
class ImageFile:
    """What is kept of an image's header; for series that the task does not read, without slices.

    Attributes:
        path: of the file.
        name: the value of the attribute by which the examination is looked up.
        patient: PatientID.
        series: SeriesInstanceUID.
        sequence: name of the task's sequence that it belongs to, "" for none.
        slices: its frames.
        acquisition: what its header tells.
        signature: changes whenever the file may have changed.
    """

    path: Path
    name: str
    patient: str
    series: str
    sequence: str
    slices: tuple[Slice, ...]
    acquisition: Acquisition
    signature: str


@dataclass(frozen=True)
class Examination:
    """The files of one DICOM study.

    Attributes:
        study: StudyInstanceUID.
        files: its images, at least one.
        segmentations: those that are of the task's structures.
    """

    study: str
    files: list[ImageFile] = field(default_factory=list)
    segmentations: list[Segmentation] = field(default_factory=list)

    @property
    def patients(self) -> set[str]:
        """PatientIDs of the images: exactly one, unless something is wrong."""
        return {file.patient for file in self.files}

    @property
    def unassigned(self) -> str:
        """Why it cannot be assigned to a patient: ``NO_PATIENT_ID``, ``STUDY_OF_SEVERAL_PATIENTS``; "" if it can."""
        if self.patients == {""}:
            return "NO_PATIENT_ID"
        return "STUDY_OF_SEVERAL_PATIENTS" if len(self.patients) > 1 else ""


def examinations(
    folder: Path,
    key: str,
    acquired: Callable[[Dataset], Acquisition],
    task: Task,
    refused: Callable[[Path, str], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Examination]:
    """All examinations under a folder, by StudyInstanceUID; DICOM studies without an image are skipped.

    Args:
        key: keyword of the attribute that becomes ``ImageFile.name``.
        acquired: reads an image's header under the task's contract.
        refused: called with a file that is not used and the reason: ``SEGMENTATION_OF_CONSILIUM``, or why it cannot be
            read, ``SEGMENTATION_UNREADABLE`` for a segmentation.
        progress: called with the number of files read and the total.
    """
    studies: dict[str, Examination] = {}
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    for number, path in enumerate(paths, start=1):
        segments = False
        progress(number, len(paths))
        try:
            header = read_header(path)
            segments = is_segmentation(header)
            if segments and is_own(header):
                refused(path, OWN)
                continue
            study = str(header.get("StudyInstanceUID", ""))
            mine = studies.setdefault(study, Examination(study))
            if not segments:
                mine.files.append(_file(path, header, key, acquired, task))
            elif task.structures and (found := read_segmentation(path, header, task.structures)) is not None:
                mine.segmentations.append(found)
        except UnreadableDicom as error:
            refused(path, "SEGMENTATION_UNREADABLE" if segments else str(error.reason))
    return [studies[study] for study in sorted(studies) if studies[study].files]


def _file(path: Path, header: Dataset, key: str, acquired: Callable[[Dataset], Acquisition], task: Task) -> ImageFile:
    name, patient, series, description = (
        str(header.get(keyword, "") or "").strip()
        for keyword in (key, "PatientID", "SeriesInstanceUID", "SeriesDescription")
    )
    shortened = description[:_LONGEST_DESCRIPTION]
    modality = str(header.get("Modality", "") or "").strip().upper()
    # PET and CT of one examination may be called alike; a file that does not tell is for the contract to judge.
    meant = modality in ("", *contracts.of_task(task.name).modalities)
    sequence = next((one.name for one in task.sequences if meant and one.finds(shortened)), "")
    slices = tuple(slices_of(path, header)) if sequence else ()
    return ImageFile(
        path=path,
        name=name,
        patient=patient,
        series=series,
        sequence=sequence,
        slices=slices,
        acquisition=acquired(header),
        signature=signature_of(path),
    )


@dataclass(frozen=True)
class ReadStacks:
    """Reads an examination.

    Attributes:
        stacks: by name of the sequence.
        outlines: what was outlined, where somebody has looked.
    """

    stacks: Mapping[str, Stack]
    outlines: ReadOutlines | None

    def __call__(self, values: Callable[[Path, int], Measured] | None = None) -> Scan:
        """Decode all slices.

        Args:
            values: decodes a frame, such as ``Decoder.read_values``; in this process by default.

        Raises:
            Unreadable: a slice or a segmentation cannot be read, or slices are in different units.
        """
        try:
            volumes = {name: read_volume(stack, values) for name, stack in self.stacks.items()}
        except (UnreadableDicom, NoVolume) as error:
            raise Unreadable(str(error.reason), str(error)) from error
        return Scan(volumes, None if self.outlines is None else self.outlines.read(values))


@dataclass(frozen=True)
class Stacked:
    """An examination as a scan.

    Attributes:
        read: decodes it.
        middle: the slice in the middle of the first sequence, by which the scan is known again and shown.
        signature: changes whenever a slice that is read or an outline may have changed.
        acquisition: the middle slice's, judged by all slices: what one of them breaks the examination breaks.
    """

    read: ReadStacks
    middle: Slice
    signature: str
    acquisition: Acquisition


def stacked(examination: Examination, task: Task, lost: Counter[str]) -> Stacked:
    """The scan of an examination.

    Args:
        lost: counts what it has to do without: a further sequence (``SERIES_`` and why it is no volume,
            ``SERIES_IN_OTHER_SPACE``), a segmentation (``client/sources/labels/scan_outlines.py``).

    Raises:
        Unreadable: ``NO_SERIES_OF_<first sequence>``, or why its series is no volume (``Unstackable``).
    """
    files = examination.files
    stacks = {one.name: _stacks(files, one.name) for one in task.sequences}
    first = task.sequences[0].name
    if (reason := _why_none(stacks[first])) is not None:
        raise Unreadable(reason or f"NO_SERIES_OF_{first.upper()}")
    chosen = _chosen(stacks, first, lost)
    of_file = {one.path: file for file in files for one in file.slices}
    read = [of_file[one.path] for stack in chosen.values() for one in stack.slices]
    volumes = [stack for name in chosen for stack in _volumes(stacks[name]) if _in_one_space(stack, chosen[first])]
    segmentations = examination.segmentations
    outlines = placed(segmentations, volumes, task.structures, lost) if segmentations else None
    middle = chosen[first].slices[len(chosen[first].slices) // 2]
    made_of = [f"{name} {len(stack.slices)}" for name, stack in chosen.items()]
    made_of += sorted({file.signature for file in read}) + ([] if outlines is None else [outlines.signature])
    signature = hashlib.sha256(repr(made_of).encode()).hexdigest()
    return Stacked(ReadStacks(chosen, outlines), middle, signature, _judged(read, of_file[middle.path], task))


def _stacks(files: Iterable[ImageFile], sequence: str) -> list[Stack]:
    """All stacks of the series of a sequence, the longest first."""
    series: defaultdict[str, list[Slice]] = defaultdict(list)
    for file in files:
        if file.sequence == sequence:
            series[file.series].extend(file.slices)
    stacks = [stack for name in sorted(series) for stack in arrange(series[name]).stacks]
    return sorted(stacks, key=lambda stack: -len(stack.slices))


def _volumes(stacks: Iterable[Stack]) -> Iterator[Stack]:
    return (stack for stack in stacks if stack.refusal is None)


def _why_none(stacks: Sequence[Stack]) -> str | None:
    """Why none of the stacks is a volume; "" if there is no stack, ``None`` if one is a volume."""
    if any(True for _ in _volumes(stacks)):
        return None
    return "" if not stacks or stacks[0].refusal is None else str(stacks[0].refusal.reason)


def _chosen(stacks: Mapping[str, Sequence[Stack]], first: str, lost: Counter[str]) -> dict[str, Stack]:
    """The longest volume of each sequence that has one in the first sequence's space."""
    chosen = {first: next(_volumes(stacks[first]))}
    for name, some in stacks.items():
        near = [stack for stack in _volumes(some) if _in_one_space(stack, chosen[first])]
        if near:
            chosen[name] = near[0]
        elif reason := _why_none(some):
            lost[f"SERIES_{reason}"] += 1
        elif some:
            lost["SERIES_IN_OTHER_SPACE"] += 1
    return chosen


def _in_one_space(one: Stack, other: Stack) -> bool:
    spaces = {stack.slices[0].frame_of_reference for stack in (one, other)} - {""}
    return len(spaces) <= 1


def _judged(read: Sequence[ImageFile], middle: ImageFile, task: Task) -> Acquisition:
    judgements: list[Judgement] = list({file.acquisition.judgement for file in read})
    return replace(middle.acquisition, judgement=merged(contracts.of_task(task.name), *judgements))
