"""What a model is to look at: the images of a task that lie here as DICOM files, and why others are left out.

Unlike the catalog this knows patients and images by their names, because a report has to name them. It is made for one
prediction and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom import Dataset

from client.cohort import catalog, index
from client.cohort.cache import ExampleCache
from client.cohort.intake import keyed
from client.cohort.withdrawals import withdrawn
from client.errors import EmptySource, SiteMisconfigured
from client.reading.contract import Declared, Judgement, bits_stored, judge_header, merged
from client.reading.dicom import UnreadableDicom, number_of_frames, read_header
from client.site import SiteSettings, secret
from client.sources.folder import image_id
from client.sources.labels_seg import is_segmentation
from client.sources.record import signature_of
from client.sources.settings import DicomwebSource, DimseSource, FolderSource
from tasks import contract as contracts
from tasks.task import Task

Told = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is."""
_DICOM = (FolderSource, DicomwebSource, DimseSource)


@dataclass(frozen=True)
class LocalImage:
    """One frame to score.

    Attributes:
        patient, study, uid, accession, study_date: as the file has them.
        name: the image's among all of its source.
        path, frame, frames: the file, the frame that is scored (from 0), and how many it has.
        warned: rules of the contract that warn of it.
        bits_stored: for the rules about pixels; ``None`` where those were checked already.
        example: the prepared example, where the catalog has one.
        trained: the patient is on the training side of this hospital's split.
    """

    patient: str
    study: str
    uid: str
    name: str
    accession: str
    study_date: str
    path: Path
    frame: int
    frames: int
    warned: tuple[str, ...] = ()
    bits_stored: int | None = None
    example: Path | None = None
    trained: bool = False


@dataclass(frozen=True)
class LeftOut:
    """An image that is not scored, and why: a rule of the contract, or a word from the reader's list."""

    patient: str
    path: Path
    reason: str


@dataclass
class Worklist:
    """Images to score, and those that are not."""

    images: list[LocalImage] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def of_catalog(site: SiteSettings, task: Task, told: Told) -> Worklist:
    """Every image that the catalog of a task has, as far as its file is as it was when it was ingested.

    Nothing is asked of an archive: of one, what its spool holds is taken.

    Raises:
        CatalogStale: nothing was ingested, or under another contract.
        EmptySource: no source of the task has DICOM files.
        SiteMisconfigured: the task reads scans.
    """
    _refuse_scans(task)
    catalog.honour_withdrawals(site)
    sources = [source for source in site.sources if source.task == task.name]
    dicom = [source for source in sources if isinstance(source, _DICOM)]
    if not dicom:
        kinds = ", ".join(sorted({source.kind for source in sources})) or "none"
        raise EmptySource(
            f"{site.name} has no source of DICOM files for {task.name} (it has: {kinds}); a report needs the images' "
            "headers. Say --path FOLDER"
        )
    catalog.report(site, task)  # refuses a stale catalog
    found = Worklist()
    for source in dicom:
        folder = source.path if isinstance(source, FolderSource) else source.path / "images"
        _of_source(site, task, source.issuer, str(source.path), folder, found, told)
    return found


def of_folder(site: SiteSettings, task: Task, folder: Path, organ: str, told: Told) -> Worklist:
    """Every DICOM image under a folder, held against the header rules of the task's contract.

    Args:
        organ: what all of them show, where a file does not tell.

    Raises:
        SiteMisconfigured: there is no such folder, or the task reads scans.
        EmptySource: it has no DICOM file.
    """
    _refuse_scans(task)
    if not folder.is_dir():
        raise SiteMisconfigured(f"{folder} is no folder")
    sources = [source for source in site.sources if source.task == task.name]
    words = {word: meaning for source in sources for word, meaning in source.organ_words.items()}
    declared, contract = Declared(organ, words), contracts.of_task(task.name)
    trained = _training_patients(site, task, [source.issuer for source in sources])
    found = Worklist()
    for path, header in _headers(folder, withdrawn(site), found, told):
        judged, patient = judge_header(contract, header, declared), _text(header, "PatientID")
        if not judged.conforms:
            found.left_out.append(LeftOut(patient, path, judged.rejected[0]))
            continue
        for image in _images(task, path, header):
            bits = bits_stored(header)
            found.images.append(replace(image, warned=judged.warned, trained=trained(patient), bits_stored=bits))
    if not found.images and not found.left_out:
        raise EmptySource(f"no DICOM file under {folder}")
    return found


def _refuse_scans(task: Task) -> None:
    if task.sequences:
        raise SiteMisconfigured(
            f"{task.name} reads whole scans; predictions, reports and the triage page are made of single images only"
        )


def _of_source(
    site: SiteSettings, task: Task, issuer: str, source: str, folder: Path, found: Worklist, told: Told
) -> None:
    key, cache = secret(site), ExampleCache(site, task)
    with index.opened(site) as opened:
        known = {image.image: image for image in opened.images(task.name, [issuer])}
        sides = opened.sides(task.name, [issuer])
    for path, header in _headers(folder, withdrawn(site), found, told):
        own = signature_of(path)  # what the catalog's signature begins with; outlines may follow
        for image in _images(task, path, header):
            row = known.get(keyed(key, "image", issuer, image.name))
            if row is None:
                found.left_out.append(LeftOut(image.patient, path, "NOT_IN_CATALOG"))
            elif not row.signature.startswith(own) or row.example != cache.name(source, image.name, row.signature):
                found.left_out.append(LeftOut(image.patient, path, "CHANGED_SINCE_INGEST"))
            elif not row.usable:
                reason = next(iter(row.rejected), row.unreadable or "NOT_USABLE")
                found.left_out.append(LeftOut(image.patient, path, reason))
            else:
                trained, example = sides.get(row.patient) == "train", cache.path(row.example)
                found.images.append(replace(image, warned=row.warned, trained=trained, example=example))


def _headers(folder: Path, unwilling: frozenset[str], found: Worklist, told: Told) -> Iterator[tuple[Path, Dataset]]:
    """Headers of images that can be named in a report; the others are left out with a reason. What is no image of a
    patient at all (a text file, a report, outlines) is passed over."""
    paths, seen = sorted(p for p in folder.rglob("*") if p.is_file()), set[str]()
    for number, path in enumerate(paths, start=1):
        told("reading headers", number, len(paths))
        try:
            header = read_header(path)
        except UnreadableDicom as error:
            if str(error.reason) not in ("NOT_DICOM", "NO_PIXEL_DATA"):
                found.left_out.append(LeftOut("", path, str(error.reason)))
            continue
        if is_segmentation(header):
            continue
        patient, uid = _text(header, "PatientID"), _text(header, "SOPInstanceUID")
        if patient in unwilling:
            found.left_out.append(LeftOut("", path, "WITHDRAWN"))
        elif not patient:
            found.left_out.append(LeftOut("", path, "NO_PATIENT_ID"))
        elif not uid or not _text(header, "StudyInstanceUID"):
            found.left_out.append(LeftOut(patient, path, "NO_UID"))
        elif uid in seen:
            found.left_out.append(LeftOut(patient, path, "DUPLICATE_INSTANCE"))
        else:
            seen.add(uid)
            yield path, header


def _images(task: Task, path: Path, header: Dataset) -> list[LocalImage]:
    """One for each frame that the task takes of a file, named as the catalog names it."""
    frames, uid = number_of_frames(header), _text(header, "SOPInstanceUID")
    chosen = task.frames(frames)
    return [
        LocalImage(
            patient=_text(header, "PatientID"),
            study=_text(header, "StudyInstanceUID"),
            uid=uid,
            name=image_id(uid, frame, len(chosen)),
            accession=_text(header, "AccessionNumber"),
            study_date=_text(header, "StudyDate"),
            path=path,
            frame=frame,
            frames=frames,
        )
        for frame in chosen
    ]


def _training_patients(site: SiteSettings, task: Task, issuers: list[str]) -> Callable[[str], bool]:
    key = secret(site)
    with index.opened(site) as opened:
        sides = opened.sides(task.name, issuers)
    return lambda patient: any(sides.get(keyed(key, "patient", issuer, patient)) == "train" for issuer in issuers)


def _text(header: Dataset, keyword: str) -> str:
    try:
        return str(header.get(keyword) or "").strip()
    except Exception:  # pydicom converts values when they are asked for, and a broken one may raise anything
        return ""


def with_pixels(task: Task, image: LocalImage, judged: Judgement) -> LocalImage:
    """The image with what the rules about pixels say of it."""
    both = merged(contracts.of_task(task.name), Judgement(warned=image.warned), judged)
    return replace(image, warned=both.warned)
