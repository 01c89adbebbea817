"""A phantom hospital's echocardiograph: its sector probe, its display, and what it writes into the DICOM header.

Tested in ``tests/tasks/phantoms/cardiac_ultrasound/test_phantom.py``.
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

_ULTRASOUND_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.6.1"
_ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.3.1"
_FRAME_MS, _FRAME_TIME = 160.0, 0x00181063
_RADIUS_MM = 3.0
_MIRRORED = 0.25  # the share of laboratories that show the left ventricle on the left


def probe_of(hospital: PhantomHospital) -> Probe:
    """The probe of this hospital; the manufacturer follows from its name. Echocardiography needs low frequencies: the
    given ones are mapped to between 1.7 and 4 MHz, in their order."""
    rng = random_numbers("cardiac probe", hospital.name)
    frequency = float(np.clip(1.2 + 0.18 * hospital.frequency_mhz, 1.7, 4.0))
    depth, opening = float(rng.uniform(145, 170)), radians(float(rng.uniform(72, 88)))
    height_mm, width_mm = size_mm(_RADIUS_MM, opening, 0.0, depth)
    rows, gamma = int(rng.integers(176, 208)), float(rng.uniform(0.8, 1.25))
    columns = round(rows * width_mm / height_mm)
    left, top = int(rng.integers(16, 40)), int(rng.integers(18, 30))
    return Probe(
        radius_mm=_RADIUS_MM,
        opening=opening,
        width_mm=0.0,
        depth_mm=depth,
        samples=224,
        beams=120,
        frequency_mhz=frequency,
        gain=hospital.gain,
        gamma=gamma,
        frame=(rows + top + 24, columns + left + 48),
        region=(left, top, left + columns, top + rows),
    )


def mirrored(hospital: PhantomHospital) -> bool:
    """Whether this laboratory shows the left ventricle on the left, as some do."""
    return bool(random_numbers("cardiac display", hospital.name).random() < _MIRRORED)


def attributes_of(probe: Probe, frame: NDArray[np.uint8], systole: bool) -> dict[str, Any]:
    """What PS3.3 A.6 requires beyond patient, study and equipment: US Image (C.8.5.6), US Regions (C.8.5.5).

    The view is not stated: a hospital that codes it in every file needs no model for it.
    """
    left, top, right, bottom = probe.region
    height_mm, width_mm = probe.size_mm
    delta_cm = width_mm / 10 / (right - left), height_mm / 10 / (bottom - top)
    return pixel_attributes(frame, 8, "MONOCHROME2") | {
        "SOPClassUID": _ULTRASOUND_IMAGE_STORAGE,
        "Modality": "US",
        "ImageType": ["ORIGINAL", "PRIMARY", "ADULT ECHO", "0001"],  # 0001: 2D imaging (PS3.3 C.8.5.6.1.1)
        "BodyPartExamined": "HEART",
        "PatientOrientation": "",
        "ImageComments": "END SYSTOLE" if systole else "END DIASTOLE",
        "UltrasoundColorDataPresent": 0,
        "SequenceOfUltrasoundRegions": [region_item(probe.region, delta_cm, probe.frequency_mhz)],
    }


def clip_attributes_of(probe: Probe, frames: NDArray[np.uint8]) -> dict[str, Any]:
    """Likewise of a clip, (frames, rows, columns), from the end of diastole to the end of systole: Ultrasound
    Multi-frame Image (PS3.3 A.7), Cine (C.7.6.5)."""
    still = attributes_of(probe, frames[0], systole=False) | pixel_attributes(frames, 8, "MONOCHROME2")
    return still | {
        "SOPClassUID": _ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE,
        "ImageComments": "END DIASTOLE TO END SYSTOLE",
        "FrameTime": _FRAME_MS,
        "FrameIncrementPointer": _FRAME_TIME,
    }
