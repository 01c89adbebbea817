"""Examinations as scans: the DICOM files of a folder, sorted by study and series, and stacked to volumes.

Of each of the task's sequences the longest stack is taken that is a volume (``client/reading/stacks.py``), among all
series of the contract's modalities whose SeriesDescription the sequence finds. An examination is one image of the task:
its name is the StudyInstanceUID.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset

from client.errors import EmptySource, LabelsMatchNothing
from client.reading.contract import Judgement, merged
from client.reading.dicom import Measured, UnreadableDicom, read_header
from client.reading.slices import Slice, slices_of
from client.reading.stacks import NoVolume, Stack, arrange
from client.reading.volume import read_volume
from client.sources.acquisition import Acquisition
from client.sources.frame import Frame
from client.sources.labels import Labels
from client.sources.labels_seg import is_segmentation
from client.sources.record import Listing, Record, Unreadable, signature_of
from client.sources.scan_outlines import ReadOutlines, Segmentation, placed, read_segmentation
from tasks import contract as contracts
from tasks.task import Scan, Task

_LONGEST_DESCRIPTION = 64  # LO (PS3.5 table 6.2-1); whoever writes more shall not occupy a regular expression for long


def list_scans(
    folder: Path,
    labels: Labels,
    withdrawn: frozenset[str],
    acquired: Callable[[Dataset], Acquisition],
    task: Task,
    answered: Set[str] = frozenset(),
) -> Listing:
    """Every labelled examination under a folder that has the task's first sequence as a volume.

    Counted per file: why it cannot be read. Per examination: ``WITHDRAWN``, ``IMAGE_WITHOUT_LABEL``, ``NO_PATIENT_ID``,
    ``STUDY_OF_SEVERAL_PATIENTS``, ``NO_SERIES_OF_<first sequence>``, or why its series is no volume (``Unstackable``).
    Per further sequence: the same with ``SERIES_`` before it, and ``SERIES_IN_OTHER_SPACE`` where its frame of
    reference is not the first sequence's. Per segmentation: see ``client/sources/scan_outlines.py``. The contract is
    judged on all slices that are read: what one of them breaks the examination breaks.

    An examination has the label of its StudyInstanceUID, AccessionNumber or PatientID; where labels are by
    SOPInstanceUID it is positive if one of its images is.

    Raises:
        EmptySource: no DICOM image is there.
        LabelsMatchNothing: no examination has a label.
    """
    left_out = Counter(labels.left_out)
    studies = _studies(folder, labels.key, acquired, task, left_out)
    if not studies:
        raise EmptySource(f"no DICOM image under {folder}; is the volume mounted?")
    records, used = [], set()
    for study in sorted(studies):
        files, segmentations = studies[study]
        named = {file.name for file in files if file.name in labels.values}
        used |= named
        reason = _refusal(files, named, withdrawn)
        if reason:
            left_out[reason] += 1
        elif (record := _record(study, files, segmentations, labels, named, task, left_out)) is not None:
            records.append(record)
    if not used:
        raise LabelsMatchNothing(
            f"none of {len(studies)} examinations has a label: {labels.path} is keyed by {labels.key}, of which it has "
            f"values like {next(iter(labels.values), 'none')!r}; the files have values like "
            f"{next(iter(studies.values()))[0][0].name!r}"
        )
    left_out["LABEL_WITHOUT_IMAGE"] += len(labels.values.keys() - used - answered)
    return Listing(records, +left_out, list(labels.warnings))


@dataclass(frozen=True)
class _File:
    """What is kept of an image's header: of series that the task does not read, no slices."""

    name: str
    patient: str
    series: str
    sequence: str
    slices: tuple[Slice, ...]
    acquisition: Acquisition
    signature: str


_Study = tuple[list[_File], list[Segmentation]]


def _studies(
    folder: Path, key: str, acquired: Callable[[Dataset], Acquisition], task: Task, left_out: Counter[str]
) -> dict[str, _Study]:
    """Images and segmentations by StudyInstanceUID; a study without an image is none."""
    studies: defaultdict[str, _Study] = defaultdict(lambda: ([], []))
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        segments = False
        try:
            header = read_header(path)
            segments = is_segmentation(header)
            files, segmentations = studies[str(header.get("StudyInstanceUID", ""))]
            if not segments:
                files.append(_file(path, header, key, acquired, task))
            elif task.structures and (found := read_segmentation(path, header, task.structures)) is not None:
                segmentations.append(found)
        except UnreadableDicom as error:
            left_out["SEGMENTATION_UNREADABLE" if segments else str(error.reason)] += 1
    return {name: study for name, study in studies.items() if study[0]}


def _file(path: Path, header: Dataset, key: str, acquired: Callable[[Dataset], Acquisition], task: Task) -> _File:
    name, patient, series, description = (
        str(header.get(keyword, "") or "").strip()
        for keyword in (key, "PatientID", "SeriesInstanceUID", "SeriesDescription")
    )
    told = description[:_LONGEST_DESCRIPTION]
    modality = str(header.get("Modality", "") or "").strip().upper()
    # PET and CT of one study may be called alike; a file that does not tell is for the contract to judge.
    meant = modality in ("", *contracts.of_task(task.name).modalities)
    sequence = next((one.name for one in task.sequences if meant and one.finds(told)), "")
    slices = tuple(slices_of(path, header)) if sequence else ()
    return _File(name, patient, series, sequence, slices, acquired(header), signature_of(path))


def _refusal(files: Sequence[_File], named: Set[str], withdrawn: frozenset[str]) -> str:
    patients = {file.patient for file in files}
    if patients & withdrawn:
        return "WITHDRAWN"
    if not named:
        return "IMAGE_WITHOUT_LABEL"
    if patients == {""}:
        return "NO_PATIENT_ID"
    return "STUDY_OF_SEVERAL_PATIENTS" if len(patients) > 1 else ""


def _record(
    study: str,
    files: Sequence[_File],
    segmentations: Sequence[Segmentation],
    labels: Labels,
    named: Set[str],
    task: Task,
    left_out: Counter[str],
) -> Record | None:
    stacks = {one.name: _stacks(files, one.name) for one in task.sequences}
    first = task.sequences[0].name
    if (reason := _why_none(stacks[first])) is not None:
        left_out[f"NO_SERIES_OF_{first.upper()}" if reason == "" else reason] += 1
        return None
    chosen = _chosen(stacks, first, left_out)
    of_file = {one.path: file for file in files for one in file.slices}
    read = [of_file[one.path] for stack in chosen.values() for one in stack.slices]
    volumes = [stack for name in chosen for stack in _volumes(stacks[name]) if _in_one_space(stack, chosen[first])]
    outlines = placed(segmentations, volumes, task.structures, left_out) if segmentations else None
    middle = chosen[first].slices[len(chosen[first].slices) // 2]
    made_of = [f"{name} {len(stack.slices)}" for name, stack in chosen.items()]
    made_of += sorted({file.signature for file in read}) + ([] if outlines is None else [outlines.signature])
    findings = [labels.findings[name] for name in sorted(named) if name in labels.findings]
    return Record(
        patient_id=files[0].patient,
        image_id=study,
        label=max(labels.values[name] for name in named),
        signature=hashlib.sha256(repr(made_of).encode()).hexdigest(),
        read=Frame(middle.path, middle.frame),
        read_scan=ReadScan(chosen, outlines),
        acquisition=_judged(read, of_file[middle.path], task),
        findings=findings[0] if findings else (),
    )


def _stacks(files: Iterable[_File], sequence: str) -> list[Stack]:
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
    """Why none of the stacks is a volume, "" where there is no stack, ``None`` where one is."""
    if any(True for _ in _volumes(stacks)):
        return None
    return "" if not stacks or stacks[0].refusal is None else str(stacks[0].refusal.reason)


def _chosen(stacks: Mapping[str, Sequence[Stack]], first: str, left_out: Counter[str]) -> dict[str, Stack]:
    """The longest volume of each sequence that has one in the first one's space."""
    chosen = {first: next(_volumes(stacks[first]))}
    for name, some in stacks.items():
        near = [stack for stack in _volumes(some) if _in_one_space(stack, chosen[first])]
        if near:
            chosen[name] = near[0]
        elif reason := _why_none(some):
            left_out[f"SERIES_{reason}"] += 1
        elif some:
            left_out["SERIES_IN_OTHER_SPACE"] += 1
    return chosen


def _in_one_space(one: Stack, other: Stack) -> bool:
    spaces = {stack.slices[0].frame_of_reference for stack in (one, other)} - {""}
    return len(spaces) <= 1


def _judged(read: Sequence[_File], middle: _File, task: Task) -> Acquisition:
    """The middle slice's acquisition, judged by all slices."""
    judgements: list[Judgement] = list({file.acquisition.judgement for file in read})
    return replace(middle.acquisition, judgement=merged(contracts.of_task(task.name), *judgements))


@dataclass(frozen=True)
class ReadScan:
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
