"""Images to score: the DICOM files of a task on this machine, and why others are left out.

Tested in ``tests/client/prediction/test_predict.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from client.cohort import catalog
from client.errors import EmptySource, SiteMisconfigured
from client.pixels.refusal import UnreadableDicom
from client.prediction.local_image import (
    Catalogued,
    LeftOut,
    LocalImage,
    ScoringProgress,
    Unwilling,
    Worklist,
    on_training_side,
    unwilling_at,
)
from client.prediction.scan_list import NO_IMAGE, catalogued_scans, judged_scans
from client.reading.contract import NOTHING_DECLARED, Declared
from client.site import SiteSettings
from client.sources.acquisition import AcquisitionReader, acquisition_reader, reader_under
from client.sources.files.folder import image_id
from client.sources.headers import FileHeader, read_headers
from client.sources.record import signature_of
from client.sources.settings import DicomwebSource, DimseSource, FolderSource, Source
from client.sources.visit import Sighting
from tasks.task import Task

_DICOM = (FolderSource, DicomwebSource, DimseSource)


def of_catalog(site: SiteSettings, task: Task, progress: ScoringProgress) -> Worklist:
    """Every image in a task's catalog whose file is unchanged since it was ingested.

    Nothing is asked of an archive: of one, what its spool holds is taken.

    Raises:
        CatalogStale: nothing was ingested, or under another contract.
        EmptySource: no source of the task has DICOM files.
    """
    catalog.honour_withdrawals(site)
    sources = [source for source in site.sources if source.task == task.name]
    dicom = [source for source in sources if isinstance(source, _DICOM)]
    if not dicom:
        kinds = ", ".join(sorted({source.kind for source in sources})) or "none"
        raise EmptySource(
            f"{site.name} has no source of DICOM files for {task.name} (it has: {kinds}); a report needs the images' "
            "headers. Set --path FOLDER"
        )
    catalog.report(site, task)  # refuses a stale catalog
    work = Worklist()
    with unwilling_at(site, task) as unwilling:
        _add_catalogued(site, task, dicom, unwilling=unwilling, work=work, progress=progress)
    return work


def _add_catalogued(
    site: SiteSettings,
    task: Task,
    sources: Iterable[FolderSource | DicomwebSource | DimseSource],
    unwilling: Unwilling,
    work: Worklist,
    progress: ScoringProgress,
) -> None:
    for source in sources:
        folder = source.path if isinstance(source, FolderSource) else source.path / "images"
        known = Catalogued(site, task, source.issuer, str(source.path))
        if task.sequences:
            catalogued_scans(
                folder,
                task,
                acquired=acquisition_reader(source, task),
                catalogued=known,
                unwilling=unwilling,
                work=work,
                progress=progress,
            )
        else:
            _catalogued_pictures(folder, task, known=known, unwilling=unwilling, work=work, progress=progress)


def of_folder(site: SiteSettings, task: Task, folder: Path, organ: str, progress: ScoringProgress) -> Worklist:
    """Every DICOM image under a folder, checked against the header rules of the task's contract.

    Args:
        organ: what all of them show, where a file does not tell.

    Raises:
        SiteMisconfigured: there is no such folder.
        EmptySource: it has no DICOM file.
    """
    if not folder.is_dir():
        raise SiteMisconfigured(f"--path {folder}: there is no such folder; name the one that holds DICOM files")
    sources = [source for source in site.sources if source.task == task.name]
    words = {word: meaning for source in sources for word, meaning in source.organ_words.items()}
    burned_in = bool(sources) and all(source.burned_in_annotation == "accept" for source in sources)
    declared = Declared(organ, words, burned_in, _series_words(sources))
    acquired, trained = reader_under(declared, task), on_training_side(site, task)
    work = Worklist()
    adding = judged_scans if task.sequences else _judged_pictures
    with unwilling_at(site, task) as unwilling:
        adding(folder, task, acquired=acquired, trained=trained, unwilling=unwilling, work=work, progress=progress)
    if not work.images and not work.left_out:
        raise EmptySource(
            f"no DICOM file under {folder}: --path needs images as a machine or an archive has written them (PNG and "
            "JPEG are none); is it the right folder, and its volume mounted?"
        )
    return work


def _series_words(sources: Iterable[Source]) -> dict[str, list[str]]:
    """Those of all sources together."""
    words: dict[str, list[str]] = {}
    for source in sources:
        for name, own in source.series_words.items():
            words.setdefault(name, []).extend(own)
    return words


def _catalogued_pictures(
    folder: Path, task: Task, known: Catalogued, unwilling: Unwilling, work: Worklist, progress: ScoringProgress
) -> None:
    unjudged = reader_under(NOTHING_DECLARED, task)  # the catalog knows the judgement
    for path, header in _headers(folder, unjudged, unwilling, work, progress):
        for image in _images(task, path, header):
            work.add(known.settled(image, signature_of(path)))


def _judged_pictures(
    folder: Path,
    task: Task,
    acquired: AcquisitionReader,
    trained: Callable[[str], bool],
    unwilling: Unwilling,
    work: Worklist,
    progress: ScoringProgress,
) -> None:
    for path, header in _headers(folder, acquired, unwilling, work, progress):
        assert header.acquisition is not None  # it is no segmentation
        patient = header.texts["PatientID"]
        judged, bits = header.acquisition.judgement, header.acquisition.bits_stored
        if not judged.conforms:
            work.left_out.append(LeftOut(patient, path, judged.rejected[0]))
            continue
        for image in _images(task, path, header):
            work.images.append(replace(image, warned=judged.warned, trained=trained(patient), bits_stored=bits))


def _headers(
    folder: Path,
    acquired: AcquisitionReader,
    unwilling: Unwilling,
    work: Worklist,
    progress: ScoringProgress,
) -> Iterator[tuple[Path, FileHeader]]:
    """Headers of images that a report can reference; others are left out with a reason. Files that are not patient
    images at all (text files, reports, outlines) are skipped."""
    paths, seen = sorted(p for p in folder.rglob("*") if p.is_file()), set[str]()
    for number, (path, header) in enumerate(read_headers(paths, acquired), start=1):
        progress("reading headers", number, len(paths))
        if isinstance(header, UnreadableDicom):
            if str(header.reason) not in NO_IMAGE:
                work.left_out.append(LeftOut("", path, str(header.reason)))
            continue
        if header.is_segmentation:
            continue
        patient, uid = header.texts["PatientID"], header.texts["SOPInstanceUID"]
        if unwilling(Sighting(patient, "", uid, header.texts["StudyInstanceUID"], header.texts["AccessionNumber"])):
            work.left_out.append(LeftOut("", path, "WITHDRAWN"))
        elif not patient:
            work.left_out.append(LeftOut("", path, "NO_PATIENT_ID"))
        elif not uid or not header.texts["StudyInstanceUID"]:
            work.left_out.append(LeftOut(patient, path, "NO_UID"))
        elif uid in seen:
            work.left_out.append(LeftOut(patient, path, "DUPLICATE_INSTANCE"))
        else:
            seen.add(uid)
            yield path, header


def _images(task: Task, path: Path, header: FileHeader) -> list[LocalImage]:
    """One image for each frame that the task uses of a file, named as in the catalog."""
    texts, chosen = header.texts, task.frames(header.frames)
    return [
        LocalImage(
            patient=texts["PatientID"],
            study=texts["StudyInstanceUID"],
            uid=texts["SOPInstanceUID"],
            name=image_id(texts["SOPInstanceUID"], frame, len(chosen)),
            accession=texts["AccessionNumber"],
            study_date=texts["StudyDate"],
            path=path,
            frame=frame,
            frames=header.frames,
            beside=task.beside(header.frames),
        )
        for frame in chosen
    ]
