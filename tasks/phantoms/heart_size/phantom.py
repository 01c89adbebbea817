"""Phantom chest X-rays of standing adults whose heart has a known width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.heart_size import TASK
from tasks.phantoms.chest_xray.illness import illness_of
from tasks.phantoms.chest_xray.radiography import attributes_of, radiography_of, stored_values
from tasks.phantoms.chest_xray.thorax import Projection, Thorax, attenuation_of, thorax_of
from tasks.phantoms.hospital import Described, Recipe, drawn_truth, fill
from tasks.task import PhantomHospital

_TUBE_MM = 1800.0
_HALF_HEART_MM, _FORWARD, _INNER = 58.0, 0.3, 0.87
"""Of ``tasks/phantoms/chest_xray/thorax.py``: half the width of a heart of size 1, how far before the middle it lies as
a share of half the depth, and where lungs end as a share of half the width of the chest."""
_MILD, _MODERATE, _SEVERE = 50.0, 55.0, 60.0
_GRADED = 0.7  # the share of images whose enlargement somebody has graded


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's chest X-rays; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of X-ray images as of ``chest_xray``, and ``labels.csv``, in which
            the grade of enlargement is not always known.
        hospital: patients and share of enlarged hearts; ``gain`` is the exposure, ``frequency_mhz`` means nothing.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    names = tuple(finding.name for finding in TASK.secondary_findings)
    fill(folder, hospital, seed, Recipe(TASK.name, 1, TASK.classes, _draw_patient, secondary=names))


def _draw_patient(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Described]:
    room, thorax = radiography_of(hospital), thorax_of(rng)
    ratio = drawn_truth(TASK.answer, positive, rng)
    illness = replace(illness_of(rng, covid=False), effusions=(), collapse=None, heart=heart_of(thorax, ratio))
    person = {"PatientSex": "F" if rng.random() < 0.5 else "M", "PatientAge": f"{int(rng.integers(20, 95)):03d}Y"}
    u_mm = (np.arange(room.columns, dtype=np.float32) - (room.columns - 1) / 2) * np.float32(room.pixel_mm)
    v_mm = (np.arange(room.rows, dtype=np.float32) - (room.rows - 1) / 2) * np.float32(room.pixel_mm)
    least, most = hospital.images_per_patient
    for _ in range(int(rng.integers(least, most + 1))):
        shift = float(rng.normal(0, 7)), float(rng.normal(0, 9))
        view = Projection(False, _TUBE_MM, float(rng.normal(0, 0.4)), shift)
        attenuation = attenuation_of(thorax, illness, view=view, u_mm=u_mm, v_mm=v_mm, rng=rng)
        stored = stored_values(room, attenuation, False, rng)
        grade = grade_of(ratio) if rng.random() < _GRADED else None
        yield Described(person | attributes_of(room, stored, False), (grade,), TASK.said(ratio))


def heart_of(thorax: Thorax, ratio: float) -> float:
    """The size of a heart, as ``Illness`` has it, with this cardiothoracic ratio in percent on a view from behind."""
    view = Projection(False, _TUBE_MM, 0.0, (0.0, 0.0))
    larger = view.magnification(thorax, _FORWARD * thorax.deep) / view.magnification(thorax, 0.0)
    return ratio / 100 * _INNER * thorax.wide / (_HALF_HEART_MM * larger)


def grade_of(ratio: float) -> str:
    """How a reader would grade a ratio in percent."""
    for above, grade in ((_SEVERE, "severe"), (_MODERATE, "moderate"), (_MILD, "mild")):
        if ratio > above:
            return grade
    return "none"
