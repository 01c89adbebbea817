"""Small studies with one thing each that hospitals' files have and a reader may stumble on, and what comes of a folder.

Pixels are simple bodies: a head with a bright ball on MR, a chest with two lungs and a nodule on CT, speckle under a
bar on ultrasound, and a gradient with noise on X-rays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from client.cohort.cache import ExampleCache, load_example, load_masks
from client.cohort.preparation import Decoding, Job, Prepared, prepare
from client.site import SiteSettings
from client.sources.files.folder import list_folder
from client.sources.settings import FolderSource
from tasks import task as tasks

SIDE = 48
CT, MR, CR, US = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.6.1",
)
ENHANCED_CT, ENHANCED_MR = f"{CT}.1", f"{MR}.1"
STUDY = "1.2.826.0.1.3680043.10.999.77"
AXIAL = [1, 0, 0, 0, 1, 0]


@dataclass
class Outcome:
    """What comes of a folder: counts, rules that reject, and examples with masks."""

    left_out: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[str, ...]] = field(default_factory=list)
    warned: list[tuple[str, ...]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    examples: list[tuple[NDArray[np.float32], NDArray[np.bool_] | None]] = field(default_factory=list)


def outcome(folder: Path, task: str, site: SiteSettings, **more: Any) -> Outcome:
    """List a folder (``dicom`` and ``labels.csv`` in it) and prepare what may be used, as an ingest does."""
    source = FolderSource(
        kind="folder", task=task, issuer="alder", path=folder / "dicom", labels=folder / "labels.csv", **more
    )
    known = tasks.get(task)
    cache, listing, found = ExampleCache(site, known), list_folder(source, known, frozenset()), Outcome()
    found.left_out = listing.left_out
    judged = [(record, record.acquisition.judgement) for record in listing.records if record.acquisition is not None]
    found.rejected = [judgement.rejected for _, judgement in judged if not judgement.conforms]
    found.warned = [judgement.warned for _, judgement in judged]
    jobs = [Job(record, cache.name(record.image_id)) for record, judgement in judged if judgement.conforms]
    with Decoding() as decoding:
        for job, result in prepare(jobs, known, cache, decoding):
            if isinstance(result, Prepared):
                path = cache.path(job.example)
                found.examples.append((load_example(path), load_masks(path)))
            else:
                found.unreadable.append(result.reason)
    return found


def ball(centre: Sequence[float], radius: float, z: float) -> NDArray[np.bool_]:
    """A slice of a ball, bool (SIDE, SIDE); lengths in pixels, z of the slice."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray((z - centre[0]) ** 2 + (rows - centre[1]) ** 2 + (columns - centre[2]) ** 2 <= radius**2)


def head(z: float) -> NDArray[np.uint16]:
    """A slice of a head on MR; z from -1 to 1."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = z**2 + ((rows - 24) / 20) ** 2 + ((columns - 24) / 17) ** 2 <= 1
    noise = np.random.default_rng(int(1000 * abs(z))).integers(0, 40, (SIDE, SIDE))
    return np.asarray(inside * (500 + 6 * rows + 3 * columns) + noise, np.uint16)


def chest(z: float, nodule: bool = True) -> NDArray[np.int16]:
    """A slice of a chest in Hounsfield units; z in pixels from the nodule's middle."""
    values = np.full((SIDE, SIDE), -1000, np.int16)
    values[4:44, 2:46] = 40
    values[10:38, 6:20] = values[10:38, 28:42] = -850
    if nodule:
        values[ball((0, 24, 13), 4, z)] = 60
    return values


def dataset(pixels: NDArray[Any], number: int, **attributes: Any) -> Dataset:
    """One image of the study; attributes replace or add, ``None`` removes."""
    made = Dataset()
    bits = pixels.dtype.itemsize * 8
    given: dict[str, Any] = {
        "SOPInstanceUID": f"{STUDY}.1.{number}",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{STUDY}.2",
        "PatientID": "ALDER-1",
        "Manufacturer": "Scanners",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "InstanceNumber": number,
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes() + b"\0" * (pixels.nbytes % 2),
    }
    for keyword, value in (given | attributes).items():
        if value is not None:
            setattr(made, keyword, value)
    return made


def save(path: Path, written: Dataset, meta: bool = True) -> Path:
    """Write a file, without file meta information if asked (then in Implicit VR Little Endian)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if meta:
        written.file_meta = FileMetaDataset()
        written.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        written.file_meta.MediaStorageSOPClassUID = written.SOPClassUID
        written.file_meta.MediaStorageSOPInstanceUID = written.get("SOPInstanceUID", f"{STUDY}.9")
        written.save_as(path, enforce_file_format=True)
    else:
        written.save_as(path, enforce_file_format=False, implicit_vr=True, little_endian=True)
    return path


def label(folder: Path, *rows: str) -> None:
    """Write ``labels.csv`` by StudyInstanceUID, positive by default of the one study."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text("\n".join(["StudyInstanceUID,label", *(rows or (f"{STUDY},1",)), ""]), "utf-8")


Changes = Callable[[int], dict[str, Any]]


def mr_series(
    folder: Path, number: int = 16, step: float = 4.0, first: int = 0, changes: Changes = lambda n: {}
) -> None:
    """A contrast-enhanced T1, ``changes`` by the number of the slice."""
    for n in range(number):
        attributes = {
            "SOPClassUID": MR,
            "Modality": "MR",
            "SeriesDescription": "AX T1 POST GD",
            "BodyPartExamined": "HEAD",
            "ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM"],
            "FrameOfReferenceUID": f"{STUDY}.3",
            "ImageOrientationPatient": AXIAL,
            "ImagePositionPatient": [-96.0, -96.0, -32.0 + step * n],
            "PixelSpacing": [4, 4],
            "SliceThickness": step,
        }
        pixels = head(1.8 * n / (number - 1) - 0.9)
        save(folder / "dicom" / f"{first + n:03}.dcm", dataset(pixels, first + n, **attributes | changes(n)))


def ct_series(
    folder: Path, number: int = 16, first: int = 0, below: float = 0.0, nodule: bool = True, **changes: Any
) -> list[Dataset]:
    """A chest CT of 1.25 mm; ``below`` is how far its lowest slice lies below the nodule's, in millimetres."""
    slices = []
    for n in range(number):
        z = 1.25 * (n - number // 2) - below
        attributes = {
            "SOPClassUID": CT,
            "Modality": "CT",
            "SeriesDescription": "CHEST 1.25",
            "BodyPartExamined": "CHEST",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "FrameOfReferenceUID": f"{STUDY}.3",
            "ImageOrientationPatient": AXIAL,
            "ImagePositionPatient": [-24.0, -24.0, z],
            "PixelSpacing": [1, 1],
            "SliceThickness": 1.25,
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
        }
        pixels = (chest(z, nodule) + 1024).astype(np.uint16)
        slices.append(dataset(pixels, first + n, **attributes | changes))
        save(folder / "dicom" / f"{first + n:03}.dcm", slices[-1])
    return slices


def outline(folder: Path, slices: Sequence[Dataset], labels: bool = False, **changes: Any) -> None:
    """The nodule on some slices: a binary segmentation, or one by labels (2 is the nodule, 1 something else)."""
    masks = np.stack([ball((0, 24, 13), 4, float(one.ImagePositionPatient[2])) for one in slices])
    groups = []
    for one in slices:
        source, derived, place, segment, group = Dataset(), Dataset(), Dataset(), Dataset(), Dataset()
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = CT, one.SOPInstanceUID
        derived.SourceImageSequence = [source]
        place.ImagePositionPatient = one.ImagePositionPatient
        segment.ReferencedSegmentNumber = 2
        group.DerivationImageSequence, group.PlanePositionSequence = [derived], [place]
        if not labels:
            group.SegmentIdentificationSequence = [segment]
        groups.append(group)
    how, measures, shared = Dataset(), Dataset(), Dataset()
    how.ImageOrientationPatient = AXIAL
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 1.25
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [how], [measures]
    segments = []
    for number, (value, meaning) in {1: ("39607008", "Lung"), 2: ("27925004", "Nodule")}.items():
        code, described = Dataset(), Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", meaning
        described.SegmentNumber, described.SegmentedPropertyTypeCodeSequence = number, [code]
        segments.append(described)
    stored = (masks * 2).astype(np.uint8) if labels else masks.astype(np.uint8)
    if labels:
        stored[:, 12, 8] = 1
    attributes: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.7" if labels else "1.2.840.10008.5.1.4.1.1.66.4",
        "SOPInstanceUID": f"{STUDY}.5",
        "SeriesInstanceUID": f"{STUDY}.6",
        "Modality": "SEG",
        "SegmentationType": "LABELMAP" if labels else "FRACTIONAL",
        "MaximumFractionalValue": None if labels else 1,
        "FrameOfReferenceUID": f"{STUDY}.3",
        "NumberOfFrames": len(slices),
        "SegmentSequence": segments,
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": groups,
    }
    save(folder / "dicom" / "seg.dcm", dataset(stored, 0, **attributes | changes))


def enhanced(folder: Path, ct: bool, measures_per_frame: bool = True, number: int = 16) -> list[Dataset]:
    """One enhanced file, with pixel measures and values per frame as Siemens XA and Philips write them.

    Returns:
        the slices that it stands for, to outline.
    """
    groups, planes = [], []
    step = 1.25 if ct else 4.0
    places = [step * (n - number // 2) for n in range(number)]
    for z in places:
        place, how, measures, value, kind, group = (Dataset() for _ in range(6))
        place.ImagePositionPatient = [-24.0, -24.0, z] if ct else [-96.0, -96.0, z]
        how.ImageOrientationPatient = AXIAL
        measures.PixelSpacing, measures.SliceThickness = ([1, 1], 1.25) if ct else ([4, 4], 4)
        value.RescaleSlope, value.RescaleIntercept = 1, -1024 if ct else 0
        value.RescaleType = "HU" if ct else "US"
        kind.FrameType = ["ORIGINAL", "PRIMARY", "AXIAL" if ct else "M", "NONE"]
        group.PlanePositionSequence, group.PlaneOrientationSequence = [place], [how]
        group.PixelValueTransformationSequence = [value]
        setattr(group, f"{'CT' if ct else 'MR'}ImageFrameTypeSequence", [kind])
        if measures_per_frame:
            group.PixelMeasuresSequence = [measures]
        groups.append(group)
        plane = Dataset()
        plane.ImagePositionPatient, plane.SOPInstanceUID = place.ImagePositionPatient, f"{STUDY}.1.0"
        planes.append(plane)
    shared = Dataset()
    if not measures_per_frame:
        shared.PixelMeasuresSequence = [measures]
    pixels = [
        (chest(z) + 1024).astype(np.uint16) if ct else head(1.8 * n / (number - 1) - 0.9) for n, z in enumerate(places)
    ]
    attributes = {
        "SOPClassUID": ENHANCED_CT if ct else ENHANCED_MR,
        "Modality": "CT" if ct else "MR",
        "SeriesDescription": "CHEST" if ct else "T1 POST GD",
        "BodyPartExamined": "CHEST" if ct else "HEAD",
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME" if ct else "M", "NONE"],
        "FrameOfReferenceUID": f"{STUDY}.3",
        "NumberOfFrames": number,
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": groups,
    }
    save(folder / "dicom" / "enhanced.dcm", dataset(np.stack(pixels), 0, **attributes))
    return planes


def xray(folder: Path, number: int = 1, meta: bool = True, **changes: Any) -> None:
    """A chest X-ray of 12 bits."""
    rows, columns = np.mgrid[:160, :160]
    noise = np.random.default_rng(number).integers(0, 200, (160, 160))
    attributes = {
        "SOPClassUID": CR,
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "ImagerPixelSpacing": [2, 2],
        "BitsStored": 12,
        "HighBit": 11,
    }
    pixels = (10 * rows + 12 * columns + noise).astype(np.uint16)
    save(folder / "dicom" / f"{number}.dcm", dataset(pixels, number, **attributes | changes), meta)


def ultrasound(folder: Path, *regions: dict[str, int]) -> None:
    """A breast ultrasound frame with a white bar of text above it."""
    pixels = np.random.default_rng(0).integers(20, 120, (480, 640), dtype=np.uint8)
    pixels[:40] = 0
    pixels[10:30, 20:300] = 255
    items = []
    for region in regions:
        item = Dataset()
        box = {"RegionLocationMinX0": 60, "RegionLocationMinY0": 60, "RegionLocationMaxX1": 560}
        scale = {"PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3, "PhysicalDeltaX": 0.01}
        kind = {"RegionLocationMaxY1": 420, "PhysicalDeltaY": 0.01, "RegionSpatialFormat": 1, "RegionDataType": 1}
        for keyword, value in (box | scale | kind | region).items():
            setattr(item, keyword, value)
        items.append(item)
    attributes = {"SOPClassUID": US, "Modality": "US", "BodyPartExamined": "BREAST"}
    save(folder / "dicom" / "1.dcm", dataset(pixels, 1, SequenceOfUltrasoundRegions=items, **attributes))
