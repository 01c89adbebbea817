"""A phantom hospital's X-ray rooms: how rays become grey values, and what is written into the DICOM header.

Tested in ``tests/tasks/phantoms/chest_xray/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tasks.phantoms.dicom_writer import item, pixel_attributes
from tasks.phantoms.fields import Field
from tasks.phantoms.hospital import random_numbers
from tasks.task import PhantomHospital

_DIGITAL_X_RAY_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
_COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
_BITS = 12
_PHOTONS = 30_000.0  # a pixel, in the open beam
_FIELD_MM = 390.0
_SKIN = 0.5
"""What attenuates less is no part of the patient; makers leave it out when they look for the exposure's range."""


@dataclass(frozen=True)
class Radiography:
    """How one hospital makes chest X-rays.

    Attributes:
        plates: storage plates that a reader scans (Computed Radiography) instead of a digital detector.
        rows, columns: of its images.
        photometric: MONOCHROME1 stores bone as low values.
        exposure: 1 is usual; less is noisier.
        contrast, middle: of the maker's tone curve.
        sharpening: how much the maker adds of the difference from a blurred image.
        bedside: share of patients who are X-rayed in bed, were they all equally ill.
    """

    plates: bool
    rows: int
    columns: int
    photometric: str
    exposure: float
    contrast: float
    middle: float
    sharpening: float
    bedside: float

    @property
    def pixel_mm(self) -> float:
        """Size of a pixel on the detector."""
        return _FIELD_MM / self.rows


def radiography_of(hospital: PhantomHospital) -> Radiography:
    """How this hospital makes X-rays; the manufacturer follows from its name, the exposure is its ``gain``."""
    rng = random_numbers("chest radiography", hospital.name)
    rows = int(rng.integers(168, 200))
    return Radiography(
        plates=bool(rng.random() < 0.4),
        rows=rows,
        columns=rows - int(rng.integers(0, 24)),
        photometric=f"MONOCHROME{rng.integers(1, 3)}",
        exposure=hospital.gain,
        contrast=float(rng.uniform(3.5, 6.0)),
        middle=float(rng.uniform(0.42, 0.56)),
        sharpening=float(rng.uniform(0.0, 0.9)),
        bedside=float(rng.uniform(0.1, 0.35)),
    )


def stored_values(room: Radiography, attenuation: Field, supine: bool, rng: np.random.Generator) -> NDArray[np.uint16]:
    """What the detector stores, 12 bits.

    Primary photons after Beer and Lambert, scattered ones spread wide (a bedside image is made without a grid and has
    more of them), counted by Poisson's law; then the logarithm, the exposure's range, sharpening and a tone curve, as
    makers process images for presentation.
    """
    primary = np.exp(-attenuation)
    share = 0.50 if supine else 0.28
    scattered = gaussian_filter(primary, 0.09 * room.rows, mode="nearest") * np.float32(share / (1 - share))
    photons = _PHOTONS * room.exposure * (0.6 if supine else 1.0)
    counted = np.maximum(1, rng.poisson(photons * (primary + scattered)))
    dense = gaussian_filter(-np.log(counted / photons).astype(np.float32), 0.5)
    low, high = np.percentile(dense[dense > _SKIN], (2, 98)) if (dense > _SKIN).any() else (0.0, 1.0)
    spread = (dense - low) / max(float(high - low), 1e-6)
    spread = spread + np.float32(room.sharpening) * (spread - gaussian_filter(spread, 0.04 * room.rows))
    steep = -np.float32(room.contrast) * (spread - np.float32(room.middle))
    grey = 1 / (1 + np.exp(steep.clip(max=80)))  # black long before, and float32 ends at 88
    grey = (grey - grey.min()) / np.float32(max(float(np.ptp(grey)), 1e-6))
    value = np.rint((grey if room.photometric == "MONOCHROME2" else 1 - grey) * (2**_BITS - 1))
    return np.asarray(value, dtype=np.uint16)


def attributes_of(room: Radiography, stored: NDArray[np.uint16], supine: bool) -> dict[str, Any]:
    """What PS3.3 A.2 (CR) or A.26 (DX) requires beyond patient, study and equipment."""
    common = pixel_attributes(stored, _BITS, room.photometric) | {
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "BodyPartExamined": "CHEST",
        "ViewPosition": "AP" if supine else "PA",
        "SeriesDescription": "CHEST AP SUPINE" if supine else "CHEST PA",
        "PatientOrientation": ["L", "F"],
        "ImagerPixelSpacing": [round(room.pixel_mm, 4)] * 2,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "WindowCenter": 2 ** (_BITS - 1),
        "WindowWidth": 2**_BITS,
    }
    return common | (_plate() if room.plates else _detector(room.photometric == "MONOCHROME1"))


def _plate() -> dict[str, Any]:
    """CR Series and CR Image (PS3.3 C.8.1)."""
    return {"SOPClassUID": _COMPUTED_RADIOGRAPHY, "Modality": "CR", "PlateType": "ST-V", "KVP": 120}


def _detector(inverse: bool) -> dict[str, Any]:
    """DX Series, Anatomy Imaged, Image, Detector, Positioning (PS3.3 C.8.11)."""
    chest = {"CodeValue": "51185008", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Chest"}
    return {
        "SOPClassUID": _DIGITAL_X_RAY_FOR_PRESENTATION,
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "ImageLaterality": "U",
        "AnatomicRegionSequence": [item(chest)],
        "PositionerType": "NONE",
        "DetectorType": "DIRECT",
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": 1 if inverse else -1,  # which end of the values is less radiation
        "PresentationLUTShape": "INVERSE" if inverse else "IDENTITY",
        "AcquisitionContextSequence": [],
    }
