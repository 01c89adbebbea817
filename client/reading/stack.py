"""A stack of slices: a volume, or why it is none, and what a person is told of it.

Tested in ``tests/client/reading/test_volume.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from client.reading.slices import Plane, Slice


class Unstackable(StrEnum):
    """Why frames do not form a volume."""

    NO_POSITION = "NO_POSITION"
    """No frame has ImagePositionPatient, ImageOrientationPatient and a pixel spacing that can be."""
    TOO_FEW_SLICES = "TOO_FEW_SLICES"
    DUPLICATE_POSITION = "DUPLICATE_POSITION"
    """Different images of the same position that cannot be distinguished."""
    SLICES_MISSING = "SLICES_MISSING"
    """Some distances are multiples of the others, or all are of SpacingBetweenSlices."""
    UNEVEN_SPACING = "UNEVEN_SPACING"
    UNEVEN_DIRECTION = "UNEVEN_DIRECTION"
    """ImageOrientationPatient differs among the slices by more than writing it with few digits explains."""
    SERIES_IN_PIECES = "SERIES_IN_PIECES"
    """Slices of one series and direction that differ in matrix or pixel size, or have no position, make no volume."""
    TOO_LARGE = "TOO_LARGE"
    MIXED_UNITS = "MIXED_UNITS"


class NoVolume(Exception):
    """Frames do not form a volume; ``reason`` says why in one word."""

    def __init__(self, reason: Unstackable, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Note(StrEnum):
    """What a person is told of a stack that is read."""

    SLICES_DIFFER = "SLICES_DIFFER"
    """One volume by its geometry, though ImageType, FrameOfReferenceUID, SliceThickness or the like differ."""
    SLICES_OF_TWO_THICKNESSES = "SLICES_OF_TWO_THICKNESSES"
    SLICES_WANDER = "SLICES_WANDER"
    """Slightly different directions, which are read as one."""
    GAPS_BETWEEN_SLICES = "GAPS_BETWEEN_SLICES"
    """As wide as a slice or wider."""
    SPACING_NOT_AS_DECLARED = "SPACING_NOT_AS_DECLARED"
    FEWER_SLICES_THAN_DECLARED = "FEWER_SLICES_THAN_DECLARED"
    TILTED_GANTRY = "TILTED_GANTRY"
    """Slices are shifted against each other; the affine is sheared, which resampling puts right."""
    SENT_TWICE = "SENT_TWICE"
    """Copies of slices, under the same SOPInstanceUID or with the same pixels, are left out."""


@dataclass(frozen=True)
class Stack:
    """Slices of one direction, in order along their normal.

    Attributes:
        slices: from the lowest position on; copies are left out.
        offsets_mm: position of each along the normal.
        plane: direction and spacing that are common to all.
        notes: what a person is told, none of which keeps it from being read.
        refusal: why it is no volume, ``None`` if it is one.
        left_out: frames of its series in the same direction that are elsewhere and not in it.
    """

    slices: tuple[Slice, ...]
    offsets_mm: tuple[float, ...]
    plane: Plane
    notes: frozenset[Note]
    refusal: NoVolume | None
    left_out: int = 0

    @property
    def frame_of_reference(self) -> str:
        """FrameOfReferenceUID; "" where the slices have none, or several."""
        spaces = {one.frame_of_reference for one in self.slices}
        return spaces.pop() if len(spaces) == 1 else ""

    @property
    def thickness_mm(self) -> float:
        """Mean distance of its slices; 0 of one slice."""
        return (self.offsets_mm[-1] - self.offsets_mm[0]) / max(1, len(self.offsets_mm) - 1)
