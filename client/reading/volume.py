"""A stack of slices as one volume of measured values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.reading.dicom import FrameReader, Measured
from client.reading.slices import Vector
from client.reading.spacing import EVEN, SAME_PLACE_MM
from client.reading.stack import NoVolume, Stack, Unstackable
from tasks.task import Volume

AIR_HU = -1000.0
"""By definition of the unit."""


def read_volume(stack: Stack, read: Callable[[Path, int], Measured] | None = None) -> Volume:
    """The values of a stack's slices; ``read`` decodes one (``Decoder.read_values``, or in this process by default).

    Padding (PixelPaddingValue to PixelPaddingRangeLimit, PS3.3 C.7.5.1.1.2) is no measurement: it becomes air in
    Hounsfield units, else the lowest value of the image, before anything averages it with its neighbours.

    If the gantry was tilted the affine's axes are not at right angles (``Note.TILTED_GANTRY``); what resamples by the
    affine puts that right.

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
    padded = np.zeros(values.shape, dtype=np.bool_)
    units = set()
    for number, one in enumerate(stack.slices):
        found = read(one.path, one.frame)
        values[number] = found.values
        if found.padded is not None:
            padded[number] = found.padded
        units.add(found.unit)
    if len(units) > 1:
        raise NoVolume(Unstackable.MIXED_UNITS, " and ".join(sorted(unit or "none" for unit in units)))
    unit = units.pop()
    if not padded.any():
        return Volume(values, affine_of(stack), unit)
    imaged = ~padded
    values[padded] = AIR_HU if unit == "HU" else values[imaged].min() if imaged.any() else 0
    return Volume(values, affine_of(stack), unit, imaged)


def affine_of(stack: Stack) -> NDArray[np.float64]:
    """From indices to the patient (PS3.3 equation C.7.6.2.1-1), with the slices' shift as the third direction.

    Args:
        stack: of at least two slices, all of which have a plane.

    Returns:
        float64 (4, 4), takes (slice, row, column, 1) to millimetres.
    """
    start, step = _line([one.plane.position for one in stack.slices if one.plane is not None])
    rows_mm, columns_mm = stack.plane.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = np.multiply(stack.plane.along_column, rows_mm)
    affine[:3, 2] = np.multiply(stack.plane.along_row, columns_mm)
    affine[:3, 3] = start
    return affine


def _line(positions: Sequence[Vector]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First position and step: from the first and the last slice, or, where positions were rounded to few decimals, of
    the line that comes nearest to all."""
    places = np.array(positions)
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    if np.ptp(steps) <= EVEN * steps.mean() + SAME_PLACE_MM:
        return places[0], (places[-1] - places[0]) / (len(places) - 1)
    fitted = np.polyfit(np.arange(len(places)), places, 1)
    return fitted[1], fitted[0]
