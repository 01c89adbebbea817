"""Phantom breast ultrasound of three kinds: those of ``breast_ultrasound``, and breasts without a lesion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.breast_ultrasound_three import TASK
from tasks.phantoms.breast_ultrasound.lesion import lesion_of, seen_again
from tasks.phantoms.breast_ultrasound.phantom import image_of
from tasks.phantoms.breast_ultrasound.scanner import attributes_of, frame_of, scanner_of
from tasks.phantoms.hospital import Described, Recipe, drawn_truth, fill
from tasks.task import PhantomHospital


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's breast ultrasound images; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of Ultrasound Image Storage (PS3.3 A.6) and ``labels.csv``.
        hospital: patients, share of malignant lesions, and the look of the scanner. Of all others one half has a benign
            lesion.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    fill(folder, hospital, seed, Recipe(TASK.name, 1, TASK.classes, _draw_patient))


def _draw_patient(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Described]:
    scanner = scanner_of(hospital)
    truth = drawn_truth(TASK.answer, positive, rng)
    lesion = lesion_of(rng, positive)
    layers = rng.uniform(0.12, 0.3), rng.uniform(0.6, 0.8)
    side = "R" if rng.random() < 0.5 else "L"
    least, most = hospital.images_per_patient
    for _ in range(int(rng.integers(least, most + 1))):
        image, _ = image_of(scanner, seen_again(lesion, rng), layers, rng, shown=truth > 0)
        yield Described(attributes_of(scanner, frame_of(scanner, image, side), side), label=TASK.said(truth))
