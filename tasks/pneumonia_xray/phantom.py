"""Phantom chest X-rays: two lungs, ribs, heart and diaphragm by attenuation, quantum noise, and consolidations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import DigitalXRayImageStorageForPresentation
from scipy.ndimage import gaussian_filter

from tasks.phantoms.writer import PhantomImage, write_hospital
from tasks.task import PhantomHospital

_SIZE = 96
_CLASSES = ("normal", "pneumonia")
_PHOTONS = 4000.0
_FULL_SCALE = 4095  # 12 bits

Image = NDArray[np.float64]


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write the hospital's archive; see ``tasks.phantoms.writer``."""
    write_hospital(folder, hospital, seed, _CLASSES, DigitalXRayImageStorageForPresentation, draw_patient)


def draw_patient(hospital: PhantomHospital, pneumonia: bool, rng: np.random.Generator) -> list[PhantomImage]:
    """All images of one patient."""
    least, most = hospital.images_per_patient
    body, patches = _body(rng), _consolidations(pneumonia, rng)
    return [_exposed(body + patches, hospital, rng) for _ in range(rng.integers(least, most + 1))]


def _grid() -> tuple[Image, Image]:
    y, x = np.mgrid[-1 : 1 : _SIZE * 1j, -1 : 1 : _SIZE * 1j]  # type: ignore[misc]
    return y, x


def _soft(inside: Image, width: float = 0.05) -> Image:
    return np.asarray(1 / (1 + np.exp(np.clip(-inside / width, -60, 60))))


def _lungs(rng: np.random.Generator) -> Image:
    y, x = _grid()
    left = _soft(1 - ((x + 0.42) / rng.uniform(0.28, 0.34)) ** 2 - ((y + 0.05) / rng.uniform(0.6, 0.7)) ** 2, 0.1)
    right = _soft(1 - ((x - 0.42) / rng.uniform(0.26, 0.33)) ** 2 - ((y + 0.05) / rng.uniform(0.6, 0.7)) ** 2, 0.1)
    return np.asarray(np.maximum(left, right))


def _body(rng: np.random.Generator) -> Image:
    """Attenuation (dimensionless optical depth) of a healthy chest."""
    y, x = _grid()
    trunk = 1.6 * _soft(1 - (x / 0.95) ** 4 - (y / 1.3) ** 4, 0.1)
    heart = 0.7 * _soft(1 - ((x - 0.12) / rng.uniform(0.26, 0.34)) ** 2 - ((y - 0.25) / 0.4) ** 2, 0.15)
    spine = 0.5 * np.exp(-((x / 0.1) ** 2))
    diaphragm = 0.9 * _soft(y - rng.uniform(0.5, 0.6) - 0.15 * x**2, 0.05)
    ribs = 0.18 * np.exp(-(np.sin((y * 6 + 0.9 * np.abs(x) + rng.uniform(0, 1)) * np.pi / 2) ** 2) / 0.08)
    return np.asarray(trunk - 1.0 * _lungs(rng) + heart + spine + diaphragm + ribs * _soft(0.85 - np.abs(x)))


def _consolidations(pneumonia: bool, rng: np.random.Generator) -> Image:
    """Fluffy opacities inside a lung. Healthy lungs have a little of the same, from vessels and poor inspiration."""
    y, x = _grid()
    strength = max(0.0, rng.normal(0.35 if pneumonia else 0.05, 0.16))
    opacity = np.zeros_like(x)
    for _ in range(rng.integers(1, 4)):
        side, height = rng.choice([-0.42, 0.42]), rng.uniform(-0.3, 0.4)
        blob = np.exp(-((x - side - rng.normal(0, 0.1)) ** 2 + (y - height) ** 2) / (2 * rng.uniform(0.1, 0.25) ** 2))
        opacity += blob
    cloud = gaussian_filter(rng.normal(0, 1, x.shape), 3)
    return np.asarray(strength * opacity * (1 + 0.4 * cloud / cloud.std()))


def _exposed(depth: Image, hospital: PhantomHospital, rng: np.random.Generator) -> PhantomImage:
    """Photons counted behind the body (Beer-Lambert, Poisson), shown as negative logarithm, 12 bits."""
    shift = rng.integers(-3, 4, 2)
    photons = rng.poisson(_PHOTONS * hospital.gain * np.exp(-np.roll(depth, shift, (0, 1)))) + 1.0
    shown = np.clip(np.log(_PHOTONS * hospital.gain / photons) / 4.0 + 0.1 * (hospital.gain - 1), 0, 1)
    inverted = len(hospital.name) % 2 == 1  # half of the hospitals store bone as black
    stored = np.asarray((1 - shown if inverted else shown) * _FULL_SCALE, dtype=np.uint16)
    attributes = {
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "AP",
        "PresentationIntentType": "FOR PRESENTATION",
        "PresentationLUTShape": "INVERSE" if inverted else "IDENTITY",
        "PhotometricInterpretation": "MONOCHROME1" if inverted else "MONOCHROME2",
        "BitsStored": 12,
        "HighBit": 11,
        "ImagerPixelSpacing": [3.0, 3.0],
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
    }
    return PhantomImage(stored, attributes)
