"""Phantom X-rays of children's left hands whose bone age is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tasks.hand_xray import TASK
from tasks.phantoms.chest_xray.radiography import attributes_of, radiography_of, stored_values
from tasks.phantoms.dicom_writer import item
from tasks.phantoms.hand_xray.hand import attenuation_of, hand_of, pose_of
from tasks.phantoms.hospital import Described, Recipe, drawn_truth, fill
from tasks.task import PhantomHospital

_FIELD_MM = 230.0
_OFF_MONTHS = 10.0
"""Standard deviation of a child's age around the bone age."""


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's X-rays of hands; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of X-ray images as of ``chest_xray``, and ``labels.csv``.
        hospital: patients and share of those who have nearly grown; ``gain`` is the exposure, ``frequency_mhz`` means
            nothing.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    fill(folder, hospital, seed, Recipe(TASK.name, 1, TASK.classes, _draw_patient))


def _draw_patient(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Described]:
    room = radiography_of(hospital)
    months = drawn_truth(TASK.answer, positive, rng)
    hand = hand_of(months, rng)
    years = max(0, round((months + rng.normal(0, _OFF_MONTHS)) / 12))
    person = {"PatientSex": "F" if rng.random() < 0.5 else "M", "PatientAge": f"{years:03d}Y"}
    pixel_mm = _FIELD_MM / room.rows
    x_mm = (np.arange(room.columns, dtype=np.float32) - (room.columns - 1) / 2)[None, :] * np.float32(pixel_mm)
    y_mm = ((room.rows - 1) / 2 - np.arange(room.rows, dtype=np.float32))[:, None] * np.float32(pixel_mm)
    least, most = hospital.images_per_patient
    for _ in range(int(rng.integers(least, most + 1))):
        attenuation = attenuation_of(hand, pose_of(rng), x_mm, y_mm)
        stored = stored_values(room, attenuation, False, rng)
        image = attributes_of(room, stored, False) | person | _of_a_hand(pixel_mm, room.plates)
        yield Described(image, label=TASK.said(months))


def _of_a_hand(pixel_mm: float, plates: bool) -> dict[str, Any]:
    """What differs from a chest's header."""
    hand = {"CodeValue": "85562004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Hand"}
    told = {
        "BodyPartExamined": "HAND",
        "ViewPosition": "PA",
        "SeriesDescription": "LEFT HAND PA",
        "PatientOrientation": ["R", "H"],
        "ImagerPixelSpacing": [round(pixel_mm, 4)] * 2,
    }
    return told | ({} if plates else {"ImageLaterality": "L", "AnatomicRegionSequence": [item(hand)]})
