"""Slices to volumes: which frames belong together, in which order, and whether they fill space without gaps.

The order along a volume is that of the positions projected on the normal of the slices (PS3.3 C.7.6.2.1.1). Neither
InstanceNumber nor SliceLocation is trusted for it. A series is read whole where its geometry is one volume, whatever
else differs among its slices; it is divided only where its parts show the same places, as echoes and phases do. What is
cut in
any other way is refused whole, with a reason: half a head is no volume.

Tested in ``tests/client/reading/test_volume.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.reading.slices import Plane, Slice
from client.reading.spacing import SAME_PLACE_MM, even, missing
from client.reading.stack import Note, NoVolume, Stack, Unstackable

MAX_VOXELS = 1 << 29
_OTHER_WAY_DEGREES = 5.0
"""Slices that differ by more are of another direction, as in a localizer; nobody tilts a stack by less on purpose."""
_ONE_WAY_DEGREES = 0.03
"""What direction cosines of three decimals differ by, from their median."""
_WANDERING = 0.5
"""Largest way of a slice's corner from where the stack's common direction has it, in voxels along their longest edge:
as much as sampling the nearest voxel moves a value."""
_TILT_DEGREES = 0.5
_WHOLE = 0.5
"""Half a unit of whole numbers: nobody rounds positions that far, and what is uneven then is uneven."""
_A_FEW = 0.25
"""Of a stack's slices: if its series has more than that elsewhere in the same direction, it is a piece of one."""
_ALTERNATIVES = 0.5
"""Parts of a series that share at least this fraction of the smaller one's places show the same twice."""


SamePixels = Callable[[Slice, Slice], bool]
_Placed = tuple[Slice, Plane]


def arrange(slices: Iterable[Slice], same_pixels: SamePixels = lambda one, other: False) -> tuple[Stack, ...]:
    """Sort a series' frames into stacks, the longest first; none where no frame has a place in space.

    Args:
        same_pixels: whether two frames of one position have equal pixels. It is asked only where positions are taken
            twice, and of no more frames once one pair differs.
    """
    everything = list(slices)
    placed = [(one, one.plane) for one in everything if one.plane is not None]
    groups: list[list[_Placed]] = []
    for one, plane in placed:
        group = next((group for group in groups if _may_belong_together((one, plane), group[0])), None)
        if group is None:
            groups.append([(one, plane)])
        else:
            group.append((one, plane))
    stacks = [stack for group in groups for stack in _stacks(_once(group, same_pixels))]
    unplaced = [one for one in everything if one.plane is None]
    held = [_held_against_series(stack, stacks, unplaced) for stack in stacks]
    return tuple(sorted(held, key=lambda stack: -len(stack.slices)))


def _held_against_series(stack: Stack, stacks: Sequence[Stack], unplaced: Sequence[Slice]) -> Stack:
    """With what it leaves out; refused if that is much: then it is a piece and not the series."""
    elsewhere = sum(len(other.slices) for other in stacks if other is not stack and _continues(other, stack))
    left_out = elsewhere + sum(one.matrix == stack.slices[0].matrix and not _is_localizer(one) for one in unplaced)
    if stack.refusal is None and left_out > max(1, _A_FEW * len(stack.slices)):
        detail = f"{len(stack.slices)} slices make a volume, {left_out} of the same series and direction do not fit"
        return replace(stack, refusal=NoVolume(Unstackable.SERIES_IN_PIECES, detail), left_out=left_out)
    return replace(stack, left_out=left_out)


def _continues(other: Stack, stack: Stack) -> bool:
    """Whether it shows, in the same direction, other places than the stack: neither a scout nor the same once more."""
    if _angle_degrees(other.plane, stack.plane) > _OTHER_WAY_DEGREES or all(map(_is_localizer, other.slices)):
        return False
    return not _share_places(_places(other.slices, stack.plane), _places(stack.slices, stack.plane))


def _places(slices: Iterable[Slice], plane: Plane) -> set[int]:
    """Positions along a plane's normal, in tenths of a millimetre."""
    normal = np.cross(plane.along_row, plane.along_column)
    return {round(10 * float(normal @ np.array(one.plane.position))) for one in slices if one.plane is not None}


def _share_places(one: set[int], other: set[int]) -> bool:
    fewer, more = sorted((one, other), key=len)
    near = {place + step for place in more for step in (-1, 0, 1)}
    return len(fewer & near) >= _ALTERNATIVES * len(fewer)


def _may_belong_together(one: _Placed, other: _Placed) -> bool:
    same = one[0].matrix == other[0].matrix and np.allclose(one[1].spacing_mm, other[1].spacing_mm, rtol=1e-3)
    return bool(same) and _angle_degrees(one[1], other[1]) <= _OTHER_WAY_DEGREES


def _angle_degrees(one: Plane, other: Plane) -> float:
    """The larger angle between rows and between columns of two planes."""
    pairs = ((one.along_row, other.along_row), (one.along_column, other.along_column))
    return max(float(np.degrees(np.arccos(np.clip(np.dot(a, b), -1, 1)))) for a, b in pairs)


@dataclass(frozen=True)
class _Group:
    """Frames of one matrix and about one direction, along their common normal, and whether copies were left out."""

    frames: tuple[_Placed, ...]
    offsets: NDArray[np.float64]
    plane: Plane
    copied: bool

    def of(self, chosen: Sequence[int]) -> _Group:
        """Some of them, by their place."""
        return _Group(tuple(self.frames[n] for n in chosen), self.offsets[list(chosen)], self.plane, self.copied)

    @property
    def taken_twice(self) -> int:
        return int((np.diff(self.offsets) < SAME_PLACE_MM).sum())


def _once(frames: Sequence[_Placed], same_pixels: SamePixels) -> _Group:
    """The frames in order, without copies of an instance, and without copies of pixels under another UID."""
    plane = _common_plane([plane for _, plane in frames])
    normal = np.cross(plane.along_row, plane.along_column)
    single: dict[tuple[str, int], tuple[float, Slice, Plane]] = {}
    for one, own in frames:
        name = (one.instance or str(one.path), one.frame)
        single.setdefault(name, (float(normal @ np.array(own.position)), one, own))
    order = sorted(
        single.values(), key=lambda entry: (round(entry[0], 2), entry[1].kind, entry[1].instance, entry[1].frame)
    )
    kept = sorted(_without_resent(order, same_pixels), key=lambda entry: entry[0])
    offsets = np.array([offset for offset, _, _ in kept])
    return _Group(tuple((one, own) for _, one, own in kept), offsets, plane, len(kept) < len(frames))


def _by_place_and_kind(entry: tuple[float, Slice, Plane]) -> tuple[float, tuple[str, ...], str, int]:
    offset, one, _ = entry
    return round(offset, 2), one.kind, one.instance, one.frame


def _without_resent(
    order: list[tuple[float, Slice, Plane]], same_pixels: SamePixels
) -> list[tuple[float, Slice, Plane]]:
    kept: list[tuple[float, Slice, Plane]] = []
    for entry in order:
        twice = kept and entry[0] - kept[-1][0] < SAME_PLACE_MM and entry[1].kind == kept[-1][1].kind
        if not twice:
            kept.append(entry)
        elif not same_pixels(kept[-1][1], entry[1]):
            return order  # phases, or whatever else: not copies
    return kept


def _common_plane(planes: Sequence[Plane]) -> Plane:
    """The median direction, at right angles."""
    along_row = np.median([plane.along_row for plane in planes], axis=0)
    along_column = np.median([plane.along_column for plane in planes], axis=0)
    along_row /= np.linalg.norm(along_row)
    along_column -= (along_row @ along_column) * along_row if abs(along_row @ along_column) > 1e-3 else 0
    along_column /= np.linalg.norm(along_column)
    return Plane(planes[0].position, _vector(along_row), _vector(along_column), planes[0].spacing_mm)


def _vector(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _stacks(group: _Group) -> list[Stack]:
    """The whole group as one stack if it is a volume; else its parts, if they show the same places."""
    refusal = _refusal(group)
    if refusal is None:
        return [_stack(group, None)]
    for parts in (_parts(group, key) for key in _KEYS):
        if len(parts) > 1 and (_are_alternatives(parts) or _has_localizer(parts)):
            return [stack for part in parts for stack in _stacks(part)]
    return [_stack(group, refusal)]


def _is_localizer(one: Slice) -> bool:
    return any("LOCALIZER" in told for told in one.kind if told.startswith(("ImageType", "FrameType")))


def _without_type(one: Slice) -> Hashable:
    return tuple(told for told in one.kind if not told.startswith("ImageType"))


_KEYS: tuple[Callable[[Slice], Hashable], ...] = (
    _is_localizer,
    _without_type,
    lambda one: one.kind,
    lambda one: one.thickness_mm,
    lambda one: one.frame_of_reference,
    lambda one: (one.kind, one.thickness_mm),
    lambda one: (one.kind, one.thickness_mm, one.frame_of_reference),
)
"""By what a series may be divided, tried in this order."""


def _parts(group: _Group, key: Callable[[Slice], Hashable]) -> list[_Group]:
    chosen: dict[Hashable, list[int]] = {}
    for place, (one, _) in enumerate(group.frames):
        chosen.setdefault(key(one), []).append(place)
    return [group.of(places) for places in chosen.values()]


def _are_alternatives(parts: Sequence[_Group]) -> bool:
    """Whether each part shows, at least for the most part, what the largest one shows as well."""
    places = sorted((_places((one for one, _ in part.frames), part.plane) for part in parts), key=len)
    return all(_share_places(part, places[-1]) for part in places[:-1])


def _has_localizer(parts: Sequence[_Group]) -> bool:
    """A scout among the slices is none of the volume."""
    several = [{_is_localizer(one) for one, _ in part.frames} for part in parts]
    return {True} in several and {False} in several


def _refusal(group: _Group) -> NoVolume | None:
    rows, columns = group.frames[0][0].matrix
    number = len(group.frames)
    if number < 2:
        return NoVolume(Unstackable.TOO_FEW_SLICES, f"{number} slice")
    if number * rows * columns > MAX_VOXELS:
        return NoVolume(Unstackable.TOO_LARGE, f"{number} slices of {rows}x{columns}")
    if group.taken_twice:
        detail = f"{group.taken_twice} slices have the position of another one"
        return NoVolume(Unstackable.DUPLICATE_POSITION, detail)
    return _uneven(group) or _wandering(group)


def _uneven(group: _Group) -> NoVolume | None:
    rounding = _rounding_mm(group)
    steps = np.diff(group.offsets)
    if even(group.offsets, rounding):
        return _every_other_missing(group)
    if gone := missing(group.offsets, rounding):
        number = len(group.offsets)
        return NoVolume(
            Unstackable.SLICES_MISSING, f"{gone} missing between {number} slices {np.median(steps):.3f} mm apart"
        )
    return NoVolume(Unstackable.UNEVEN_SPACING, f"slices are {steps.min():.3f} to {steps.max():.3f} mm apart")


def _rounding_mm(group: _Group) -> float:
    """By how much an offset may be off because positions were written with few decimals."""
    normal = np.abs(np.cross(group.plane.along_row, group.plane.along_column))
    finest = np.min([plane.rounding_mm for _, plane in group.frames], axis=0)
    return float(normal @ np.where(finest < _WHOLE, finest, 0))


def _every_other_missing(group: _Group) -> NoVolume | None:
    """Evenly spaced, but by a multiple of SpacingBetweenSlices, which is from centre to centre (C.7.6.2.1.3); some
    scanners write the gap there, which is smaller than a slice."""
    one, step = group.frames[0][0], float(np.mean(np.diff(group.offsets)))
    declared, thickness = one.declared_spacing_mm, one.thickness_mm
    if declared is None or thickness is None or declared < 0.95 * thickness:
        return None
    times = round(step / declared)
    if times < 2 or abs(step - times * declared) > 0.02 * step:
        return None
    detail = f"slices are {step:.3f} mm apart, SpacingBetweenSlices says {declared:g}"
    return NoVolume(Unstackable.SLICES_MISSING, detail)


def _wandering(group: _Group) -> NoVolume | None:
    way = _way_mm(group)
    largest = max(*group.plane.spacing_mm, float(np.mean(np.diff(group.offsets))))
    if way <= _WANDERING * largest:
        return None
    return NoVolume(Unstackable.UNEVEN_DIRECTION, f"directions of the slices differ by {way:.2f} mm at a corner")


def _way_mm(group: _Group) -> float:
    """The longest way of a slice's far corner from where the common direction has it."""
    (rows, columns), (between_rows, between_columns) = group.frames[0][0].matrix, group.plane.spacing_mm
    reach = np.array([columns * between_columns, rows * between_rows])

    def corner(plane: Plane) -> NDArray[np.float64]:
        return np.asarray(reach @ np.array([plane.along_row, plane.along_column]))

    common = corner(group.plane)
    return max(float(np.linalg.norm(corner(plane) - common)) for _, plane in group.frames)


def _stack(group: _Group, refusal: NoVolume | None) -> Stack:
    slices = tuple(one for one, _ in group.frames)
    notes = frozenset(_notes(group)) if refusal is None else frozenset[Note]()
    first = Plane(group.frames[0][1].position, group.plane.along_row, group.plane.along_column, group.plane.spacing_mm)
    return Stack(slices, tuple(group.offsets.tolist()), first, notes, refusal)


def _notes(group: _Group) -> Iterable[Note]:
    slices = [one for one, _ in group.frames]
    first, step = slices[0], float(np.mean(np.diff(group.offsets)))
    slack = 0.02 * step + SAME_PLACE_MM
    thicknesses = {one.thickness_mm for one in slices}
    thickness, spacing, number = first.thickness_mm, first.declared_spacing_mm, first.declared_number
    told = {
        Note.SENT_TWICE: group.copied,
        Note.SLICES_DIFFER: len({(one.kind, one.frame_of_reference) for one in slices}) > 1,
        Note.SLICES_OF_TWO_THICKNESSES: len(thicknesses) > 1,
        Note.SLICES_WANDER: max(_angle_degrees(plane, group.plane) for _, plane in group.frames) > _ONE_WAY_DEGREES,
        Note.GAPS_BETWEEN_SLICES: thickness is not None and step >= 2 * thickness - slack,
        Note.SPACING_NOT_AS_DECLARED: spacing is not None and abs(step - spacing) > slack,
        Note.FEWER_SLICES_THAN_DECLARED: number is not None and number > len(slices),
        Note.TILTED_GANTRY: _tilt_degrees([plane for _, plane in group.frames]) > _TILT_DEGREES,
    }
    return (note for note, holds in told.items() if holds)


def _tilt_degrees(planes: Sequence[Plane]) -> float:
    """Angle between the line from first to last slice and the normal of the slices."""
    way = np.subtract(planes[-1].position, planes[0].position)
    normal = np.cross(planes[0].along_row, planes[0].along_column)
    length = float(np.linalg.norm(way))
    return 0.0 if length == 0 else float(np.degrees(np.arccos(np.clip(abs(way @ normal) / length, 0, 1))))
