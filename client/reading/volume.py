"""A stack of slices as one volume of measured values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.reading.dicom import FrameReader, Measured
from client.reading.stacks import NoVolume, Stack, Unstackable
from tasks.task import Volume


def read_volume(stack: Stack, read: Callable[[Path, int], Measured] | None = None) -> Volume:
    """The values of a stack's slices; ``read`` decodes one (``Decoder.read_values``, or in this process by default).

    If the gantry was tilted the affine's axes are not at right angles (the finding UPRIGHT tells); what resamples by
    the affine puts that right.

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
    return Volume(values, affine_of(stack), units.pop())


def affine_of(stack: Stack) -> NDArray[np.float64]:
    """From indices to the patient (PS3.3 equation C.7.6.2.1-1), with the slices' shift as the third direction.

    Args:
        stack: of at least two slices, all of which have a plane.

    Returns:
        float64 (4, 4), takes (slice, row, column, 1) to millimetres.
    """
    planes = [one.plane for one in stack.slices if one.plane is not None]
    first, last = planes[0], planes[-1]
    rows_mm, columns_mm = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = np.subtract(last.position, first.position) / (len(planes) - 1)
    affine[:3, 1] = np.multiply(first.along_column, rows_mm)
    affine[:3, 2] = np.multiply(first.along_row, columns_mm)
    affine[:3, 3] = first.position
    return affine
