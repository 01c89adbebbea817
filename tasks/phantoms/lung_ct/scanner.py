"""A phantom hospital's CT scanner: kernel, slices, dose, and what it writes into the DICOM header.

Tested in ``tests/tasks/phantoms/lung_ct/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from tasks.phantoms.fields import Field
from tasks.phantoms.hospital import random_numbers
from tasks.task import PhantomHospital

_CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
_LOWEST_HU = -1024
_MOST_STORED = 4095


@dataclass(frozen=True)
class CtScanner:
    """A scanner as one hospital has set it up.

    Attributes:
        kernel: ConvolutionKernel.
        blur_mm: standard deviation of the point-spread function within a slice; sharper kernels blur less.
        edge: how much of the difference to a blurred image a sharp kernel adds.
        pixel_mm: size of a pixel.
        planes: of the fine grid, half a millimetre to a millimetre apart, from slice to slice.
        plane_mm: distance of these planes.
        exposure: relative to a usual low-dose scan; noise falls with its square root.
        descending: whether InstanceNumber grows to the feet.
    """

    kernel: str
    blur_mm: float
    edge: float
    pixel_mm: float
    planes: int
    plane_mm: float
    exposure: float
    descending: bool

    @property
    def spacing_mm(self) -> float:
        """From slice to slice, which is also their thickness."""
        return self.planes * self.plane_mm


_KERNELS = (("SOFT", 0.75, 0.0), ("STANDARD", 0.6, 0.15), ("LUNG", 0.45, 0.6), ("BONE", 0.38, 1.0))


def scanner_of(hospital: PhantomHospital) -> CtScanner:
    """The scanner that stands in this hospital; manufacturer and protocol follow from the hospital's name.

    A CT is calibrated to water and air, so that no hospital's images are brighter than another's: ``gain`` is taken as
    the tube's output relative to a usual low-dose scan. ``frequency_mhz`` means nothing here.
    """
    rng = random_numbers("ct scanner", hospital.name)
    kernel, blur, edge = _KERNELS[int(rng.integers(len(_KERNELS)))]
    planes = int(rng.integers(2, 4))
    return CtScanner(
        kernel=kernel,
        blur_mm=blur,
        edge=edge,
        pixel_mm=float(np.round(rng.uniform(0.82, 1.0), 3)),
        planes=planes,
        plane_mm=float(rng.choice([0.5, 0.625, 0.75])),
        exposure=float(hospital.gain * np.exp(rng.normal(0, 0.35))),
        descending=bool(rng.random() < 0.5),
    )


def reconstructed(scanner: CtScanner, slices: Field, rng: np.random.Generator) -> Field:
    """What the scanner makes of slices of true density: the kernel's sharpness, and the noise of few photons.

    The counts of projections follow Poisson's law; after filtered back-projection that is noise whose variance falls
    with dose and slice thickness (Brooks and Di Chiro, Med Phys 3:237, 1976), and whose grain is the kernel's: white
    noise, through the kernel's blur, less its lowest frequencies, which the ramp filter does not pass.
    """
    pixels = scanner.blur_mm / scanner.pixel_mm
    sharp = gaussian_filter(slices, (0, pixels, pixels))
    if scanner.edge:
        sharp += np.float32(scanner.edge) * (sharp - gaussian_filter(sharp, (0, 1.2, 1.2)))
    grain = rng.standard_normal(slices.shape, dtype=np.float32)
    grain = gaussian_filter(grain, (0.3, pixels, pixels * 1.1))
    grain -= gaussian_filter(grain, (0, 3, 3))
    hounsfield = 24 * (0.6 / scanner.blur_mm) ** 1.5 / np.sqrt(scanner.exposure * scanner.spacing_mm / 1.5)
    return np.asarray(sharp + grain * np.float32(hounsfield / grain.std()), dtype=np.float32)


def stored(hounsfield: Field) -> Any:
    """uint16 of the same shape: Hounsfield units from -1024 on, 12 bits."""
    return np.rint(hounsfield - _LOWEST_HU).clip(0, _MOST_STORED).astype(np.uint16)


def attributes_of(scanner: CtScanner, sex: str) -> dict[str, Any]:
    """What PS3.3 A.3 requires beyond patient, study, equipment and plane: CT Image (C.8.2.1)."""
    return {
        "SOPClassUID": _CT_IMAGE_STORAGE,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SeriesDescription": f"THORAX {scanner.spacing_mm:.2f} {scanner.kernel}",
        "BodyPartExamined": "CHEST",
        "PatientSex": sex,
        "RescaleIntercept": _LOWEST_HU,
        "RescaleSlope": 1,
        "RescaleType": "HU",
        "KVP": 120,
        "AcquisitionNumber": 1,
        "ConvolutionKernel": scanner.kernel,
        "WindowCenter": -500,
        "WindowWidth": 1500,
    }
