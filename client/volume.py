"""A stack of slices as one volume of measured values in space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.dicom import FrameReader, Measured
from client.stacks import Finding, NoVolume, Stack, Unstackable


@dataclass(frozen=True)
class Volume:
    """Measured values in space.

    Attributes:
        values: float32 of shape (slices, rows, columns), the output of the Modality LUT.
        affine: float64 (4, 4); takes (slice, row, column, 1) to the voxel's centre in the patient, in mm. If the gantry
            was tilted its axes are not at right angles: resample, or refuse by the finding UPRIGHT.
        spacing_mm: between slices along their normal, between rows, between columns.
        unit: of the values, "HU" for instance; "" when the file does not say.
        findings: the stack's.
    """

    values: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    unit: str
    findings: tuple[Finding, ...]


def read_volume(stack: Stack, read: Callable[[Path, int], Measured] | None = None) -> Volume:
    """The values of a stack's slices; ``read`` decodes one (``Decoder.read_values``, or in this process by default).

    Raises:
        NoVolume: the stack was refused, or its slices measure in different units.
        UnreadableDicom: a slice cannot be read.
    """
    if stack.refusal is not None:
        raise NoVolume(stack.refusal.reason, stack.refusal.detail)
    reader = FrameReader()
    try:
        return _filled(stack, reader.measured if read is None else read)
    finally:
        reader.close()


def _filled(stack: Stack, read: Callable[[Path, int], Measured]) -> Volume:
    values = np.empty((len(stack.slices), *stack.slices[0].matrix), dtype=np.float32)
    units = set()
    for number, one in enumerate(stack.slices):
        found = read(one.path, one.frame)
        values[number] = found.values
        units.add(found.unit)
    if len(units) > 1:
        raise NoVolume(Unstackable.MIXED_UNITS, " and ".join(sorted(unit or "none" for unit in units)))
    between = float(np.median(np.diff(stack.offsets_mm)))
    affine, rows_mm, columns_mm = _affine(stack)
    return Volume(values, affine, (between, rows_mm, columns_mm), units.pop(), stack.findings)


def _affine(stack: Stack) -> tuple[NDArray[np.float64], float, float]:
    """From indices to the patient (PS3.3 equation C.7.6.2.1-1), with the slices' shift as the third direction."""
    planes = [one.plane for one in stack.slices if one.plane is not None]
    first, last = planes[0], planes[-1]
    rows_mm, columns_mm = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = np.subtract(last.position, first.position) / (len(planes) - 1)
    affine[:3, 1] = np.multiply(first.along_column, rows_mm)
    affine[:3, 2] = np.multiply(first.along_row, columns_mm)
    affine[:3, 3] = first.position
    return affine, rows_mm, columns_mm
