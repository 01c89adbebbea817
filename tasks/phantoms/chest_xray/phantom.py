"""Phantom chest X-rays of adults: rays through a drawn thorax, standing or in bed, with findings that overlap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.chest_xray import TASK
from tasks.phantoms.chest_xray.illness import FINDINGS, illness_of
from tasks.phantoms.chest_xray.radiography import attributes_of, radiography_of, stored_values
from tasks.phantoms.chest_xray.thorax import Projection, attenuation_of, thorax_of
from tasks.phantoms.hospital import Described, Recipe, fill, random_numbers
from tasks.task import PhantomHospital

_UNREAD = 0.1  # the share of images of which nobody has noted findings
_NOTED = 0.65  # the chance that a hospital notes one of them at all


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's chest X-rays; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of Digital X-Ray Image Storage - For Presentation (PS3.3 A.26) or,
            in some hospitals, Computed Radiography Image Storage (A.2), and ``labels.csv``, in which some secondary
            findings are not known.
        hospital: patients and share of COVID-19 pneumonias; ``gain`` is the exposure, ``frequency_mhz`` means nothing.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    fill(folder, hospital, seed, Recipe(TASK.name, 1, TASK.classes, _draw_patient, secondary=FINDINGS))


def _draw_patient(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Described]:
    room, noted = radiography_of(hospital), _noted(hospital)
    thorax, illness = thorax_of(rng), illness_of(rng, positive)
    person = {"PatientSex": "F" if rng.random() < 0.5 else "M", "PatientAge": f"{int(rng.integers(20, 95)):03d}Y"}
    in_bed = bool(rng.random() < room.bedside + 0.35 * illness.burden)
    u_mm = (np.arange(room.columns, dtype=np.float32) - (room.columns - 1) / 2) * np.float32(room.pixel_mm)
    v_mm = (np.arange(room.rows, dtype=np.float32) - (room.rows - 1) / 2) * np.float32(room.pixel_mm)
    least, most = hospital.images_per_patient
    for _ in range(int(rng.integers(least, most + 1))):
        shift = float(rng.normal(0, 7)), float(rng.normal(0, 9))
        view = Projection(in_bed, float(rng.uniform(950, 1150) if in_bed else 1800), float(rng.normal(0, 0.4)), shift)
        attenuation = attenuation_of(thorax, illness, view=view, u_mm=u_mm, v_mm=v_mm, rng=rng)
        read = rng.random() >= _UNREAD
        findings = [value if read and note else None for value, note in zip(illness.findings(), noted, strict=True)]
        stored = stored_values(room, attenuation, in_bed, rng)
        yield Described(person | attributes_of(room, stored, in_bed), tuple(findings))


def _noted(hospital: PhantomHospital) -> list[bool]:
    """Which findings this hospital's readers note at all."""
    rng = random_numbers("findings noted", hospital.name)
    return [bool(rng.random() < _NOTED) for _ in FINDINGS]
