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
from pydicom import Dataset

from client.pixels.refusal import Reason, guarded
from client.reading.dicom import Measured, read_values
from client.reading.slices import Plane, Slice, slices_of
from client.reading.stacks import Stack
from client.reading.volume import affine_of
from client.sources.labels.segmentations import (
    SegmentedFrame,
    codes_of,
    least_value,
    mask_of,
    referenced_images,
    segment_codes,
    segmented_frames,
)
from client.sources.record import signature_of
from tasks.task import Structure, Volume

_SAME_PLACE_MM = 0.05
_SAME_DIRECTION = 1e-3


@dataclass(frozen=True)
class Segmentation:
    """A segmentation's header.

    Attributes:
        path: of the file.
        sought: positions among the task's structures of those that it describes, found or not.
        marks: its frames that outline one of them: its position, the frame, and where it lies, if it says.
        referenced: SOPInstanceUIDs of the images that it was made from, with a mark or without.
        matrix: rows and columns.
        least: from which value on a pixel is marked.
        signature: changes whenever the file may have changed.
    """

    path: Path
    sought: frozenset[int]
    marks: tuple[tuple[int, SegmentedFrame, Plane | None], ...]
    referenced: frozenset[str]
    matrix: tuple[int, int]
    least: float
    signature: str


def read_segmentation(path: Path, header: Dataset, structures: Sequence[Structure]) -> Segmentation | None:
    """Read a header; no pixel is decoded. ``None`` if it has none of these structures.

    Raises:
        UnreadableDicom: it does not say what its frames are.
    """
    codes = codes_of(structures)
    sought = {codes.index(code) for code in segment_codes(header).values() if code in codes}
    if not sought:
        return None
    planes = [one.plane for one in slices_of(path, header)]
    frames = segmented_frames(header)
    marks = [(codes.index(one.code), one, planes[one.number]) for one in frames if one.code in codes]
    matrix = guarded(Reason.IMPLAUSIBLE_HEADER, lambda: (int(header.Rows), int(header.Columns)))
    named = {image for one in frames for image, _ in one.images}
    referenced = frozenset(referenced_images(header)) | named
    return Segmentation(
        path=path,
        sought=frozenset(sought),
        marks=tuple(marks),
        referenced=referenced,
        matrix=matrix,
        least=least_value(header),
        signature=signature_of(path),
    )


@dataclass(frozen=True)
class SliceMark:
    """A frame of a segmentation on a slice of a stack, and the least value of a marked pixel."""

    path: Path
    frame: int
    slice: int
    least: float


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
                mask[mark.slice] |= mask_of(mark.path, mark.frame, mark.least, decode)
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
        fits = [(place, marks) for place, stack in enumerate(stacks) if (marks := _fitted(one, stack)) is not None]
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


def _fitted(segmentation: Segmentation, stack: Stack) -> list[tuple[int, SliceMark]] | None:
    """Each mark on its slice, with the structure's position; ``None`` if any fits no slice of the stack."""
    if segmentation.matrix != stack.slices[0].matrix:
        return None
    if not segmentation.marks and segmentation.referenced.isdisjoint(one.instance for one in stack.slices):
        return None
    marks = []
    for structure, frame, plane in segmentation.marks:
        place = _slice_of(frame, plane, stack.slices)
        if place is None:
            return None
        marks.append((structure, SliceMark(segmentation.path, frame.number, place, segmentation.least)))
    return marks


def _slice_of(frame: SegmentedFrame, plane: Plane | None, slices: Sequence[Slice]) -> int | None:
    for place, one in enumerate(slices):
        derived = any(one.instance == name and (not frames or one.frame in frames) for name, frames in frame.images)
        if plane is None and derived:
            return place
        if plane is not None and one.plane is not None and _same(plane, one.plane):
            return place
    return None


def _same(one: Plane, other: Plane) -> bool:
    near = np.abs(np.subtract(one.position, other.position)).max() <= _SAME_PLACE_MM
    directions = (one.along_row, one.along_column), (other.along_row, other.along_column)
    turned = np.abs(np.subtract(*directions)).max() > _SAME_DIRECTION
    return bool(near and not turned and np.allclose(one.spacing_mm, other.spacing_mm, rtol=1e-3))
