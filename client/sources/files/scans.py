"""Labelled examinations of a folder, one scan each: ``client/sources/files/examinations.py`` joined with labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path

from client.errors import LabelsMatchNothing
from client.sources.acquisition import AcquisitionReader
from client.sources.files.examinations import Examination, examinations, series_seen, stacked
from client.sources.files.files_under import nothing_there
from client.sources.frame import Frame
from client.sources.headers import Known
from client.sources.labels.table import Labels, renamed
from client.sources.record import Listing, Record, Unreadable
from client.sources.visit import Sighting
from tasks.task import Task


def list_scans(
    folder: Path,
    labels: Labels,
    withdrawn: frozenset[str],
    acquired: AcquisitionReader,
    task: Task,
    answered: Set[str] = frozenset(),
    known: Known | None = None,
) -> Listing:
    """Every labelled examination under a folder that has the task's first sequence as a volume.

    Counted per file: why it cannot be read. Per examination: ``WITHDRAWN``, ``IMAGE_WITHOUT_LABEL``, ``NO_PATIENT_ID``,
    ``STUDY_OF_SEVERAL_PATIENTS``, ``NO_SERIES_OF_<first sequence>``, or why its series is no volume (``Unstackable``).
    Per further sequence: the same with ``SERIES_`` before it, and ``SERIES_IN_OTHER_SPACE`` where its frame of
    reference is not the first sequence's. Per segmentation: see ``client/sources/labels/scan_outlines.py``. The
    contract is judged on all slices that are read: what one of them breaks the examination breaks.

    An examination has the label of its StudyInstanceUID, AccessionNumber or PatientID; where labels are by
    SOPInstanceUID it is positive if one of its images is.

    Raises:
        EmptySource: no DICOM image is there.
        LabelsMatchNothing: no examination has a label.
    """
    left_out = Counter(labels.left_out)
    scans = examinations(
        folder,
        labels.key,
        acquired=acquired,
        task=task,
        refused=lambda _, reason: left_out.update([reason]),
        known=known,
    )
    if not scans:
        raise nothing_there(folder, left_out)
    seen = [Sighting(who, "", one.study, one.study) for one in scans for who in sorted(one.patients)]
    labels = renamed(labels, seen)
    left_out["CONTRADICTING_LABEL_ROWS"] = labels.left_out["CONTRADICTING_LABEL_ROWS"]
    records, used = _join(scans, labels, withdrawn, task, left_out)
    if not used:
        raise LabelsMatchNothing(
            f"none of {len(scans)} examinations has a label: {labels.path} is keyed by {labels.key}, with "
            f"values like {next(iter(labels.values), 'none')!r}; the files have values like "
            f"{scans[0].files[0].name!r}",
            left_out,
        )
    left_out["LABEL_WITHOUT_IMAGE"] += len(labels.values.keys() - used - answered)
    unwilling = [
        Sighting(patient, "", examination.study, examination.study)
        for examination in scans
        for patient in examination.patients & withdrawn
    ]
    warnings = [*labels.warnings, *series_seen(scans, task)]
    return Listing(records, +left_out, warnings, unwilling=unwilling)


def _join(
    scans: Sequence[Examination], labels: Labels, withdrawn: frozenset[str], task: Task, left_out: Counter[str]
) -> tuple[list[Record], set[str]]:
    """Examinations with their labels, and the labels that an examination answers to."""
    records, used = [], set()
    for examination in scans:
        named = {file.name for file in examination.files if file.name in labels.values}
        used |= named
        if reason := _refusal(examination, named, withdrawn):
            left_out[reason] += 1
            continue
        try:
            records.append(_record(examination, labels, named, task, left_out))
        except Unreadable as refusal:
            left_out[refusal.reason] += 1
    return records, used


def _refusal(examination: Examination, named: Set[str], withdrawn: frozenset[str]) -> str:
    if examination.patients & withdrawn:
        return "WITHDRAWN"
    return examination.unassigned if named else "IMAGE_WITHOUT_LABEL"


def _record(examination: Examination, labels: Labels, named: Set[str], task: Task, left_out: Counter[str]) -> Record:
    scan = stacked(examination, task, left_out)
    findings = [labels.findings[name] for name in sorted(named) if name in labels.findings]
    return Record(
        patient_id=examination.files[0].patient,
        image_id=examination.study,
        label=max(labels.values[name] for name in named),
        signature=scan.signature,
        read=Frame(scan.middle.path, scan.middle.frame),
        read_scan=scan.read,
        acquisition=scan.acquisition,
        findings=findings[0] if findings else (),
    )
