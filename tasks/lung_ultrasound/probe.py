"""A phantom hospital's lung scanner: its probe, its frame, and what it writes into the DICOM header."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import cos, radians, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from tasks.phantoms.dicom_writer import pixel_attributes
from tasks.phantoms.fields import Field
from tasks.phantoms.hospital import random_numbers
from tasks.phantoms.ultrasound import SOUND_MM_PER_US, region_item
from tasks.task import Box, PhantomHospital

CONVEX_BELOW_MHZ = 6.0
"""Transducers of lower frequencies are convex, others linear."""
_STILL, _CLIP = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"  # Ultrasound (Multi-frame) Image Storage
_FRAME_TIME = 0x00181063


@dataclass(frozen=True)
class Probe:
    """A scanner as one hospital has set it up for lungs.

    Attributes:
        radius_mm: of a convex probe's surface; 0 is a linear probe.
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
        return _size_mm(self.radius_mm, self.opening, self.width_mm, self.depth_mm)

    @property
    def pulse_px(self) -> tuple[float, float]:
        """Standard deviations of the point-spread function, in samples and beams: a pulse of about two wavelengths, and
        the width of the beam in the middle of the image."""
        wavelength = SOUND_MM_PER_US / self.frequency_mhz
        beam_mm = self.width_at(self.depth_mm / 2) / self.beams
        return max(0.5, 0.8 * wavelength * self.samples / self.depth_mm), max(0.6, 1.5 * wavelength / beam_mm)


def probe_of(hospital: PhantomHospital) -> Probe:
    """The scanner that stands in this hospital; the make follows from the hospital's name, the probe from its
    frequency."""
    rng = random_numbers("lung probe", hospital.name)
    convex = hospital.frequency_mhz < CONVEX_BELOW_MHZ
    depth = float(np.clip(430 / hospital.frequency_mhz, 60, 130)) if convex else float(rng.uniform(50, 62))
    radius, opening = (float(rng.uniform(48, 62)), radians(float(rng.uniform(54, 66)))) if convex else (0.0, 0.0)
    height_mm, width_mm = _size_mm(radius, opening, 40.0, depth)
    rows, gamma = int(rng.integers(150, 176)), float(rng.uniform(0.8, 1.25))
    columns = round(rows * width_mm / height_mm)
    left, top = int(rng.integers(16, 40)), int(rng.integers(18, 30))
    return Probe(
        radius_mm=radius,
        opening=opening,
        width_mm=40.0,
        depth_mm=depth,
        samples=192,
        beams=112 if convex else 128,
        frequency_mhz=hospital.frequency_mhz,
        gain=hospital.gain,
        gamma=gamma,
        frame=(rows + top + 24, columns + left + 48),
        region=(left, top, left + columns, top + rows),
    )


def _size_mm(radius: float, opening: float, width: float, depth: float) -> tuple[float, float]:
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


def attributes_of(probe: Probe, frames: NDArray[np.uint8], side: str, frame_ms: float) -> dict[str, Any]:
    """What PS3.3 A.6 and A.7 ask for beyond patient, study and equipment: US Image (C.8.5.6), US Regions (C.8.5.5), and
    for a clip Multi-frame (C.7.6.6) and Cine (C.7.6.5).

    Args:
        frames: uint8 (frames, rows, columns); a single one becomes a still.
        side: R or L.
        frame_ms: time from one frame to the next.
    """
    left, top, right, bottom = probe.region
    height_mm, width_mm = probe.size_mm
    delta_cm = width_mm / 10 / (right - left), height_mm / 10 / (bottom - top)
    still = len(frames) == 1
    clip = {"FrameIncrementPointer": _FRAME_TIME, "FrameTime": frame_ms, "CineRate": round(1000 / frame_ms)}
    return pixel_attributes(frames[0] if still else frames, 8, "MONOCHROME2") | ({} if still else clip) | {
        "SOPClassUID": _STILL if still else _CLIP,
        "Modality": "US",
        "ImageType": ["ORIGINAL", "PRIMARY", "CHEST", "0001"],  # 0001: 2D imaging (PS3.3 C.8.5.6.1.1)
        "BodyPartExamined": "LUNG",
        "Laterality": side,
        "PatientOrientation": "",
        "UltrasoundColorDataPresent": 0,
        "SequenceOfUltrasoundRegions": [region_item(probe.region, delta_cm, probe.frequency_mhz)],
    }  # fmt: skip
