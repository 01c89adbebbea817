"""Phantom breast ultrasound: speckle, layers, and one lesion a patient, as invented scanners would show it.

Speckle is what coherent echoes from many small scatterers look like: complex Gaussian noise, blurred by the scanner's
point-spread function, of which the magnitude is shown on a logarithmic scale (Wagner et al., IEEE Trans. Sonics
Ultrasonics 30:156, 1983). Lesions follow the words of ACR BI-RADS: shape, orientation, margin, echo pattern, posterior
features. How typical a lesion is varies, and the two classes overlap.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UltrasoundImageStorage
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

from tasks.phantoms.writer import PhantomImage, write_hospital
from tasks.task import PhantomHospital

_DEPTH_MM, _WIDTH_MM = 40.0, 48.0
_PIXEL_MM = 0.16
_ROWS, _COLUMNS = int(_DEPTH_MM / _PIXEL_MM), int(_WIDTH_MM / _PIXEL_MM)
_DYNAMIC_RANGE_DB = 60.0
_CLASSES = ("benign", "malignant")

Image = NDArray[np.float64]


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write the hospital's archive; see ``tasks.phantoms.writer``."""
    write_hospital(folder, hospital, seed, _CLASSES, UltrasoundImageStorage, draw_patient)


@dataclass(frozen=True)
class Lesion:
    """One lesion. Lengths in mm, echo levels in dB.

    Attributes:
        depth, across: where its centre is.
        radius: of the circle with the same area.
        aspect: width over height; below 1 it is taller than wide.
        irregular: how far the outline departs from an ellipse, as a fraction of the radius.
        phases: where the outline's lobes point.
        margin: width of the transition to the surrounding tissue.
        echo: against the surrounding tissue.
        behind: change of the echoes behind it: enhancement above 0, shadow below.
    """

    depth: float
    across: float
    radius: float
    aspect: float
    irregular: float
    phases: NDArray[np.float64]
    margin: float
    echo: float
    behind: float


def draw_patient(hospital: PhantomHospital, malignant: bool, rng: np.random.Generator) -> list[PhantomImage]:
    """All images of one patient: the same lesion, each time with the probe held a little differently."""
    lesion = _lesion(malignant, rng)
    least, most = hospital.images_per_patient
    return [_image(hospital, _another_view(lesion, rng), rng) for _ in range(rng.integers(least, most + 1))]


def _lesion(malignant: bool, rng: np.random.Generator) -> Lesion:
    # How malignant it looks: 0 is a typical benign lesion, 1 a typical malignant one. Every sign follows it loosely.
    def sign(benign: float, suspicious: float, spread: float) -> float:
        return float(benign + (suspicious - benign) * typical + rng.normal(0, spread))

    typical = float(malignant) + rng.normal(0, 0.5)
    return Lesion(
        depth=rng.uniform(14, 22),
        across=rng.uniform(-6, 6),
        radius=max(3.0, sign(5.5, 7.0, 1.2)),
        aspect=max(0.6, sign(1.6, 1.0, 0.2)),
        irregular=max(0.02, sign(0.04, 0.22, 0.04)),
        phases=rng.uniform(0, 2 * np.pi, 9),
        margin=max(0.1, sign(0.2, 0.7, 0.15)),
        echo=min(-4.0, sign(-9.0, -14.0, 2.5)),
        behind=float(np.clip(sign(2.0, -7.0, 2.5), -14, 5)),
    )


def _another_view(lesion: Lesion, rng: np.random.Generator) -> Lesion:
    return Lesion(
        depth=lesion.depth + rng.normal(0, 1.0),
        across=lesion.across + rng.normal(0, 2.0),
        radius=lesion.radius * rng.uniform(0.85, 1.1),
        aspect=lesion.aspect * rng.uniform(0.9, 1.1),
        irregular=lesion.irregular,
        phases=lesion.phases + rng.normal(0, 0.4, 9),
        margin=lesion.margin,
        echo=lesion.echo + rng.normal(0, 1.0),
        behind=lesion.behind + rng.normal(0, 1.5),
    )


def _image(hospital: PhantomHospital, lesion: Lesion, rng: np.random.Generator) -> PhantomImage:
    echoes = _tissue_db(rng) + _lesion_db(lesion, rng) + _attenuation_db(hospital.frequency_mhz, rng)
    grey = _displayed(_speckled(echoes, hospital.frequency_mhz, rng), hospital, rng)
    return _framed(grey, hospital, rng)


def _grid() -> tuple[Image, Image]:
    depth = (np.arange(_ROWS) + 0.5)[:, None] * _PIXEL_MM
    across = (np.arange(_COLUMNS) + 0.5)[None, :] * _PIXEL_MM - _WIDTH_MM / 2
    return depth, across


def _tissue_db(rng: np.random.Generator) -> Image:
    """Skin, fat, glandular tissue and muscle, with wavy borders and patches of their own."""
    depth, _ = _grid()
    border = gaussian_filter1d(rng.normal(0, 1, (3, _COLUMNS)), 40, axis=1, mode="nearest")
    border = border / border.std(axis=1, keepdims=True) * np.array([[0.1], [1.0], [1.2]])
    skin, fat, gland = (base + wave for base, wave in zip((1.8, rng.uniform(6, 10), rng.uniform(27, 32)), border, strict=True))
    levels = np.where(depth < skin, 2.0, np.where(depth < fat, -13.0, np.where(depth < gland, -5.0, -11.0)))
    patches = gaussian_filter(rng.normal(0, 1, (_ROWS, _COLUMNS)), (6, 18))
    strands = gaussian_filter(rng.normal(0, 1, (_ROWS, _COLUMNS)), (1.5, 25))
    return gaussian_filter(levels, 1.5) + 2.0 * patches / patches.std() + 1.5 * strands / strands.std()


def _lesion_db(lesion: Lesion, rng: np.random.Generator) -> Image:
    depth, across = _grid()
    y, x = (depth - lesion.depth) * np.sqrt(lesion.aspect), (across - lesion.across) / np.sqrt(lesion.aspect)
    angle, distance = np.arctan2(y, x), np.hypot(y, x)
    lobes = sum(np.cos(k * angle + phase) / np.sqrt(k) for k, phase in enumerate(lesion.phases, start=2))
    outline = lesion.radius * (1 + lesion.irregular * np.asarray(lobes) / 1.5)
    inside = 1 / (1 + np.exp(np.clip((distance - outline) / lesion.margin * 4, -60, 60)))
    texture = gaussian_filter(rng.normal(0, 1, inside.shape), 5)
    beam = np.exp(-0.5 * ((across - lesion.across) / (0.8 * lesion.radius * np.sqrt(lesion.aspect))) ** 2)
    behind = beam / (1 + np.exp(-(depth - lesion.depth - lesion.radius / np.sqrt(lesion.aspect)) / 1.0))
    return inside * (lesion.echo + 2 * lesion.irregular * 10 * texture / texture.std()) + behind * lesion.behind


def _attenuation_db(frequency_mhz: float, rng: np.random.Generator) -> Image:
    """What is left of 0.7 dB/cm/MHz, both ways, after a time-gain compensation that nobody set perfectly."""
    depth, across = _grid()
    wrong = rng.normal(0.12, 0.06)
    return -2 * 0.7 * wrong * frequency_mhz * depth / 10 - 0.002 * rng.uniform(0.5, 2) * across**2


def _speckled(echoes_db: Image, frequency_mhz: float, rng: np.random.Generator) -> Image:
    """Magnitude in dB of the echoes of random scatterers, through a point-spread function of a few wavelengths."""
    wavelength_mm = 1.54 / frequency_mhz
    axial, lateral = 0.7 * wavelength_mm / _PIXEL_MM, 2.2 * wavelength_mm / _PIXEL_MM
    amplitude = 10 ** (echoes_db / 20)
    parts = [
        gaussian_filter1d(gaussian_filter1d(rng.normal(size=echoes_db.shape) * amplitude, axial, axis=0), lateral, axis=1)
        for _ in range(2)
    ]
    magnitude = np.hypot(*parts) * np.sqrt(4 * np.pi * axial * lateral)
    return 20 * np.log10(magnitude + 1e-4)


def _displayed(decibels: Image, hospital: PhantomHospital, rng: np.random.Generator) -> Image:
    """Grey values 0 to 1: the scanner's gain and its own grey map."""
    gain_db = 20 * np.log10(hospital.gain) * 2 + rng.normal(0, 1.0)
    grey = np.clip((decibels + gain_db + 42) / _DYNAMIC_RANGE_DB, 0, 1)
    return grey ** (0.9 + 0.3 * _vendor(hospital))


def _framed(grey: Image, hospital: PhantomHospital, rng: np.random.Generator) -> PhantomImage:
    """The screen as it is stored: the image, and around it marks that are none of a network's business."""
    scale = 0.9 + 0.3 * _vendor(hospital)
    rows, columns = int(_ROWS * scale), int(_COLUMNS * scale)
    coordinates = np.meshgrid(np.linspace(0, _ROWS - 1, rows), np.linspace(0, _COLUMNS - 1, columns), indexing="ij")
    image = np.asarray(map_coordinates(grey, coordinates, order=1) * 255, dtype=np.uint8)
    top, left = 40, 30 + int(40 * _vendor(hospital))
    screen = np.zeros((rows + 70, columns + left + 60), dtype=np.uint8)
    screen[8:28, 10 : 10 + columns // 2] = 200 * (rng.random((20, columns // 2)) < 0.35)  # stands for burned-in text
    screen[top : top + rows, -30:-18] = np.linspace(255, 0, rows, dtype=np.uint8)[:, None]  # the grey bar
    screen[top : top + rows, left : left + columns] = image
    region = _region(left, top, columns, rows, _PIXEL_MM / scale / 10)
    attributes = {
        "Modality": "US",
        "ManufacturerModelName": f"Sono {1 + int(_vendor(hospital) * 3)}",
        "BodyPartExamined": "BREAST",
        "TransducerFrequency": int(hospital.frequency_mhz * 1e6),
        "SequenceOfUltrasoundRegions": Sequence([region]),
    }
    return PhantomImage(screen, attributes)


def _region(left: int, top: int, columns: int, rows: int, centimetres: float) -> Dataset:
    """US Region Calibration, PS3.3 C.8.5.5: 2D, tissue, centimetres a pixel."""
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = left, top
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = left + columns - 1, top + rows - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = centimetres
    return region


def _vendor(hospital: PhantomHospital) -> float:
    """A number from 0 to 1 that gives each hospital's scanner its own look."""
    return hashlib.sha256(hospital.name.encode()).digest()[0] / 255
