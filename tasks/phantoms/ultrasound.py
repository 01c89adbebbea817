"""What phantom ultrasound scanners share: speckle, the display's grey scale, burned-in marks, regions of a header.

Tested in ``tests/tasks/phantoms/breast_ultrasound/test_phantom.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from tasks.phantoms.dicom_writer import item
from tasks.phantoms.fields import Field
from tasks.phantoms.hospital import random_numbers
from tasks.task import Box

SOUND_MM_PER_US = 1.54
_DYNAMIC_RANGE_DB = 60.0


def scatterers(rng: np.random.Generator, shape: tuple[int, int], looks: int) -> Field:
    """Random scatterers of unit variance, float32 (2, looks, rows, columns): real and imaginary part of each look."""
    return rng.standard_normal((2, looks, *shape), dtype=np.float32)


def envelope(
    rng: np.random.Generator, waves: Field, echo: Field, pulse_px: tuple[float, float], noise_db: Field
) -> Field:
    """Magnitude of fully developed speckle with the given mean echo, plus the receiver's noise.

    Complex Gaussian scatterers seen through a Gaussian pulse (Goodman 1975; Wagner 1983): as many waves as interfere in
    a resolution cell, the magnitude is Rayleigh distributed. Looks are averaged, as scanners compound angles. The
    receiver's noise is amplified as depth is compensated for, which is why high frequencies see little that lies deep.

    Args:
        rng: for the receiver's noise.
        waves: of ``scatterers``.
        echo: float32 (rows, columns) in decibels.
        pulse_px: standard deviations of the point-spread function along rows and columns, in pixels.
        noise_db: float32 (rows,), the noise's level in decibels.

    Returns:
        float32 (rows, columns).
    """
    amplitude = np.power(np.float32(10), echo / 20)
    axial, lateral = pulse_px
    seen = gaussian_filter1d(
        gaussian_filter1d(waves * amplitude, axial, axis=2, truncate=3), lateral, axis=3, truncate=3
    )
    seen *= np.float32(2 * np.sqrt(np.pi * axial * lateral))  # what blurring takes from the variance
    noise = rng.standard_normal(seen.shape, dtype=np.float32) * np.power(np.float32(10), noise_db / 20)[:, None]
    return np.asarray(np.hypot(*(seen + noise)).mean(axis=0), dtype=np.float32)


def grey_of(magnitude: Field, gain: float, gamma: float) -> Field:
    """Logarithmic compression over 60 dB, the operator's gain (1 is neutral) and the vendor's grey map; in [0, 1]."""
    decibel = 20 * np.log10(magnitude + np.float32(1e-6)) + np.float32(40 * np.log10(gain))
    grey = ((decibel + np.float32(_DYNAMIC_RANGE_DB - 18)) / np.float32(_DYNAMIC_RANGE_DB)).clip(0, 1)
    return np.asarray(grey ** np.float32(gamma), dtype=np.float32)


def tgc_error(z_mm: Field, rng: np.random.Generator) -> Field:
    """What time gain compensation leaves uncorrected, in decibels by depth: nobody sets eight sliders exactly."""
    sliders = rng.normal(0, 2.0, 8) + rng.normal(0, 2.0) * np.linspace(-1, 1, 8)
    return np.interp(z_mm, np.linspace(0, z_mm[-1], 8), sliders).astype(np.float32)


def framed(
    image: NDArray[np.uint8], frame: tuple[int, int], region: Box, depth_mm: float, text: str
) -> NDArray[np.uint8]:
    """An image in its black frame, with what scanners burn in: texts, a grey bar, ticks at every centimetre.

    Args:
        image: uint8 of the region's size.
        frame: rows and columns of the result.
        region: where the image goes; leave 18 pixels above, 24 below, 40 to its right.
        depth_mm: what the region's rows span.
        text: the line below the image.
    """
    whole = np.zeros(frame, dtype=np.uint8)
    left, top, right, bottom = region
    whole[top:bottom, left:right] = image
    whole[top : top + 100, right + 30 : right + 36] = np.linspace(255, 0, 100)[:, None]
    for centimetre in range(int(depth_mm / 10) + 1):
        whole[top + round(centimetre * 10 / depth_mm * (bottom - top - 1)), right + 4 : right + 9] = 220
    _write(whole, 5, left, "PHANTOM SONICS")
    _write(whole, bottom + 6, left, text)
    return whole


def _write(frame: NDArray[np.uint8], row: int, column: int, text: str) -> None:
    """Marks that look like a line of text: five by three dots a letter, the same dots for the same letter."""
    for place, letter in enumerate(text):
        dots = random_numbers("letter", letter).random((5, 3)) < (0.65 if letter.strip() else 0)
        at = column + 5 * place
        target = frame[row : row + 5, at : at + 3]
        target[dots[: target.shape[0], : target.shape[1]]] = 230


def region_item(box: Box, delta_cm: tuple[float, float], frequency_mhz: float) -> Any:
    """An item of SequenceOfUltrasoundRegions (PS3.3 C.8.5.5) for a B-mode image.

    Args:
        box: of the region.
        delta_cm: size of a pixel along x and y.
        frequency_mhz: of the transducer.
    """
    left, top, right, bottom = box
    return item(
        {
            "RegionSpatialFormat": 1,  # 2D
            "RegionDataType": 1,  # tissue
            "RegionFlags": 0,
            "RegionLocationMinX0": left,
            "RegionLocationMinY0": top,
            "RegionLocationMaxX1": right - 1,  # the last pixel inside
            "RegionLocationMaxY1": bottom - 1,
            "PhysicalUnitsXDirection": 3,  # cm
            "PhysicalUnitsYDirection": 3,
            "PhysicalDeltaX": delta_cm[0],
            "PhysicalDeltaY": delta_cm[1],
            "TransducerFrequency": round(frequency_mhz * 1000),  # kHz
        }
    )
