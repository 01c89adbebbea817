"""DICOM files of invented patients.

Tested in ``tests/tasks/phantoms/test_segmentation.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MANUFACTURER = "Phantom Sonics"
_ROOT = "2.25."  # UUID-derived UIDs, for which no organisation has to be registered (PS3.5 B.2)


def uid(*names: object) -> str:
    """The UID that belongs to these names, the same on every machine."""
    return str(generate_uid(prefix=_ROOT, entropy_srcs=["consilium phantom", *map(str, names)]))


def item(attributes: Mapping[str, Any]) -> Dataset:
    """A dataset from keywords and values."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def pixel_attributes(pixels: NDArray[np.unsignedinteger[Any]], bits_stored: int, photometric: str) -> dict[str, Any]:
    """The Image Pixel module (PS3.3 C.7.6.3) of one grey frame or of several.

    Args:
        pixels: uint8 or uint16 (rows, columns), or (frames, rows, columns), which also gives NumberOfFrames (C.7.6.6);
            no value needs more than ``bits_stored`` bits.
        bits_stored: how many bits carry the value.
        photometric: MONOCHROME1 or MONOCHROME2.
    """
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    frames = {"NumberOfFrames": pixels.shape[0]} if pixels.ndim == 3 else {}
    return frames | {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": photometric,
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": pixels.dtype.itemsize * 8,
        "BitsStored": bits_stored,
        "HighBit": bits_stored - 1,
        "PixelRepresentation": 0,
        "LossyImageCompression": "00",
        "PixelData": data + b"\0" * (len(data) % 2),  # a value has an even length (PS3.5 7.1.1)
    }


def common_attributes(task: str, hospital: str, number: int, seed: int) -> dict[str, Any]:
    """Patient, study, series and equipment (PS3.3 C.7.1 to C.7.5) of a hospital's patient with that number."""
    return {
        "PatientName": f"Phantom^{hospital.capitalize()} {number:04d}",
        "PatientID": patient_id(hospital, number),
        "IssuerOfPatientID": hospital,
        "PatientBirthDate": "",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "Phantom: drawn by a program, nobody was examined",
        "BurnedInAnnotation": "NO",  # the marks at the edge name no one (PS3.3 C.7.6.1)
        "StudyInstanceUID": uid(task, hospital, seed, number, "study"),
        "StudyDate": f"2026{1 + number // 28 % 12:02d}{1 + number % 28:02d}",
        "StudyTime": "120000",
        "StudyID": str(number),
        "AccessionNumber": f"{hospital[:6].upper()}{number:06d}",
        "ReferringPhysicianName": "",
        "SeriesInstanceUID": uid(task, hospital, seed, number, "series"),
        "SeriesNumber": 1,
        "Manufacturer": MANUFACTURER,
        "ManufacturerModelName": f"Phantom {hospital.capitalize()}",
        "InstitutionName": hospital,
    }


def patient_id(hospital: str, number: int) -> str:
    """Such as ALDER-0007."""
    return f"{hospital.upper()}-{number:04d}"


def write(path: Path, attributes: Mapping[str, Any]) -> None:
    """One file in Explicit VR Little Endian; SOPClassUID and SOPInstanceUID have to be among the attributes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = attributes["SOPClassUID"]
    meta.MediaStorageSOPInstanceUID = attributes["SOPInstanceUID"]
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), item(attributes), file_meta=meta, preamble=b"\0" * 128)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
