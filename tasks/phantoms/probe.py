"""A phantom ultrasound probe: what it sees, and how its beams become an image on the screen.

Tested in ``tests/tasks/phantoms/cardiac_ultrasound/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import cos, sin

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from tasks.phantoms.fields import Field
from tasks.phantoms.ultrasound import SOUND_MM_PER_US
from tasks.task import Box


@dataclass(frozen=True)
class Probe:
    """A scanner as one hospital has set it up.

    Attributes:
        radius_mm: of a convex probe's surface; 0 is a linear probe. A phased array is a convex one of a tiny radius.
        opening: angle that a convex probe sees, in radians.
        width_mm: of what a linear probe sees.
        depth_mm: from the skin down.
        samples, beams: of the image before it is put on the screen.
        frequency_mhz, gain, gamma: of the transducer, the operator and the vendor's grey map.
        frame: rows and columns of the whole frame.
        region: where the image is in it.
    """

    radius_mm: float
    opening: float
    width_mm: float
    depth_mm: float
    samples: int
    beams: int
    frequency_mhz: float
    gain: float
    gamma: float
    frame: tuple[int, int]
    region: Box

    def width_at(self, depth_mm: float) -> float:
        """Length in millimetres of what is seen at a depth."""
        return self.width_mm if not self.radius_mm else self.opening * (self.radius_mm + depth_mm)

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width of the region."""
        return size_mm(self.radius_mm, self.opening, self.width_mm, self.depth_mm)

    @property
    def pulse_px(self) -> tuple[float, float]:
        """Standard deviations of the point-spread function, in samples and beams: a pulse of about two wavelengths, and
        the width of the beam in the middle of the image."""
        wavelength = SOUND_MM_PER_US / self.frequency_mhz
        beam_mm = self.width_at(self.depth_mm / 2) / self.beams
        return max(0.5, 0.8 * wavelength * self.samples / self.depth_mm), max(0.6, 1.5 * wavelength / beam_mm)


def size_mm(radius: float, opening: float, width: float, depth: float) -> tuple[float, float]:
    """Height and width of what a probe sees; see ``Probe``."""
    if not radius:
        return depth, width
    return radius + depth - radius * cos(opening / 2), 2 * (radius + depth) * sin(opening / 2)


def on_screen(probe: Probe, grey: Field) -> NDArray[np.uint8]:
    """Scan conversion: samples along beams to the pixels of the region; black beside a convex probe's sector.

    Args:
        grey: float32 (samples, beams) in [0, 1].
    """
    places, seen = _places(probe)
    image = map_coordinates(grey, places, order=1, mode="nearest") * seen
    return np.asarray(np.rint(255 * image), dtype=np.uint8)


def pixel_places_mm(probe: Probe) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Where each pixel of the region lies: across from the middle and deep, and whether the probe sees it.

    Depths are measured from the middle of the probe's surface; of shapes (1, columns), (rows, 1), (rows, columns).
    """
    left, top, right, bottom = probe.region
    height_mm, width_mm = probe.size_mm
    z = (np.arange(bottom - top, dtype=np.float32) + np.float32(0.5))[:, None] * np.float32(height_mm / (bottom - top))
    x = ((np.arange(right - left, dtype=np.float32) + np.float32(0.5)) / (right - left) - 0.5)[None, :]
    above = probe.radius_mm * (1 - cos(probe.opening / 2)) if probe.radius_mm else 0.0
    return np.asarray(x * np.float32(width_mm)), z - np.float32(above), _places(probe)[1] > 0


def beam_places_mm(probe: Probe) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each sample of each beam lies: across and down, as for ``pixel_places_mm``; both (samples, beams)."""
    along = np.linspace(0, probe.depth_mm, probe.samples, dtype=np.float32)[:, None]
    side = np.linspace(-0.5, 0.5, probe.beams, dtype=np.float32)[None, :]
    if not probe.radius_mm:
        x, z = np.broadcast_arrays(side * np.float32(probe.width_mm), along)
        return x, z
    radius = np.float32(probe.radius_mm)
    angle = side * np.float32(probe.opening)
    return (along + radius) * np.sin(angle), (along + radius) * np.cos(angle) - radius


@lru_cache(maxsize=16)
def _places(probe: Probe) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sample and beam (2, rows, columns) of each pixel of the region, and 1 where the probe sees."""
    left, top, right, bottom = probe.region
    height_mm, width_mm = probe.size_mm
    z = (np.arange(bottom - top) + 0.5)[:, None] * height_mm / (bottom - top)
    x = ((np.arange(right - left) + 0.5) / (right - left) - 0.5)[None, :] * width_mm
    if probe.radius_mm:
        down = z + probe.radius_mm * cos(probe.opening / 2)
        depth, across = np.hypot(down, x) - probe.radius_mm, np.arctan2(x, down) / probe.opening
    else:
        depth, across = np.broadcast_arrays(z, x / probe.width_mm)
    seen = (depth >= 0) & (depth <= probe.depth_mm) & (np.abs(across) <= 0.5)
    places = np.stack([depth / probe.depth_mm * (probe.samples - 1), (across + 0.5) * (probe.beams - 1)])
    return places.astype(np.float32), seen.astype(np.float32)
