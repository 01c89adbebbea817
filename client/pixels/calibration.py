"""The size of a pixel, and the image region in an ultrasound frame (PS3.3 10.7, C.8.5.5, C.7.6.16.2.1).

Tested in ``tests/client/reading/test_dicom.py``.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from pydicom import Dataset

from client.pixels.groups import group_item
from client.pixels.refusal import Reason, guarded
from tasks.task import Box

_SPATIAL_2D, _TISSUE = 1, 1  # RegionSpatialFormat and RegionDataType of a B-mode image (C.8.5.5.1.1)
_CM = 3  # PhysicalUnitsXDirection (C.8.5.5.1.15)


def regions(header: Dataset, rows: int, columns: int) -> tuple[Box, ...]:
    """B-mode regions inside the frame; the standard's Max is the last pixel inside, ours the first outside.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER.
    """
    return guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _regions(header, rows, columns))


def _regions(header: Dataset, rows: int, columns: int) -> tuple[Box, ...]:
    found = []
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        left, top = int(region.RegionLocationMinX0), int(region.RegionLocationMinY0)
        right, bottom = int(region.RegionLocationMaxX1) + 1, int(region.RegionLocationMaxY1) + 1
        box = (max(0, left), max(0, top), min(columns, right), min(rows, bottom))
        kind = (region.get("RegionSpatialFormat", _SPATIAL_2D), region.get("RegionDataType", _TISSUE))
        if kind == (_SPATIAL_2D, _TISSUE) and box[0] < box[2] and box[1] < box[3]:
            found.append(box)
    return tuple(found)


def spacing_mm(header: Dataset, frame: int = 0) -> tuple[float, float] | None:
    """Along rows and columns: PixelSpacing, ImagerPixelSpacing or the first calibrated ultrasound region's.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER.
    """
    group = group_item(header, frame, "PixelMeasuresSequence")
    return guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _spacing_mm(header, group))


def _spacing_mm(header: Dataset, group: Dataset | None) -> tuple[float, float] | None:
    for source, keyword in ((group, "PixelSpacing"), (header, "PixelSpacing"), (header, "ImagerPixelSpacing")):
        if source is not None and (value := source.get(keyword)):
            return _lengths(value[0], value[1])
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        if units == (_CM, _CM):
            return _lengths(10 * abs(region.PhysicalDeltaY), 10 * abs(region.PhysicalDeltaX))
    return None


def _lengths(along_rows: Any, along_columns: Any) -> tuple[float, float] | None:
    """Some scanners write 0 for unknown; an invalid size must not reach a task's geometry."""
    spacing = float(along_rows), float(along_columns)
    return spacing if all(isfinite(length) and length > 0 for length in spacing) else None
