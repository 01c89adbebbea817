"""A phantom hospital's ultrasound scanner: its frame, its image, and what it writes into the DICOM header.

Tested in ``tests/tasks/phantoms/breast_ultrasound/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.dicom_writer import pixel_attributes
from tasks.phantoms.hospital import random_numbers
from tasks.phantoms.ultrasound import SOUND_MM_PER_US, framed, region_item
from tasks.task import Box, PhantomHospital

_ULTRASOUND_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.6.1"


@dataclass(frozen=True)
class BreastScanner:
    """A scanner as one hospital has set it up.

    Attributes:
        frequency_mhz: centre frequency of the transducer.
        gain: overall brightness, 1 is neutral.
        gamma: the vendor's grey map; below 1 is brighter in the mid-tones.
        frame: rows and columns of the whole frame.
        region: where the image is in it.
        depth_mm: what the image shows from the skin down; less at higher frequencies, which tissue absorbs more.
        width_mm: what it shows from side to side.
    """

    frequency_mhz: float
    gain: float
    gamma: float
    frame: tuple[int, int]
    region: Box
    depth_mm: float
    width_mm: float

    @property
    def rows(self) -> int:
        """Height of the image in pixels."""
        return self.region[3] - self.region[1]

    @property
    def columns(self) -> int:
        """Width of the image in pixels."""
        return self.region[2] - self.region[0]

    @property
    def pulse_px(self) -> tuple[float, float]:
        """Standard deviations of the point-spread function along rows and columns, in pixels.

        Axially a pulse of about two wavelengths; laterally the width of the beam, wider than at its focus.
        """
        wavelength = SOUND_MM_PER_US / self.frequency_mhz
        axial, lateral = 0.8 * wavelength, 1.5 * wavelength
        return max(0.5, axial * self.rows / self.depth_mm), max(0.6, lateral * self.columns / self.width_mm)


def scanner_of(hospital: PhantomHospital) -> BreastScanner:
    """The scanner that stands in this hospital; the manufacturer follows from the hospital's name."""
    rng = random_numbers("scanner", hospital.name)
    rows, columns = int(rng.integers(200, 240)), int(rng.integers(204, 256))
    left, top = int(rng.integers(16, 40)), int(rng.integers(18, 30))
    depth = float(np.clip(380 / hospital.frequency_mhz, 20, 60))
    return BreastScanner(
        frequency_mhz=hospital.frequency_mhz,
        gain=hospital.gain,
        gamma=float(rng.uniform(0.8, 1.25)),
        frame=(rows + top + 24, columns + left + 48),
        region=(left, top, left + columns, top + rows),
        depth_mm=depth,
        width_mm=38.0,
    )


def frame_of(scanner: BreastScanner, image: NDArray[np.uint8], side: str) -> NDArray[np.uint8]:
    """The image in its black frame, with what scanners burn in: texts, a grey bar, ticks at every centimetre."""
    text = f"{scanner.frequency_mhz:.0f} MHZ {side} BREAST"
    return framed(image, scanner.frame, scanner.region, scanner.depth_mm, text)


def attributes_of(scanner: BreastScanner, frame: NDArray[np.uint8], side: str) -> dict[str, Any]:
    """What PS3.3 A.6 requires beyond patient, study and equipment: US Image (C.8.5.6), US Regions (C.8.5.5)."""
    return pixel_attributes(frame, 8, "MONOCHROME2") | {
        "SOPClassUID": _ULTRASOUND_IMAGE_STORAGE,
        "Modality": "US",
        "ImageType": ["ORIGINAL", "PRIMARY", "BREAST", "0001"],  # 0001: 2D imaging (PS3.3 C.8.5.6.1.1)
        "BodyPartExamined": "BREAST",
        "Laterality": side,
        "PatientOrientation": "",
        "PatientSex": "F",
        "UltrasoundColorDataPresent": 0,
        "SequenceOfUltrasoundRegions": [_region(scanner)],
    }


def _region(scanner: BreastScanner) -> Any:
    delta_cm = scanner.width_mm / 10 / scanner.columns, scanner.depth_mm / 10 / scanner.rows
    return region_item(scanner.region, delta_cm, scanner.frequency_mhz)
