"""Writes a phantom hospital's archive: valid DICOM files, a labels file, and a note of what they were drawn from.

Everything follows from the hospital's description and the seed, UIDs included (PS3.5 B.2, made from a hash), so the
same phantom can be drawn again anywhere. The labels file is written last: where it stands, the archive is whole.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tasks.task import PhantomHospital

_VERSION = 1
_ROOT = "2.25."  # UIDs made from hashes, no registered root needed (PS3.5 B.2)


@dataclass(frozen=True)
class PhantomImage:
    """One image: pixels of shape (rows, columns), uint8 or uint16, and attributes by DICOM keyword."""

    pixels: NDArray[Any]
    attributes: dict[str, Any] = field(default_factory=dict)


DrawPatient = Callable[[PhantomHospital, bool, np.random.Generator], list[PhantomImage]]
"""Draws all images of one patient, who has the positive class or not."""


def write_hospital(
    folder: Path, hospital: PhantomHospital, seed: int, classes: tuple[str, str], sop_class: str, draw: DrawPatient
) -> None:
    """Write ``folder/dicom/PATIENT/N.dcm`` and ``folder/labels.csv``; nothing is done where they stand already."""
    made_of = json.dumps({"version": _VERSION, "seed": seed, "sop_class": sop_class, **asdict(hospital)}, sort_keys=True)
    note, labels = folder / "phantom.json", folder / "labels.csv"
    if labels.exists() and note.exists() and note.read_text("utf-8") == made_of:
        return
    folder.mkdir(parents=True, exist_ok=True)
    labels.unlink(missing_ok=True)
    rows = [row for number in range(hospital.patients) for row in _write_patient(folder, hospital, seed, number, classes, sop_class, draw)]
    note.write_text(made_of, "utf-8")
    partial = labels.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("PatientID", "SOPInstanceUID", "label"), *rows])
    partial.replace(labels)


def _write_patient(
    folder: Path,
    hospital: PhantomHospital,
    seed: int,
    number: int,
    classes: tuple[str, str],
    sop_class: str,
    draw: DrawPatient,
) -> Iterator[tuple[str, str, str]]:
    rng = np.random.default_rng([seed, number, _integer(hospital.name)])
    positive = bool(rng.random() < hospital.prevalence)
    patient = f"{hospital.name.upper()}-{number:04d}"
    study = _uid(seed, patient, "study")
    for instance, image in enumerate(draw(hospital, positive, rng), start=1):
        dataset = _dataset(image, sop_class)
        dataset.PatientID, dataset.IssuerOfPatientID = patient, hospital.name
        dataset.PatientName, dataset.InstitutionName = f"Phantom^{number:04d}", f"Phantom hospital {hospital.name}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, _uid(seed, patient, "series")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = _uid(seed, patient, str(instance))
        dataset.InstanceNumber = instance
        path = folder / "dicom" / patient / f"{instance}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        yield patient, dataset.SOPInstanceUID, classes[positive]


def _dataset(image: PhantomImage, sop_class: str) -> Dataset:
    """An image with every attribute that does not depend on whose it is."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20260101", "120000", ""
    dataset.ReferringPhysicianName = dataset.StudyID = dataset.PatientBirthDate = ""
    dataset.PatientSex, dataset.SeriesNumber = "O", 1
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "Phantom: never a person"
    dataset.Manufacturer = "Phantom Imaging"
    dataset.LossyImageCompression = "00"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = image.pixels.shape
    bits = image.pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = 0
    for keyword, value in image.attributes.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = image.pixels.tobytes() + b"\0" * (image.pixels.nbytes % 2)
    return dataset


def _uid(seed: int, patient: str, what: str) -> str:
    return str(generate_uid(prefix=_ROOT, entropy_srcs=[str(seed), patient, what]))


def _integer(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
