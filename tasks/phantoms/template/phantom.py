"""CHANGE: how an invented patient looks. Speckle, and a spot that is brighter, the more a patient has of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.phantoms.dicom_writer import pixel_attributes
from tasks.phantoms.fields import Field, smooth_noise
from tasks.phantoms.hospital import Described, Recipe, drawn_truth, fill, severity
from tasks.phantoms.ultrasound import envelope, grey_of, region_item, scatterers
from tasks.task import PhantomHospital
from tasks.template import TASK

_SHAPE = (144, 160)
_PIXEL_MM = 0.3


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's images; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of Ultrasound Image Storage (PS3.3 A.6) and ``labels.csv``.
        hospital: patients, share of positive ones, and the look of the scanner.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    # The number changes whenever other pictures would be drawn from the same hospital and seed.
    fill(folder, hospital, seed, Recipe(TASK.name, 1, TASK.classes, _draw_patient))


def _draw_patient(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Described]:
    """The attributes of each of a patient's images. What a patient has is drawn once, what an image shows each time."""
    truth = drawn_truth(TASK.answer, positive, rng)
    most_db = 14 if TASK.answer.kind == "binary" else 28  # CHANGE: what lies between must be told apart as well
    strength_db = float(rng.normal(most_db, 5)) * severity(TASK.answer, truth)
    sex, age = "F" if rng.random() < 0.5 else "M", int(rng.integers(20, 90))
    least, most = hospital.images_per_patient
    for _ in range(int(rng.integers(least, most + 1))):
        echo = _echo(rng, strength_db)
        noise_db = np.full(_SHAPE[0], -60, dtype=np.float32)
        axial_px = max(0.5, 12 / hospital.frequency_mhz)
        magnitude = envelope(rng, scatterers(rng, _SHAPE, 2), echo, (axial_px, 2 * axial_px), noise_db)
        grey = np.rint(255 * grey_of(magnitude, hospital.gain, 1.0)).astype(np.uint8)
        attributes = pixel_attributes(grey, 8, "MONOCHROME2") | {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1",
            "Modality": "US",
            "ImageType": ["ORIGINAL", "PRIMARY", "", "0001"],  # 0001: 2D imaging (PS3.3 C.8.5.6.1.1)
            "BodyPartExamined": "ABDOMEN",
            "PatientOrientation": "",
            "PatientSex": sex,
            "PatientAge": f"{age:03d}Y",
            "UltrasoundColorDataPresent": 0,
            "SequenceOfUltrasoundRegions": [
                region_item((0, 0, _SHAPE[1], _SHAPE[0]), (_PIXEL_MM / 10, _PIXEL_MM / 10), hospital.frequency_mhz)
            ],
        }
        yield Described(attributes, label=TASK.said(truth))


def _echo(rng: np.random.Generator, strength_db: float) -> Field:
    """Echo of tissue in decibels, with a spot of about 10 mm somewhere in the middle of it."""
    rows, columns = np.indices(_SHAPE, dtype=np.float32)
    row, column = (rng.uniform(0.35, 0.65) * size for size in _SHAPE)
    away = ((rows - row) ** 2 + (columns - column) ** 2) / (18 * float(np.exp(rng.normal(0, 0.25)))) ** 2
    tissue = -26 + 2 * smooth_noise(rng, _SHAPE, (18, 18)) + float(rng.normal(0, 1.5))
    return np.asarray(tissue + strength_db * np.exp(-away), dtype=np.float32)
