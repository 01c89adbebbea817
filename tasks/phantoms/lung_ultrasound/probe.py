"""A phantom hospital's lung scanner: its probe, its frame, and what it writes into the DICOM header.

Tested in ``tests/tasks/phantoms/lung_ultrasound/test_phantom.py``.
"""

from __future__ import annotations

from math import radians
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.dicom_writer import pixel_attributes
from tasks.phantoms.hospital import random_numbers
from tasks.phantoms.probe import Probe, size_mm
from tasks.phantoms.ultrasound import region_item
from tasks.task import PhantomHospital

CONVEX_BELOW_MHZ = 6.0
"""Transducers of lower frequencies are convex, others linear."""
_STILL, _CLIP = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"  # Ultrasound (Multi-frame) Image Storage
_FRAME_TIME = 0x00181063


def probe_of(hospital: PhantomHospital) -> Probe:
    """The scanner that stands in this hospital; the manufacturer follows from the hospital's name, the probe from its
    frequency."""
    rng = random_numbers("lung probe", hospital.name)
    convex = hospital.frequency_mhz < CONVEX_BELOW_MHZ
    depth = float(np.clip(430 / hospital.frequency_mhz, 60, 130)) if convex else float(rng.uniform(50, 62))
    radius, opening = (float(rng.uniform(48, 62)), radians(float(rng.uniform(54, 66)))) if convex else (0.0, 0.0)
    height_mm, width_mm = size_mm(radius, opening, 40.0, depth)
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


def attributes_of(probe: Probe, frames: NDArray[np.uint8], side: str, frame_ms: float) -> dict[str, Any]:
    """What PS3.3 A.6 and A.7 require beyond patient, study and equipment: US Image (C.8.5.6), US Regions (C.8.5.5),
    and for a clip Multi-frame (C.7.6.6) and Cine (C.7.6.5).

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
