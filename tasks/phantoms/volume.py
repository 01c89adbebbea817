"""What phantoms of CT and MR share: slices with a thickness, where they lie in the patient, and their outlines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.dicom_writer import pixel_attributes
from tasks.phantoms.fields import Field
from tasks.phantoms.hospital import Attributes, Dependent
from tasks.phantoms.segmentation import OutlinedImage, segmentation_of
from tasks.task import Structure

Affine = NDArray[np.float64]
"""Takes (slice, row, column, 1) to millimetres in the patient, shape (4, 4)."""


def averaged(fine: Field, planes: int, thick: int) -> Field:
    """Partial volume: slices of what lies in them.

    Args:
        fine: (planes of the fine grid, rows, columns).
        planes: of the fine grid from one slice to the next.
        thick: of the fine grid within a slice; fewer than ``planes`` leave a gap, more overlap with the next slice.

    Returns:
        float32 (slices, rows, columns), slice n over fine planes n * planes to n * planes + thick.
    """
    starts = range(0, len(fine) - max(planes, thick) + 1, planes)
    return np.stack([fine[start : start + thick].mean(axis=0) for start in starts]).astype(np.float32)


def slices(
    stored: NDArray[np.uint16], affine: NDArray[np.float64], thickness_mm: float, series: int
) -> Iterator[Attributes]:
    """Image Plane and Image Pixel modules (PS3.3 C.7.6.2, C.7.6.3) of a series with one file a slice, in order.

    Args:
        stored: uint16 (slices, rows, columns) of at most 12 bits.
        affine: float64 (4, 4), from (slice, row, column, 1) to the patient in millimetres.
        thickness_mm: SliceThickness.
        series: SeriesNumber.
    """
    along_slices, along_column, along_row = affine[:3, :3].T
    rows_mm, columns_mm = np.linalg.norm(along_column), np.linalg.norm(along_row)
    for number, pixels in enumerate(stored):
        position = affine[:3, 3] + number * along_slices
        yield pixel_attributes(pixels, 12, "MONOCHROME2") | {
            "SeriesNumber": series,
            "ImagePositionPatient": _decimals(position, 3),
            "ImageOrientationPatient": _decimals([*along_row / columns_mm, *along_column / rows_mm], 6),
            "PixelSpacing": _decimals([rows_mm, columns_mm], 4),
            "SliceThickness": _decimals([thickness_mm], 3)[0],
            "SpacingBetweenSlices": _decimals([np.linalg.norm(along_slices)], 3)[0],
            "PatientPosition": "HFS",
        }


def outlines(masks: NDArray[np.bool_], structures: Sequence[Structure], series: int) -> Dependent:
    """The segmentation of a series that was drawn before it.

    Args:
        masks: bool (structures, slices, rows, columns), slices in the order of the files.
        structures: what they are.
        series: SeriesNumber.
    """

    def refer(files: Sequence[Attributes]) -> dict[str, Any]:
        images = [file for file in files if file.get("SeriesNumber") == series]
        outlined = [OutlinedImage(image, masks[:, place]) for place, image in enumerate(images)]
        return segmentation_of(outlined, structures, omit_empty=True)

    return refer


def _decimals(values: Any, digits: int) -> list[float]:
    """A decimal string has at most 16 characters (PS3.5 table 6.2-1)."""
    return [round(float(value), digits) + 0.0 for value in values]  # + 0.0 makes -0.0 a 0
