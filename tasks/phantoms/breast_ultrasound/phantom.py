"""Phantom breast ultrasound: speckle, layers, a lesion, and a frame with marks around the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.breast_ultrasound import TASK
from tasks.breast_ultrasound.structures import STRUCTURES
from tasks.phantoms.breast_ultrasound.lesion import Lesion, echo_of, lesion_of, outline_of, seen_again
from tasks.phantoms.breast_ultrasound.scanner import BreastScanner, attributes_of, frame_of, scanner_of
from tasks.phantoms.fields import Field, smooth_noise
from tasks.phantoms.hospital import Attributes, Dependent, Recipe, fill
from tasks.phantoms.segmentation import OutlinedImage, segmentation_of
from tasks.phantoms.ultrasound import envelope, grey_of, scatterers, tgc_error
from tasks.task import PhantomHospital

_LOOKS = 2
_LOSS_DB_PER_CM_MHZ = 1.1  # two-way, of fat and glandular tissue


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's breast ultrasound images; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of Ultrasound Image Storage (PS3.3 A.6), for each a Segmentation
            (A.51) with the lesion's true outline, and ``labels.csv``.
        hospital: patients, share of malignant lesions, and the look of the scanner.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    fill(folder, hospital, seed, Recipe(TASK.name, 2, TASK.classes, _draw_patient))


def _draw_patient(
    hospital: PhantomHospital, rng: np.random.Generator, positive: bool
) -> Iterator[Attributes | Dependent]:
    scanner = scanner_of(hospital)
    lesion = lesion_of(rng, positive)
    layers = rng.uniform(0.12, 0.3), rng.uniform(0.6, 0.8)
    side = "R" if rng.random() < 0.5 else "L"
    least, most = hospital.images_per_patient
    outlines = []
    for _ in range(int(rng.integers(least, most + 1))):
        image, outline = image_of(scanner, seen_again(lesion, rng), layers, rng)
        outlines.append(_in_frame(scanner, outline))
        yield attributes_of(scanner, frame_of(scanner, image, side), side)
    for number, outline in enumerate(outlines):
        yield partial(_segmentation, number, outline)


def _segmentation(number: int, outline: NDArray[np.bool_], files: Sequence[Attributes]) -> Attributes:
    return segmentation_of([OutlinedImage(files[number], outline[None])], STRUCTURES)


def _in_frame(scanner: BreastScanner, outline: NDArray[np.bool_]) -> NDArray[np.bool_]:
    left, top, right, bottom = scanner.region
    whole = np.zeros(scanner.frame, dtype=np.bool_)
    whole[top:bottom, left:right] = outline
    return whole


def image_of(
    scanner: BreastScanner, lesion: Lesion, layers: tuple[float, float], rng: np.random.Generator, shown: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One B-mode image and the lesion's outline on it, (rows, columns) of the scanner's region.

    Args:
        layers: depth of the fasciae, as fractions of the scanner's.
        shown: otherwise there is tissue where the lesion would be.
    """
    z_mm = np.linspace(0, scanner.depth_mm, scanner.rows, dtype=np.float32)
    x_mm = np.linspace(-0.5, 0.5, scanner.columns, dtype=np.float32) * np.float32(scanner.width_mm)
    depth = rng.uniform(0.3, 0.45) * scanner.depth_mm + 0.25 * lesion.across * lesion.aspect
    place = rng.normal(0, 0.07) * scanner.width_mm
    tissue = _tissue(scanner, layers, z_mm, rng)
    from_centre = x_mm - np.float32(place), z_mm - np.float32(depth)
    echo = echo_of(lesion, rng, *from_centre, tissue) if shown else tissue.copy()
    echo -= np.float32(6) * np.square(z_mm / np.float32(scanner.depth_mm))[:, None]
    echo += tgc_error(z_mm, rng)[:, None] + np.float32(rng.normal(0, 1.5))
    noise_db = np.asarray(-72 + np.float32(_LOSS_DB_PER_CM_MHZ * scanner.frequency_mhz) * z_mm / 10, dtype=np.float32)
    magnitude = envelope(rng, scatterers(rng, echo.shape, _LOOKS), echo, scanner.pulse_px, noise_db)
    grey = np.rint(255 * grey_of(magnitude, scanner.gain, scanner.gamma)).astype(np.uint8)
    return grey, outline_of(lesion, *from_centre) & shown


def _tissue(scanner: BreastScanner, layers: tuple[float, float], z_mm: Field, rng: np.random.Generator) -> Field:
    """Echo of skin, subcutaneous fat, glandular tissue and pectoral muscle in decibels, (rows, columns)."""
    shape = (scanner.rows, scanner.columns)
    wave = smooth_noise(rng, shape, (shape[0], shape[1] / 4))
    depth = (z_mm / np.float32(scanner.depth_mm))[:, None] + np.float32(0.025) * wave
    streaks = smooth_noise(rng, shape, (shape[0] / 45, shape[1] / 9))
    septa = smooth_noise(rng, shape, (shape[0] / 12, shape[1] / 5))
    line = np.exp(-((septa / np.float32(0.09)) ** 2))  # level lines of a smooth field wander as Cooper's ligaments do
    fat, gland = _step(depth, layers[0]), _step(depth, layers[1])
    lobules = smooth_noise(rng, shape, (shape[0] / 14, shape[1] / 8))
    echo = -21 + 1.0 * streaks + 11 * line
    echo += fat * (10 + 3.0 * streaks + 3.0 * lobules - 7 * line)
    echo += gland * (-13 - 2.0 * lobules + 9 * np.exp(-(((streaks - 1) / np.float32(0.3)) ** 2)))
    for fascia in layers:
        echo += 9 * np.exp(-(((depth - np.float32(fascia)) / np.float32(0.008)) ** 2))
    skin = np.exp(-((z_mm / 0.35) ** 2)) + 0.8 * np.exp(-(((z_mm - 1.6) / 0.3) ** 2))
    return np.asarray(echo + 12 * skin[:, None], dtype=np.float32)


def _step(depth: Field, at: float) -> Field:
    return np.asarray(1 / (1 + np.exp(((np.float32(at) - depth) / np.float32(0.008)).clip(-30, 30))), dtype=np.float32)
