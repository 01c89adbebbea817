"""Slices to volumes: which frames belong together, in which order, and whether they fill space without gaps.

The order along a volume is that of the positions projected on the normal of the slices (PS3.3 C.7.6.2.1.1). Neither
InstanceNumber nor SliceLocation is trusted for it. Slices that cannot be stacked are refused with a reason; lesser
deficiencies are reported as checks that hold, are violated, or cannot be known.

Tested in ``tests/client/reading/test_volume.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from client.reading.slices import Plane, Slice

MAX_VOXELS = 1 << 29
_SAME_DIRECTION = 1e-3
"""Largest difference of direction cosines within a stack, about 0.06 degrees."""
_SAME_PLACE_MM = 0.01
_EVEN = 0.02
"""Fraction of the spacing by which single distances may differ from it; positions are written with few digits."""
_TILT_DEGREES = 0.5


class Unstackable(StrEnum):
    """Why frames do not form a volume."""

    TOO_FEW_SLICES = "TOO_FEW_SLICES"
    DUPLICATE_POSITION = "DUPLICATE_POSITION"
    """Different images of the same position that cannot be distinguished."""
    SLICES_MISSING = "SLICES_MISSING"
    """Some distances are multiples of the others."""
    UNEVEN_SPACING = "UNEVEN_SPACING"
    TOO_LARGE = "TOO_LARGE"
    MIXED_UNITS = "MIXED_UNITS"


class NoVolume(Exception):
    """Frames do not form a volume; ``reason`` says why in one word."""

    def __init__(self, reason: Unstackable, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Check(StrEnum):
    """Desirable properties of a series."""

    ALL_PLACED = "ALL_PLACED"
    """Every frame has its position."""
    ONE_FRAME_OF_REFERENCE = "ONE_FRAME_OF_REFERENCE"
    ONE_ORIENTATION = "ONE_ORIENTATION"
    """No localizer or second direction among the slices."""
    ONE_MATRIX = "ONE_MATRIX"
    NO_COPIES = "NO_COPIES"
    """No instance appears twice."""
    UPRIGHT = "UPRIGHT"
    """Slices are aligned along their normal; with a tilted gantry they are shifted (GantryDetectorTilt)."""
    CONTIGUOUS = "CONTIGUOUS"
    """SliceThickness equals the spacing: neither gaps nor overlap between slices."""
    SPACING_AS_DECLARED = "SPACING_AS_DECLARED"
    """SpacingBetweenSlices agrees with the positions."""
    COMPLETE = "COMPLETE"
    """All slices of the acquisition."""


class CheckState(StrEnum):
    HOLDS = "HOLDS"
    VIOLATED = "VIOLATED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class CheckResult:
    check: Check
    state: CheckState
    detail: str = ""


@dataclass(frozen=True)
class Stack:
    """Slices of one kind and orientation, in order along their normal.

    Attributes:
        slices: from the lowest position on; copies of an instance are left out.
        offsets_mm: position of each along the normal.
        findings: on this stack.
        refusal: why it is no volume, ``None`` if it is one.
    """

    slices: tuple[Slice, ...]
    offsets_mm: tuple[float, ...]
    findings: tuple[CheckResult, ...]
    refusal: NoVolume | None


@dataclass(frozen=True)
class Series:
    """The result for a series' frames: stacks, the longest first, and checks on all frames together."""

    stacks: tuple[Stack, ...]
    findings: tuple[CheckResult, ...]


def arrange(slices: Iterable[Slice]) -> Series:
    """Sort a series' frames into stacks.

    Frames are told apart by frame of reference, orientation, matrix, pixel spacing and kind (echo, b-value, ...).
    """
    everything = list(slices)
    placed = [(one, one.plane) for one in everything if one.plane is not None]
    groups: list[list[tuple[Slice, Plane]]] = []
    for one, plane in placed:
        for group in groups:
            if _belong_together(one, plane, *group[0]):
                group.append((one, plane))
                break
        else:
            groups.append([(one, plane)])
    stacks = sorted((_stack(group) for group in groups), key=lambda stack: -len(stack.slices))
    return Series(tuple(stacks), _on_all(everything, [plane for _, plane in placed]))


def _belong_together(one: Slice, plane: Plane, other: Slice, other_plane: Plane) -> bool:
    same = (one.frame_of_reference, one.matrix, one.kind) == (other.frame_of_reference, other.matrix, other.kind)
    return same and _same_direction(plane, other_plane) and np.allclose(plane.spacing_mm, other_plane.spacing_mm, 1e-3)


def _same_direction(plane: Plane, other: Plane) -> bool:
    mine, theirs = (plane.along_row, plane.along_column), (other.along_row, other.along_column)
    return bool(np.abs(np.subtract(mine, theirs)).max() <= _SAME_DIRECTION)


def _on_all(slices: list[Slice], planes: list[Plane]) -> tuple[CheckResult, ...]:
    unplaced = len(slices) - len(planes)
    directions: list[Plane] = []
    for plane in planes:
        if not any(_same_direction(plane, other) for other in directions):
            directions.append(plane)
    matrices = {one.matrix for one in slices}
    spaces = {one.frame_of_reference for one in slices}
    unknown = bool(slices) and not planes
    return (
        _finding(Check.ALL_PLACED, unplaced == 0, f"{unplaced} of {len(slices)} frames have no position"),
        _finding(Check.ONE_FRAME_OF_REFERENCE, len(spaces) <= 1 if spaces != {""} else None, f"{len(spaces)} of them"),
        _finding(Check.ONE_ORIENTATION, None if unknown else len(directions) <= 1, f"{len(directions)} orientations"),
        _finding(Check.ONE_MATRIX, len(matrices) <= 1, f"rows x columns are {sorted(matrices)}"),
    )


def _finding(check: Check, holds: bool | None, otherwise: str) -> CheckResult:
    if holds is None:
        return CheckResult(check, CheckState.UNKNOWN)
    return CheckResult(check, CheckState.HOLDS) if holds else CheckResult(check, CheckState.VIOLATED, otherwise)


def _stack(group: list[tuple[Slice, Plane]]) -> Stack:
    normal = np.cross(group[0][1].along_row, group[0][1].along_column)
    seen: set[tuple[str, int]] = set()
    single: list[tuple[float, Slice, Plane]] = []
    for one, plane in group:
        name = (one.instance or str(one.path), one.frame)
        if name not in seen:
            single.append((float(normal @ np.array(plane.position)), one, plane))
        seen.add(name)
    single.sort(key=lambda entry: (entry[0], entry[1].instance, entry[1].frame))
    offsets = np.array([offset for offset, _, _ in single])
    slices, planes = tuple(one for _, one, _ in single), [plane for _, _, plane in single]
    refusal = _refusal(offsets, slices[0].matrix)
    copies = len(group) - len(single)
    without_copies = _finding(Check.NO_COPIES, copies == 0, f"{copies} copies left out")
    findings = (without_copies, *_on_stack(slices, planes, offsets))
    return Stack(slices, tuple(offsets.tolist()), findings, refusal)


def _refusal(offsets: NDArray[np.float64], matrix: tuple[int, int]) -> NoVolume | None:
    if len(offsets) < 2:
        return NoVolume(Unstackable.TOO_FEW_SLICES, f"{len(offsets)} slice")
    if len(offsets) * matrix[0] * matrix[1] > MAX_VOXELS:
        return NoVolume(Unstackable.TOO_LARGE, f"{len(offsets)} slices of {matrix[0]}x{matrix[1]}")
    steps = np.diff(offsets)
    if same := int((steps < _SAME_PLACE_MM).sum()):
        return NoVolume(Unstackable.DUPLICATE_POSITION, f"{same} slices have the position of another one")
    step = float(np.median(steps))
    allowed = _EVEN * step + _SAME_PLACE_MM
    if np.abs(steps - step).max() <= allowed:
        return None
    multiples = np.maximum(1, np.rint(steps / step))
    if np.abs(steps - multiples * step).max() <= allowed:
        missing = int((multiples - 1).sum())
        return NoVolume(
            Unstackable.SLICES_MISSING, f"{missing} missing between {len(offsets)} slices {step:.3f} mm apart"
        )
    return NoVolume(Unstackable.UNEVEN_SPACING, f"slices are {steps.min():.3f} to {steps.max():.3f} mm apart")


def _on_stack(slices: tuple[Slice, ...], planes: list[Plane], offsets: NDArray[np.float64]) -> tuple[CheckResult, ...]:
    step = float(np.median(np.diff(offsets))) if len(slices) > 1 else 0.0
    if step < _SAME_PLACE_MM:
        return ()
    tilt = _tilt_degrees(planes)
    declared = slices[0].tilt_degrees
    word = "" if declared is None else f"; GantryDetectorTilt says {declared:g}"
    thickness, spacing, number = slices[0].thickness_mm, slices[0].declared_spacing_mm, slices[0].declared_number
    between = 0.0 if thickness is None else step - thickness
    return (
        _finding(Check.UPRIGHT, tilt <= _TILT_DEGREES, f"slices are shifted by {tilt:.1f} degrees{word}"),
        _finding(
            Check.CONTIGUOUS,
            None if thickness is None else abs(between) <= _EVEN * step + _SAME_PLACE_MM,
            f"slices {'have gaps of' if between > 0 else 'overlap by'} {abs(between):.3f} mm",
        ),
        _finding(
            Check.SPACING_AS_DECLARED,
            None if spacing is None else abs(step - spacing) <= _EVEN * step + _SAME_PLACE_MM,
            f"positions are {step:.3f} mm apart, SpacingBetweenSlices says {spacing}",
        ),
        _complete(slices, number),
    )


def _complete(slices: tuple[Slice, ...], declared: int | None) -> CheckResult:
    if declared is not None:
        return _finding(Check.COMPLETE, declared == len(slices), f"{len(slices)} slices, the header says {declared}")
    # An enhanced file has all its frames or is damaged; of single files nobody knows how many there were.
    of_one_file = len({one.path for one in slices}) == 1
    return CheckResult(Check.COMPLETE, CheckState.HOLDS if of_one_file else CheckState.UNKNOWN)


def _tilt_degrees(planes: list[Plane]) -> float:
    """Angle between the line from first to last slice and the normal of the slices."""
    way = np.subtract(planes[-1].position, planes[0].position)
    normal = np.cross(planes[0].along_row, planes[0].along_column)
    length = float(np.linalg.norm(way))
    return 0.0 if length == 0 else float(np.degrees(np.arccos(np.clip(abs(way @ normal) / length, 0, 1))))
