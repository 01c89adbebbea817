"""Scans to score: examinations sorted and stacked as in an ingest, without labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from client.pixels.refusal import UnreadableDicom
from client.prediction.local_image import Catalogued, LeftOut, LocalImage, ScoringProgress, Unwilling, Worklist
from client.sources.acquisition import AcquisitionReader
from client.sources.files.examinations import Examination, Stacked, examinations, stacked
from client.sources.headers import plain_headers
from client.sources.labels.segmentations import OWN
from client.sources.record import NOTE, OTHER_SERIES, Unreadable
from client.sources.visit import Sighting
from tasks.task import Task

NO_IMAGE = ("NOT_DICOM", "NO_PIXEL_DATA", "RT_STRUCTURE_SET", OWN)
"""Reasons of files that are not patient images at all (text files, reports, a model's outlines); they are skipped."""


def catalogued_scans(
    folder: Path,
    task: Task,
    acquired: AcquisitionReader,
    catalogued: Catalogued,
    unwilling: Unwilling,
    work: Worklist,
    progress: ScoringProgress,
) -> None:
    """Add the scans under a source's folder that are in its catalog and unchanged."""
    for image, scan in _scans(folder, task, acquired=acquired, unwilling=unwilling, work=work, progress=progress):
        work.add(catalogued.settled(image, scan.signature))


def judged_scans(
    folder: Path,
    task: Task,
    acquired: AcquisitionReader,
    trained: Callable[[str], bool],
    unwilling: Unwilling,
    work: Worklist,
    progress: ScoringProgress,
) -> None:
    """Add the scans under any folder, checked against the header rules of the task's contract."""
    for image, scan in _scans(folder, task, acquired=acquired, unwilling=unwilling, work=work, progress=progress):
        judged, bits = scan.acquisition.judgement, scan.acquisition.bits_stored
        if judged.conforms:
            work.add(replace(image, warned=judged.warned, trained=trained(image.patient), bits_stored=bits))
        else:
            work.add(LeftOut(image.patient, image.path, judged.rejected[0]))


def _scans(
    folder: Path,
    task: Task,
    acquired: AcquisitionReader,
    unwilling: Unwilling,
    work: Worklist,
    progress: ScoringProgress,
) -> Iterator[tuple[LocalImage, Stacked]]:
    """Scans that a report can reference; others, and unusable parts of a scan, are left out with a reason."""

    def refused(path: Path, reason: str) -> None:
        if reason not in NO_IMAGE:
            work.left_out.append(LeftOut("", path, reason))

    def reading(done: int, total: int) -> None:
        progress("reading headers", done, total)

    for examination in examinations(
        folder, "StudyInstanceUID", acquired=acquired, task=task, refused=refused, progress=reading
    ):
        first = examination.files[0]
        if reason := _unnamed(examination, unwilling):
            patient = "" if reason == "WITHDRAWN" else first.patient
            work.left_out.append(LeftOut(patient, first.path, reason))
            continue
        lost: Counter[str] = Counter()
        try:
            scan = stacked(examination, task, lost)
            image = _image(examination, scan, task)
        except Unreadable as refusal:
            work.left_out.append(LeftOut(first.patient, first.path, refusal.reason))
            continue
        parts = [reason for reason in lost.elements() if not reason.startswith((NOTE, OTHER_SERIES))]
        work.left_out += [LeftOut(first.patient, scan.middle.path, reason) for reason in parts]
        yield image, scan


def _unnamed(examination: Examination, unwilling: Unwilling) -> str:
    """Why no report may or can reference it; "" if one can."""
    study = examination.study  # which is also what a catalogued scan is called by
    if any(unwilling(Sighting(patient, "", study, study)) for patient in examination.patients):
        return "WITHDRAWN"
    if examination.unassigned:
        return examination.unassigned
    return "" if examination.study.strip() else "NO_UID"


def _image(examination: Examination, scan: Stacked, task: Task) -> LocalImage:
    ((_, header),) = plain_headers([scan.middle.path])
    if isinstance(header, UnreadableDicom):
        raise Unreadable(str(header.reason), str(header))
    return LocalImage(
        patient=examination.files[0].patient,
        study=examination.study,
        uid=scan.middle.instance,
        name=examination.study,
        accession=header.texts["AccessionNumber"],
        study_date=header.texts["StudyDate"],
        path=scan.middle.path,
        frame=scan.middle.frame,
        frames=header.frames,
        scan=scan.read,
        without=tuple(sequence.name for sequence in task.sequences if sequence.name not in scan.read.stacks),
    )
