"""The DICOM files of a folder as examinations: sorted by DICOM study and series, and stacked into volumes.

For each of the task's sequences one stack is used, among all series of the contract's modalities that are of the
sequence, by how they were acquired or by what they are called: ``client/sources/files/choice.py`` says which. An
examination is one image of the task, named by its StudyInstanceUID. Labels are not needed here;
``client/sources/files/scans.py`` joins them.

Tested in ``tests/client/sources/files/test_scans.py``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.pixels.refusal import UnreadableDicom
from client.reading.contract import Judgement, merged
from client.reading.dicom import Measured
from client.reading.slices import Slice
from client.reading.stack import NoVolume, Stack, Unstackable
from client.reading.volume import read_volume
from client.sources.acquisition import Acquisition, AcquisitionReader
from client.sources.files.choice import Candidate, JudgedSlice, candidates, choose, in_one_space
from client.sources.files.files_under import files_under, reason_of
from client.sources.headers import FileHeader, Known, read_headers
from client.sources.labels.rows import shown
from client.sources.labels.scan_outlines import ReadOutlines, Segmentation, covers, fitted, placed, segmentation_of
from client.sources.labels.segmentations import OWN
from client.sources.record import SERIES_OF, Unreadable, signature_of
from tasks import contract as contracts
from tasks.task import Scan, Series, Task, series_of

SeriesWords = Mapping[str, Sequence[str]]
_TOLD = 20
"""How many descriptions are listed of each sequence."""


@dataclass(frozen=True)
class ImageFile:
    """What is kept of an image's header; for series that the task does not read, without slices.

    Attributes:
        path: of the file.
        name: the value of the attribute by which the examination is looked up.
        patient: PatientID.
        series: SeriesInstanceUID.
        described: SeriesDescription, shortened.
        sequence: name of the task's sequence that it belongs to, "" for none.
        slices: its frames.
        judgements: the contract's, of each frame, or one where all are alike.
        acquisition: what its header tells.
        signature: changes whenever the file may have changed.
    """

    path: Path
    name: str
    patient: str
    series: str
    described: str
    sequence: str
    slices: tuple[Slice, ...]
    judgements: tuple[Judgement, ...]
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
    acquired: AcquisitionReader,
    task: Task,
    refused: Callable[[Path, str], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
    known: Known | None = None,
) -> list[Examination]:
    """All examinations under a folder, by StudyInstanceUID; DICOM studies without an image are skipped.

    Args:
        key: keyword of the attribute that becomes ``ImageFile.name``.
        acquired: reads an image's header under the task's contract.
        refused: called with a file that is not used and the reason: ``SEGMENTATION_OF_CONSILIUM``, or why it cannot be
            read, ``SEGMENTATION_UNREADABLE`` for a segmentation.
        progress: called with the number of files read and the total.
        known: what earlier visits have read.
    """
    studies: dict[str, Examination] = {}
    paths = files_under(folder, refused)
    for number, (path, header) in enumerate(read_headers(paths, acquired, in_space=True, known=known), start=1):
        progress(number, len(paths))
        if isinstance(header, UnreadableDicom):
            refused(path, reason_of(path, header))
            continue
        study = header.texts["StudyInstanceUID"]
        mine = studies.setdefault(study, Examination(study))
        try:
            if not header.is_segmentation:
                mine.files.append(_file(path, header, key, task, acquired.declared.series_words))
            elif reason := _add_segmentation(mine, path, header, task):
                refused(path, reason)
        except OSError:  # the file has gone since
            refused(path, "UNREADABLE_FILE")
    return [studies[study] for study in sorted(studies) if studies[study].files]


def _add_segmentation(examination: Examination, path: Path, header: FileHeader, task: Task) -> str:
    """Keep it, if it is of the task's structures; else why it cannot be used, or "" where it is of something else."""
    if header.own:
        return OWN
    if not task.structures:
        return ""
    if header.segmentation is None:
        return "SEGMENTATION_UNREADABLE"
    if (found := segmentation_of(path, header.segmentation, task.structures)) is not None:
        examination.segmentations.append(found)
    return ""


def _file(path: Path, header: FileHeader, key: str, task: Task, words: SeriesWords) -> ImageFile:
    assert header.acquisition is not None  # it is no segmentation
    series, modality = series_of(header.texts), header.texts["Modality"].upper()
    # PET and CT of one examination may be called alike; a file that does not tell is for the contract to judge.
    meant = modality in ("", *contracts.of_task(task.name).modalities)
    sequence = _sequence(series, task, words) if meant else ""
    return ImageFile(
        path=path,
        name=header.texts[key],
        patient=header.texts["PatientID"],
        series=header.texts["SeriesInstanceUID"],
        described=series.description,
        sequence=sequence,
        slices=header.slices if sequence else (),
        judgements=header.judgements if sequence else (),
        acquisition=header.acquisition,
        signature=signature_of(path),
    )


def _sequence(series: Series, task: Task, words: SeriesWords) -> str:
    """The task's sequence that a series is of, "" if none: by the hospital's own words first, which know best."""
    described = series.description.casefold()
    for name, own in words.items():
        if any(word.casefold() in described for word in own):
            return name
    return next((one.name for one in task.sequences if one.matches(series)), "")


def series_seen(examinations: Iterable[Examination], task: Task) -> list[str]:
    """What the series of some examinations are called, in a sentence for each of the task's sequences and one for all
    that are none of them: words for ``series_words``. None where a task reads every series."""
    if not any(sequence.described for sequence in task.sequences):
        return []
    series = {(file.series, file.described, file.sequence) for one in examinations for file in one.files}
    seen = Counter((sequence, described) for _, described, sequence in series)
    sentences = []
    for name in (*(sequence.name for sequence in task.sequences), ""):
        called = [(described, number) for (sequence, described), number in seen.most_common() if sequence == name]
        if called:
            more = f" and {len(called) - _TOLD} more" if len(called) > _TOLD else ""
            listed = ", ".join(f"{shown(described)} ({number})" for described, number in called[:_TOLD])
            kind = SERIES_OF + (name or "no sequence of the task (`series_words` names own words)")
            sentences.append(f"{kind}: {listed}{more}")
    return sentences


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
            ``SERIES_IN_OTHER_SPACE``), slices (``SLICES_LEFT_OUT``), a segmentation (``SEGMENTATION_ELSEWHERE``, and
            see ``client/sources/labels/scan_outlines.py``); and what is told (``client/sources/files/choice.py``).

    Raises:
        Unreadable: ``NO_SERIES_OF_<first sequence>``, or why its series is no volume (``Unstackable``).
    """
    of_sequence = {one.name: _candidates(examination, one.name, task) for one in task.sequences}
    first = task.sequences[0].name
    taken = choose(of_sequence, first, lost)
    of_file = {(one.path, one.frame): file for file in examination.files for one in file.slices}
    read = [of_file[one.path, one.frame] for one in _slices(taken)]
    outlines = _outlines(examination, of_sequence, taken, task, lost)
    middle = taken[first].stack.slices[len(taken[first].stack.slices) // 2]
    made_of = [f"{name} {len(one.stack.slices)}" for name, one in taken.items()]
    made_of += sorted({file.signature for file in read}) + ([] if outlines is None else [outlines.signature])
    signature = hashlib.sha256(repr(made_of).encode()).hexdigest()
    judgement = merged(contracts.of_task(task.name), *{one.judgement for one in taken.values()})
    acquisition = replace(of_file[middle.path, middle.frame].acquisition, judgement=judgement)
    return Stacked(
        ReadStacks({name: one.stack for name, one in taken.items()}, outlines), middle, signature, acquisition
    )


def _slices(taken: Mapping[str, Candidate]) -> Iterator[Slice]:
    return (one for candidate in taken.values() for one in candidate.stack.slices)


def _candidates(examination: Examination, sequence: str, task: Task) -> list[Candidate]:
    files = [file for file in examination.files if file.sequence == sequence]
    judged = (
        JudgedSlice(one, file.series, file.judgements[min(one.frame, len(file.judgements) - 1)])
        for file in files
        for one in file.slices
    )
    found = candidates(judged, examination.segmentations, task)
    if files and not found and sequence == task.sequences[0].name:
        raise Unreadable(Unstackable.NO_POSITION, "no slice says where it lies")
    return found


def _outlines(
    examination: Examination,
    of_sequence: Mapping[str, Sequence[Candidate]],
    taken: Mapping[str, Candidate],
    task: Task,
    lost: Counter[str],
) -> ReadOutlines | None:
    """What was outlined on what is read, or on another volume of its space, as long as it is where the first sequence
    was imaged."""
    best = taken[task.sequences[0].name].stack
    if not examination.segmentations:
        return None
    near = [one for one in examination.segmentations if covers(best, one) or fitted(one, best) is not None]
    lost["SEGMENTATION_ELSEWHERE"] += len(examination.segmentations) - len(near)
    others = [one.stack for some in of_sequence.values() for one in some if one.stack.refusal is None]
    stacks = [*(one.stack for one in taken.values()), *(one for one in others if in_one_space(one, best))]
    return placed(near, list(dict.fromkeys(stacks)), task.structures, lost) if near else None
