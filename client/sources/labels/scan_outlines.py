"""Outlines on an examination's volumes from DICOM segmentations (PS3.3 A.51).

A frame of a segmentation belongs to a slice of a stack, by the image it was derived from (PS3.3 C.7.6.16.2.6) or by its
position (C.7.6.16.2.3), and must have the slice's position. A segmentation with a frame that fits no slice, for
instance on a different grid, is not used.

Tested in ``tests/client/sources/files/test_scans.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.reading.dicom import Measured, read_values
from client.reading.segments import SegmentationHeader, SegmentedFrame
from client.reading.slices import Plane, Slice
from client.reading.stack import Note, Stack
from client.reading.volume import affine_of
from client.sources.labels.segmentations import codes_of, mask_of
from client.sources.record import signature_of
from tasks.task import Structure, Volume

_SAME_PLACE_MM = 0.05
_SAME_DIRECTION, _WANDERING = 1e-3, 0.09
"""Of direction cosines; the second is 5 degrees, as far as the slices of one stack may differ at all."""


@dataclass(frozen=True)
class Segmentation:
    """A segmentation of some of the task's structures.

    Attributes:
        path: of the file.
        sought: positions among the task's structures of those that it describes, found or not.
        marks: its frames that outline one of them, and its position.
        header: what it says.
        signature: changes whenever the file may have changed.
    """

    path: Path
    sought: frozenset[int]
    marks: tuple[tuple[int, SegmentedFrame], ...]
    header: SegmentationHeader
    signature: str

    def references(self, stack: Stack) -> bool:
        """Whether it was made from a slice of the stack."""
        return not frozenset(self.header.referenced).isdisjoint(one.instance for one in stack.slices)


def segmentation_of(path: Path, header: SegmentationHeader, structures: Sequence[Structure]) -> Segmentation | None:
    """A segmentation by the task's structures; ``None`` if it has none of these."""
    codes = codes_of(structures)
    sought = frozenset(codes.index(code) for code in header.codes if code in codes)
    marks = tuple((codes.index(one.code), one) for one in header.frames if one.code in codes)
    return Segmentation(path, sought, marks, header, signature_of(path)) if sought else None


@dataclass(frozen=True)
class SliceMark:
    """A frame of a segmentation on a slice of a stack."""

    path: Path
    frame: SegmentedFrame
    slice: int


@dataclass(frozen=True)
class ReadOutlines:
    """Reads the outlines of an examination.

    Attributes:
        outlined: by name of the structure, the stack that it was outlined on and the marks; none where nothing was
            found.
        signature: changes whenever the segmentations may have changed.
    """

    outlined: Mapping[str, tuple[Stack, tuple[SliceMark, ...]]]
    signature: str

    def read(self, values: Callable[[Path, int], Measured] | None) -> dict[str, Volume]:
        """Masks by name of the structure, each on its stack's grid.

        Args:
            values: decodes a frame, such as ``Decoder.read_values``; in this process by default.

        Raises:
            Unreadable: SEGMENTATION_UNREADABLE.
        """
        decode = read_values if values is None else values
        masks = {}
        for name, (stack, marks) in self.outlined.items():
            mask = np.zeros((len(stack.slices), *stack.slices[0].matrix), dtype=np.bool_)
            for mark in marks:
                mask[mark.slice] |= mask_of(mark.path, mark.frame, decode)
            masks[name] = Volume(mask, affine_of(stack))
        return masks


def placed(
    segmentations: Iterable[Segmentation],
    stacks: Sequence[Stack],
    structures: Sequence[Structure],
    left_out: Counter[str],
) -> ReadOutlines | None:
    """The reader of an examination's outlines; ``None`` unless all structures were annotated.

    Several segmentations of a structure on one series are united.

    Args:
        segmentations: of the examination.
        stacks: its volumes, the most important first.
        structures: of the task.
        left_out: counts ``SEGMENTATION_OFF_GRID``, ``SEGMENTATION_ON_TWO_SERIES`` (of a structure; the more important
            series counts), ``SEGMENTATION_INCOMPLETE`` (of an examination for which some structures were never sought:
            nobody can tell what is not there from what was not looked for).
    """
    marked: list[dict[int, list[SliceMark]]] = [{} for _ in stacks]
    signatures = []
    for one in sorted(segmentations, key=lambda one: one.path):
        fits = [(place, marks) for place, stack in enumerate(stacks) if (marks := fitted(one, stack)) is not None]
        fits.sort(key=lambda fit: not one.references(stacks[fit[0]]))  # two reconstructions may have one grid
        if not fits:
            left_out["SEGMENTATION_OFF_GRID"] += 1
            continue
        place, marks = fits[0]
        signatures.append(one.signature)
        for sought in one.sought:
            marked[place].setdefault(sought, []).extend(mark for number, mark in marks if number == sought)
    outlined: dict[str, tuple[Stack, tuple[SliceMark, ...]]] = {}
    for number, structure in enumerate(structures):
        places = [place for place, of_stack in enumerate(marked) if number in of_stack]
        left_out["SEGMENTATION_ON_TWO_SERIES"] += len(places) > 1
        if places:
            outlined[structure.name] = stacks[places[0]], tuple(marked[places[0]][number])
    left_out["SEGMENTATION_INCOMPLETE"] += 0 < len(outlined) < len(structures)
    return ReadOutlines(outlined, "+".join(signatures)) if len(outlined) == len(structures) else None


def fitted(segmentation: Segmentation, stack: Stack) -> list[tuple[int, SliceMark]] | None:
    """Each mark on its slice, with the structure's position; ``None`` if any fits no slice of the stack, or if its
    frame of reference is another one and it refers to none of the slices."""
    header, referenced = segmentation.header, segmentation.references(stack)
    spaces = {header.frame_of_reference, stack.frame_of_reference} - {""}
    if header.size != stack.slices[0].matrix or (len(spaces) > 1 and not referenced):
        return None
    if not segmentation.marks and not referenced:
        return None
    marks = []
    for structure, frame in segmentation.marks:
        place = _slice_of(frame, stack)
        if place is None:
            return None
        marks.append((structure, SliceMark(segmentation.path, frame, place)))
    return marks


def covers(stack: Stack, segmentation: Segmentation) -> bool:
    """Whether all that a segmentation marks lies between the first and the last slice of a stack, whatever its grid."""
    spaces = {segmentation.header.frame_of_reference, stack.frame_of_reference} - {""}
    if len(spaces) > 1:
        return False
    normal = np.cross(stack.plane.along_row, stack.plane.along_column)
    places = [float(normal @ np.array(one.plane.position)) for _, one in segmentation.marks if one.plane is not None]
    half = stack.thickness_mm / 2
    low, high = stack.offsets_mm[0] - half, stack.offsets_mm[-1] + half
    return all(low <= place <= high for place in places)


def _slice_of(frame: SegmentedFrame, stack: Stack) -> int | None:
    if frame.plane is None:
        return next((place for place, one in enumerate(stack.slices) if _is_of(frame, one)), None)
    normal = np.cross(stack.plane.along_row, stack.plane.along_column)
    distances = np.abs(np.array(stack.offsets_mm) - float(normal @ np.array(frame.plane.position)))
    place = int(np.argmin(distances))
    plane = stack.slices[place].plane
    return place if plane is not None and _same(frame.plane, plane, stack) else None


def _is_of(frame: SegmentedFrame, one: Slice) -> bool:
    return any(one.instance == name and (not frames or one.frame in frames) for name, frames in frame.images)


def _same(one: Plane, other: Plane, stack: Stack) -> bool:
    near = np.abs(np.subtract(one.position, other.position)).max() <= _SAME_PLACE_MM
    directions = (one.along_row, one.along_column), (other.along_row, other.along_column)
    wandering = Note.SLICES_WANDER in stack.notes  # then a segmentation has the direction of any one slice
    turned = np.abs(np.subtract(*directions)).max() > (_WANDERING if wandering else _SAME_DIRECTION)
    return bool(near and not turned and np.allclose(one.spacing_mm, other.spacing_mm, rtol=1e-3))
