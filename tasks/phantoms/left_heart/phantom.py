"""Phantom echocardiograms as those of ``cardiac_ultrasound``, also outlined at the epicardium."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.left_heart import TASK
from tasks.left_heart.structures import STRUCTURES
from tasks.phantoms.cardiac_ultrasound.phantom import segmentation, views_of
from tasks.phantoms.hospital import Attributes, Dependent, Recipe, fill
from tasks.task import PhantomHospital

_DRAWN_AS, _VERSION = "cardiac_ultrasound", 101
"""By the other task's name the same patients and images are drawn; the recipe's number tells the two folders apart."""


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's apical views; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of Ultrasound Image Storage (PS3.3 A.6), a Segmentation (A.51) of
            all images of a patient, and ``labels.csv``. Images and patients are those of ``cardiac_ultrasound``.
        hospital: patients, share of four-chamber views, and the look of the scanner.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    fill(folder, hospital, seed, Recipe(_DRAWN_AS, _VERSION, TASK.classes, _draw_patient))


def _draw_patient(
    hospital: PhantomHospital, rng: np.random.Generator, positive: bool
) -> Iterator[Attributes | Dependent]:
    masks: list[NDArray[np.bool_]] = []
    for image, apart in views_of(hospital, rng, positive):
        cavity, muscle, _ = apart
        masks.append(np.concatenate([apart, (cavity | muscle)[None]]))
        yield image
    yield partial(segmentation, STRUCTURES, masks)
