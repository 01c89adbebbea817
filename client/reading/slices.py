"""Positions of DICOM frames in the patient, which are needed to stack them into a volume.

Classic files have one slice each, with the Image Plane module (PS3.3 C.7.6.2); enhanced ones have many, with functional
groups (C.7.6.16.2.1, C.7.6.16.2.3, C.7.6.16.2.4). Lengths are millimetres, directions are those of the patient: x to
the left, y to the back, z to the head.

Tested in ``tests/client/reading/test_volume.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID

from client.pixels.calibration import spacing_mm
from client.pixels.groups import frame_value, group_item
from client.pixels.pixel_format import integer, number_of_frames
from client.pixels.refusal import Reason, guarded

Vector = tuple[float, float, float]

_DIGITS = 4
"""More decimals of a millimetre are no matter of rounding."""
_NOT_SQUARE = 1e-2
"""Tolerance of directions for unit length and right angle; they are written with few digits."""


@dataclass(frozen=True)
class Plane:
    """Position and orientation of a slice.

    Attributes:
        position: centre of the first pixel (ImagePositionPatient).
        along_row: direction in which the column number grows (ImageOrientationPatient, first three).
        along_column: direction in which the row number grows.
        spacing_mm: between rows and between columns (PixelSpacing).
        rounding_mm: half of the last decimal with which each coordinate of the position was written; 0 where it was
            written with more digits than can matter.
    """

    position: Vector
    along_row: Vector
    along_column: Vector
    spacing_mm: tuple[float, float]
    rounding_mm: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Slice:
    """One frame that may belong to a volume.

    Attributes:
        path, frame: where its pixels are.
        instance: SOPInstanceUID; two slices with the same one are copies.
        plane: where it lies, ``None`` when the file does not say or says what cannot be.
        matrix: rows and columns.
        frame_of_reference: FrameOfReferenceUID; positions of different ones cannot be compared.
        kind: what else tells apart images of the same place: ImageType, echo, b-value, time and the like.
        thickness_mm: SliceThickness.
        declared_spacing_mm: SpacingBetweenSlices.
        declared_number: how many slices the acquisition has (ImagesInAcquisition, NumberOfSlices).
    """

    path: Path
    frame: int
    instance: str
    plane: Plane | None
    matrix: tuple[int, int]
    frame_of_reference: str
    kind: tuple[str, ...]
    thickness_mm: float | None
    declared_spacing_mm: float | None
    declared_number: int | None


def slices_of(path: Path, header: Dataset) -> list[Slice]:
    """All frames of a file, with their positions from its header (from ``client.reading.dicom.read_header``).

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER, an attribute that is needed is no number.
    """
    return guarded(
        Reason.IMPLAUSIBLE_HEADER, lambda: [_slice(path, header, frame) for frame in range(number_of_frames(header))]
    )


def _slice(path: Path, header: Dataset, frame: int) -> Slice:
    number = integer(header, "ImagesInAcquisition") or integer(header, "NumberOfSlices")
    frames = number_of_frames(header)
    return Slice(
        path=path,
        frame=frame,
        instance=str(header.get("SOPInstanceUID", "")),
        plane=_plane(header, frame),
        matrix=(integer(header, "Rows") or 0, integer(header, "Columns") or 0),
        frame_of_reference=str(header.get("FrameOfReferenceUID", "")),
        kind=_kind(header, frame),
        thickness_mm=_length(header, frame, "SliceThickness"),
        declared_spacing_mm=_length(header, frame, "SpacingBetweenSlices"),
        declared_number=number if frames == 1 else None,
    )


def _plane(header: Dataset, frame: int) -> Plane | None:
    where = group_item(header, frame, "PlanePositionSequence") or header
    how = group_item(header, frame, "PlaneOrientationSequence") or header
    position, directions = _floats(where, "ImagePositionPatient", 3), _floats(how, "ImageOrientationPatient", 6)
    spacing = spacing_mm(header, frame)
    if position is None or directions is None or spacing is None:
        return None
    along_row, along_column = np.array(directions[:3]), np.array(directions[3:])
    lengths = float(np.linalg.norm(along_row)), float(np.linalg.norm(along_column))
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(along_row @ along_column))) > _NOT_SQUARE:
        return None
    ways = _vector(along_row / lengths[0]), _vector(along_column / lengths[1])
    return Plane(_vector(position), *ways, spacing, _vector(map(_half_unit, where.ImagePositionPatient)))


def _vector(values: Any) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _half_unit(value: Any) -> float:
    """Of the last digit of a decimal string; 0 where it has an exponent or many decimals."""
    text = str(getattr(value, "original_string", None) or value).strip()
    decimals = len(text.partition(".")[2])
    return 0.0 if decimals > _DIGITS or "e" in text.lower() else 0.5 * 10.0**-decimals


_TELLING = ("EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue", "StackID", "InversionTime")
_TELLING_GROUPS = {
    "FrameContentSequence": ("StackID", "TemporalPositionIndex"),
    "MREchoSequence": ("EffectiveEchoTime",),
    "MRDiffusionSequence": ("DiffusionBValue",),
    "CTImageFrameTypeSequence": ("FrameType",),
    "MRImageFrameTypeSequence": ("FrameType", "ComplexImageComponent"),
}


def _kind(header: Dataset, frame: int) -> tuple[str, ...]:
    """Attributes that distinguish several images at one position.

    TriggerTime is none of them: some scanners write each slice's own, and a volume would fall into single slices.
    """
    found = [f"ImageType={header.get('ImageType', '')}"]
    found += [f"{keyword}={header[keyword].value}" for keyword in _TELLING if keyword in header]
    for macro, keywords in _TELLING_GROUPS.items():
        item = group_item(header, frame, macro)
        found += [f"{keyword}={item[keyword].value}" for keyword in keywords if item is not None and keyword in item]
    return tuple(found)


def _floats(source: Dataset, keyword: str, count: int) -> list[float] | None:
    value = source.get(keyword)
    if value is None or value == "" or isinstance(value, UID | str) or len(value) != count:
        return None
    numbers = [float(number) for number in value]
    return numbers if np.isfinite(numbers).all() else None


def _number(header: Dataset, frame: int, keyword: str) -> float | None:
    value = frame_value(header, frame, keyword)
    return None if value in (None, "") else float(value)


def _length(header: Dataset, frame: int, keyword: str) -> float | None:
    """Some scanners write 0 for unknown, and a few have negative spacing."""
    value = _number(header, frame, keyword)
    return None if not value or not np.isfinite(value) else abs(value)
