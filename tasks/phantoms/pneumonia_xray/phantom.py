"""Phantom chest X-rays of children: rays through a drawn thorax, with quantum noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.dicom_writer import item, pixel_attributes
from tasks.phantoms.fields import Field, smooth_noise
from tasks.phantoms.hospital import Recipe, fill, random_numbers
from tasks.pneumonia_xray import TASK
from tasks.task import PhantomHospital

_DIGITAL_X_RAY_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
_BITS = 12
_PHOTONS = 2500.0  # a pixel, in the open beam
_DENSEST = 4.2  # attenuation shown as the brightest grey


@dataclass(frozen=True)
class Detector:
    """A hospital's detector: size of its images in pixels, their grey values' direction, and its exposure."""

    rows: int
    columns: int
    photometric: str
    exposure: float


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's chest X-rays; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of Digital X-Ray Image Storage - For Presentation (PS3.3 A.26) and
            ``labels.csv``.
        hospital: patients and share of pneumonias; ``gain`` is the exposure, ``frequency_mhz`` means nothing here.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    fill(folder, hospital, seed, Recipe(TASK.name, 1, TASK.classes, _draw_patient))


def detector_of(hospital: PhantomHospital) -> Detector:
    """The detector of this hospital; about every second one stores bright tissue as low values (MONOCHROME1)."""
    rng = random_numbers("detector", hospital.name)
    rows = int(rng.integers(88, 112))
    return Detector(rows, rows + int(rng.integers(4, 16)), f"MONOCHROME{rng.integers(1, 3)}", hospital.gain)


@dataclass(frozen=True)
class Focus:
    """One consolidation: the lung it is in (-1 or 1), its height there, its extent, and its attenuation."""

    side: float
    height: float
    extent: float
    density: float


def _draw_patient(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[dict[str, Any]]:
    detector = detector_of(hospital)
    build = rng.normal(0, 1, 6)
    foci = [] if not positive else [_focus(rng) for _ in range(int(rng.integers(1, 4)))]
    least, most = hospital.images_per_patient
    for _ in range(int(rng.integers(least, most + 1))):
        yield _attributes(detector, _stored(detector, _attenuation(detector, build, foci, rng), rng))


def _focus(rng: np.random.Generator) -> Focus:
    """Many are faint; many real ones are."""
    side = -1.0 if rng.random() < 0.5 else 1.0
    height, extent = float(rng.uniform(-0.6, 0.75)), float(rng.uniform(0.12, 0.3))
    return Focus(side, height, extent, density=float(np.exp(rng.normal(-0.9, 0.6))))


def _attenuation(detector: Detector, build: NDArray[np.float64], foci: list[Focus], rng: np.random.Generator) -> Field:
    """Line integrals of attenuation, (rows, columns); x and y run from -1 to 1, the patient's right is on the left."""
    shape = (detector.rows, detector.columns)
    turn, breath = rng.normal(0, 0.03), 0.06 * build[0] + rng.normal(0, 0.04)
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :] * np.float32(1 + 0.05 * build[1]) - np.float32(turn)
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None] + np.float32(0.03 * rng.standard_normal())
    body = _inside((x / 0.93) ** 4 + (y / 1.6) ** 4, 0.1)
    lungs = _lungs(x, y, breath)
    heart = _inside(((x - 0.13) / (0.31 + 0.03 * build[2])) ** 2 + ((y - 0.32) / 0.38) ** 2, 0.12)
    mediastinum = np.exp(-((np.abs(x) / 0.16) ** 4)) * (0.75 + 0.1 * np.sin(40 * y))
    air = 1.45 * lungs * (1 - 0.8 * heart)
    density = body * (2.3 + 0.25 * build[3] - air + 0.55 * mediastinum + _ribs(x, y))
    vessels = np.exp(-np.abs(np.abs(x) - 0.2) / 0.25) * np.exp(-((y / 0.6) ** 2))
    marks = 0.16 * (1 + 0.4 * abs(build[4])) * vessels * np.maximum(0, smooth_noise(rng, shape, (2, 2)) + 0.7)
    marks *= 1 - 0.8 * heart
    density += lungs * (marks + _consolidation(x, y, foci, rng, shape) + 0.04 * smooth_noise(rng, shape, (12, 12)))
    return np.asarray(density, dtype=np.float32)


def _inside(level: NDArray[Any], edge: float) -> NDArray[Any]:
    """1 where the level is below 1, 0 where it is above, with a soft edge."""
    return np.asarray(1 / (1 + np.exp(((level - 1) / edge).clip(-30, 30))))


def _lungs(x: Field, y: Field, breath: float) -> NDArray[Any]:
    """Two lungs, cut off below by the domes of the diaphragm; the right one stands higher, over the liver."""
    both = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for side, dome in ((-1, 0.58), (1, 0.66)):
        lung = _inside((np.abs(x - side * 0.44) / 0.36) ** 2.5 + (np.abs(y + 0.02) / 0.82) ** 2.5, 0.12)
        floor = dome + breath + 0.9 * (x - side * 0.38) ** 2
        both = np.maximum(both, lung * _inside(1 + (y - floor), 0.03))
    return both


def _ribs(x: Field, y: Field) -> NDArray[Any]:
    """Posterior ribs, falling outwards, and the clavicles."""
    bow = y - 0.35 * np.abs(x) ** 1.5
    ribs = np.maximum(0, np.cos(2 * np.pi * bow / 0.2)) ** 3 * (np.abs(x) > 0.1) * (np.abs(y) < 0.85)
    clavicles = np.exp(-(((y + 0.72 + 0.15 * np.abs(x)) / 0.04) ** 2)) * (np.abs(x) < 0.75)
    return np.asarray(0.2 * ribs + 0.3 * clavicles)


def _consolidation(
    x: Field, y: Field, foci: list[Focus], rng: np.random.Generator, shape: tuple[int, int]
) -> NDArray[Any]:
    """Fluffy opacities: air spaces filled with fluid, denser in the middle, without a border."""
    opacity = np.zeros(shape)
    for focus in foci:
        away = ((x - focus.side * 0.45) ** 2 + (y - focus.height) ** 2) / focus.extent**2
        opacity += focus.density * np.exp(-away) * (1 + 0.35 * smooth_noise(rng, shape, (4, 4))).clip(0.2, 2)
    return opacity


def _stored(detector: Detector, attenuation: Field, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Photons counted (Poisson), their logarithm over 12 bits, bone bright."""
    open_beam = _PHOTONS * detector.exposure
    counted = np.maximum(1, rng.poisson(open_beam * np.exp(-attenuation)))
    grey = (np.log(_PHOTONS * 1.05 / counted) / _DENSEST).clip(0, 1)
    value = np.rint((grey if detector.photometric == "MONOCHROME2" else 1 - grey) * (2**_BITS - 1))
    return np.asarray(value, dtype=np.uint16)


def _attributes(detector: Detector, stored: NDArray[np.uint16]) -> dict[str, Any]:
    """What PS3.3 A.26 requires: DX Series, Anatomy Imaged, Image, Detector, Positioning (C.8.11), VOI LUT (C.11.2)."""
    inverse = detector.photometric == "MONOCHROME1"
    chest = {"CodeValue": "51185008", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Chest"}
    return pixel_attributes(stored, _BITS, detector.photometric) | {
        "SOPClassUID": _DIGITAL_X_RAY_FOR_PRESENTATION,
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "PatientSex": "O",
        "PatientAge": "004Y",
        "BodyPartExamined": "CHEST",
        "ImageLaterality": "U",
        "AnatomicRegionSequence": [item(chest)],
        "PatientOrientation": ["L", "F"],
        "ViewPosition": "AP",
        "PositionerType": "NONE",
        "DetectorType": "DIRECT",
        "ImagerPixelSpacing": [2.5, 2.5],
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": 1 if inverse else -1,  # which end of the values is less radiation
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "PresentationLUTShape": "INVERSE" if inverse else "IDENTITY",
        "WindowCenter": 2 ** (_BITS - 1),
        "WindowWidth": 2**_BITS,
        "AcquisitionContextSequence": [],
    }
