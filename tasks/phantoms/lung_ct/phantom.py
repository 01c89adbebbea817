"""Phantom chest CT: a piece of lung with its vessels, sometimes the chest wall, and a nodule in it.

The field of view is cropped to 60 mm around the nodule: what lies farther away says nothing about it, and the files of
ten phantom hospitals have to be drawn in minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.lung_ct import TASK
from tasks.lung_ct.structures import STRUCTURES
from tasks.phantoms.fields import Field, smooth_volume
from tasks.phantoms.hospital import Attributes, Dependent, Recipe, fill
from tasks.phantoms.lung_ct.nodule import drawn_into, nodule_of
from tasks.phantoms.lung_ct.scanner import CtScanner, attributes_of, reconstructed, scanner_of, stored
from tasks.phantoms.volume import Affine, averaged, outlines, slices
from tasks.task import PhantomHospital

_MATRIX = 64
_HEIGHT_MM = 46.0
_SERIES = 2  # the first would be the scout view


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's chest CTs; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm``, one file a slice of CT Image Storage (PS3.3 A.3) and one
            segmentation (A.51) a patient, and ``labels.csv`` with a row an examination.
        hospital: patients and share of malignant nodules; ``gain`` is the scanner's dose. One examination a patient.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    recipe = Recipe(TASK.name, 1, TASK.classes, _draw_patient, labelled="StudyInstanceUID")
    fill(folder, hospital, seed, recipe)


def _draw_patient(
    hospital: PhantomHospital, rng: np.random.Generator, positive: bool
) -> Iterator[Attributes | Dependent]:
    scanner = scanner_of(hospital)
    nodule = nodule_of(rng, positive)
    number = int(np.ceil(_HEIGHT_MM / scanner.spacing_mm))
    planes = number * scanner.planes
    off = rng.uniform(-4, 4, 3)
    z, y, x = (
        np.float32(step) * (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)) - np.float32(shift)
        for step, size, shift in zip(
            (scanner.plane_mm, scanner.pixel_mm, scanner.pixel_mm), (planes, _MATRIX, _MATRIX), off, strict=True
        )
    )
    density = _lung(rng, (z, y, x), nodule.radius)
    share = averaged(drawn_into(density, nodule, (z, y, x), 2.2 * nodule.radius + 4), scanner.planes, scanner.planes)
    image = reconstructed(scanner, averaged(density, scanner.planes, scanner.planes), rng)
    affine = _affine(scanner, number, rng)
    if scanner.descending:
        image, share, affine = image[::-1], share[::-1], _from_above(affine, number)
    common = attributes_of(scanner, "F" if rng.random() < 0.45 else "M")
    for plane in slices(stored(image), affine, scanner.spacing_mm, _SERIES):
        yield common | plane
    yield outlines((share >= min(0.5, float(share.max())))[None], STRUCTURES, _SERIES)


def _affine(scanner: CtScanner, number: int, rng: np.random.Generator) -> Affine:
    """Somewhere in a lung: 60 to 110 mm beside the middle of the body."""
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = scanner.spacing_mm, scanner.pixel_mm, scanner.pixel_mm
    centre = np.array([rng.choice([-1, 1]) * rng.uniform(60, 110), rng.uniform(-60, 60), rng.uniform(-250, -80)])
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array([number, _MATRIX, _MATRIX]) - 1) / 2
    affine[3, 3] = 1
    return affine


def _from_above(affine: Affine, number: int) -> Affine:
    turned = affine.copy()
    turned[:3, 3] += (number - 1) * affine[:3, 0]
    turned[:3, 0] *= -1
    return turned


def _lung(rng: np.random.Generator, at_mm: tuple[Field, Field, Field], radius: float) -> Field:
    """Density of parenchyma, vessels and, in some patients, chest wall, in Hounsfield units."""
    z, y, x = at_mm
    shape = (len(z), len(y), len(x))
    down, back, left = (float(axis[1] - axis[0]) for axis in at_mm)
    texture = smooth_volume(rng, shape, (3.5 / down, 3.5 / back, 3.5 / left))
    density = np.float32(rng.normal(-865, 22)) + np.float32(22) * texture
    density += np.float32(rng.uniform(0, 1.2)) * (y[None, :, None] + 30)  # blood sinks to the back of who lies
    if rng.random() < 0.3:  # emphysema: holes in the lung
        holes = smooth_volume(rng, shape, (6 / down, 6 / back, 6 / left))
        density += np.where(holes > 1.1, np.float32(-70), np.float32(0))
    for _ in range(int(rng.poisson(3)) + 1):
        _vessel(density, rng, at_mm)
    if rng.random() < 0.15:
        _wall(density, rng, at_mm, radius)
    return density


def _vessel(density: Field, rng: np.random.Generator, at_mm: tuple[Field, Field, Field]) -> None:
    """A curved, tapering tube along one axis, given by where it is on the two others."""
    along = int(rng.integers(3))
    axes = [np.moveaxis(density, along, 0), at_mm[along], *(at_mm[i] for i in range(3) if i != along)]
    target, t, u, v = axes
    span = np.float32(t[-1] - t[0])
    radius = np.float32(np.exp(rng.normal(0, 0.4))) * (1 - np.float32(rng.uniform(0, 0.6)) * (t - t[0]) / span)
    places, slope = [], np.ones_like(t)
    for axis in (u, v):
        lean, bend = rng.normal(0, 0.45), rng.normal(0, 0.006)
        places.append(np.float32(rng.uniform(axis[0], axis[-1])) + np.float32(lean) * t + np.float32(bend) * t * t)
        slope = slope + np.square(np.float32(lean) + 2 * np.float32(bend) * t)
    aslant = np.sqrt(slope)[:, None]  # a tube that leans looks wider than it is
    first, second = ((axis[None, :] - place[:, None]) / aslant for axis, place in zip((u, v), places, strict=True))
    apart = np.sqrt(np.square(first)[:, :, None] + np.square(second)[:, None, :])
    inside = 1 / (1 + np.exp(((apart - radius[:, None, None]) * np.float32(5)).clip(-30, 30)))
    target += inside * (np.float32(35) - target)


def _wall(density: Field, rng: np.random.Generator, at_mm: tuple[Field, Field, Field], radius: float) -> None:
    """Pleura, muscle, fat and a rib beside the lung, sometimes so near that the nodule sits on them."""
    z, y, x = at_mm
    turn = rng.uniform(0, 2 * np.pi)
    near = float(rng.uniform(0.6, 1.2) * radius if rng.random() < 0.5 else rng.uniform(radius + 3, 24))
    bow = np.float32(1 / 110)
    across = np.float32(np.cos(turn)) * x[None, None, :] + np.float32(np.sin(turn)) * y[None, :, None]
    beside = np.float32(np.cos(turn)) * y[None, :, None] - np.float32(np.sin(turn)) * x[None, None, :]
    depth = across - np.float32(near) + bow / 2 * (np.square(beside) + np.square(z)[:, None, None] / 3)
    inside = 1 / (1 + np.exp((-depth * np.float32(4)).clip(-30, 30)))
    layer = np.where(depth < 7, np.float32(45), np.float32(-95))
    rib = np.square((depth - 5) / np.float32(3.5)) + np.square(
        (z[:, None, None] - rng.uniform(-15, 15)) / np.float32(6)
    )
    layer = np.where(rib < 1, np.float32(120) + 380 * rib, layer)  # marrow within, cortex around it
    density += inside * (layer - density)
