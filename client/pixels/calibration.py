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
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def regions(header: Dataset, rows: int, columns: int) -> tuple[Box, ...]:
    """B-mode regions inside the frame; the standard's Max is the last pixel inside, ours the first outside.

    What reaches a little beyond the frame is cut: some scanners write Max as the number of columns or rows. A region
    that reaches farther is of a larger frame and says nothing about this one.

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
        of_this_frame = right - columns <= _beyond(columns) and bottom - rows <= _beyond(rows)
        if _is_b_mode(region) and of_this_frame and box[2] - box[0] > 1 and box[3] - box[1] > 1:
            found.append(box)
    return tuple(found)


def _beyond(size: int) -> int:
    """How far a region may reach beyond the frame and still be of it; more, and the frame was made smaller since."""
    return max(1, size // 50)


def _is_b_mode(region: Dataset) -> bool:
    kind = (region.get("RegionSpatialFormat", _SPATIAL_2D), region.get("RegionDataType", _TISSUE))
    return kind == (_SPATIAL_2D, _TISSUE)


def tells_regions(header: Dataset) -> bool:
    """Whether the file says where its image areas are, of B-mode or of anything else."""
    return guarded(Reason.IMPLAUSIBLE_HEADER, lambda: bool(header.get("SequenceOfUltrasoundRegions")))


def spacing_mm(header: Dataset, frame: int = 0) -> tuple[float, float] | None:
    """Along rows and columns; of an enhanced image the frame's own, as vendors write it (C.7.6.16.2.1).

    PixelSpacing, ImagerPixelSpacing, NominalScannedPixelSpacing, or a calibrated ultrasound region's, of B-mode first.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER.
    """
    group = group_item(header, frame, "PixelMeasuresSequence")
    return guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _spacing_mm(header, group))


def _spacing_mm(header: Dataset, group: Dataset | None) -> tuple[float, float] | None:
    places = [(group, "PixelSpacing"), *((header, keyword) for keyword in _SPACINGS)]
    for source, keyword in places:
        if source is not None and (value := source.get(keyword)) and (found := _lengths(value[0], value[1])):
            return found
    for region in sorted(header.get("SequenceOfUltrasoundRegions") or (), key=lambda region: not _is_b_mode(region)):
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        if units == (_CM, _CM):
            along_rows, along_columns = region.get("PhysicalDeltaY") or 0, region.get("PhysicalDeltaX") or 0
            if found := _lengths(10 * abs(along_rows), 10 * abs(along_columns)):
                return found
    return None


def _lengths(along_rows: Any, along_columns: Any) -> tuple[float, float] | None:
    """Some scanners write 0 for unknown; an invalid size must not reach a task's geometry."""
    spacing = float(along_rows), float(along_columns)
    return spacing if all(isfinite(length) and length > 0 for length in spacing) else None
