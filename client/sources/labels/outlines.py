"""Outlines on images from DICOM segmentations (PS3.3 A.51) in the same folder.

A segment is a structure of the task if its SegmentedPropertyTypeCodeSequence is the structure's code; a frame of it
belongs to the image, and to the frame, that it was derived from. Several segmentations of an image are united.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.reading.dicom import Measured, read_values
from client.reading.segments import SegmentationHeader, SegmentedFrame
from client.sources.headers import FileHeader
from client.sources.labels.segmentations import codes_of, mask_of
from client.sources.record import signature_of
from tasks.task import Structure

_Place = tuple[str, int | None]
"""SOPInstanceUID and frame of an image; ``None`` means all of its frames."""


@dataclass(frozen=True)
class FrameMark:
    """A frame of a segmentation, and the structure it outlines."""

    structure: int
    path: Path
    frame: SegmentedFrame


@dataclass(frozen=True)
class ReadMasks:
    """Reads the outlines of one image.

    Attributes:
        shape: structures, rows and columns.
        marks: of the picture; none where nothing was found.
        signature: changes whenever the segmentations may have changed.
    """

    shape: tuple[int, int, int]
    marks: tuple[FrameMark, ...]
    signature: str

    def __call__(self) -> NDArray[np.bool_]:
        """Decode in this process; see ``read``."""
        return self.read(read_values)

    def read(self, values: Callable[[Path, int], Measured]) -> NDArray[np.bool_]:
        """The masks, bool of ``shape``.

        Args:
            values: decodes a frame, such as ``Decoder.read_values``.

        Raises:
            Unreadable: SEGMENTATION_UNREADABLE.
        """
        masks = np.zeros(self.shape, dtype=np.bool_)
        for mark in self.marks:
            masks[mark.structure] |= mask_of(mark.path, mark.frame, values)
        return masks


class FrameOutlines:
    """All segmentations of a folder, by the images they refer to.

    Attributes:
        left_out: counts of ``SEGMENTATION_UNREADABLE``, ``SEGMENTATION_OF_OTHER_SIZE`` (than the image, which then has
            no masks) and ``SEGMENTATION_INCOMPLETE`` (of images on which not all structures of the task were sought:
            nobody can tell what was not found there from what was not sought).
    """

    def __init__(self, files: Iterable[tuple[Path, FileHeader]], structures: Sequence[Structure]) -> None:
        """Sort what their headers say; no pixel is decoded."""
        self.left_out: Counter[str] = Counter()
        self._codes = codes_of(structures)
        self._sought: dict[_Place, set[int]] = defaultdict(set)
        self._referenced: dict[str, set[int]] = defaultdict(set)
        self._marks: dict[_Place, list[FrameMark]] = defaultdict(list)
        self._files: dict[str, set[Path]] = defaultdict(set)
        self._sizes: dict[Path, tuple[int, int]] = {}
        for path, header in files:
            if header.segmentation is None:
                self.left_out["SEGMENTATION_UNREADABLE"] += 1
            else:
                self._add(path, header.segmentation)

    def _add(self, path: Path, segmentation: SegmentationHeader) -> None:
        sought = {self._codes.index(code) for code in segmentation.codes if code in self._codes}
        if not sought:
            return  # of something else
        self._sizes[path] = segmentation.size
        for image in segmentation.referenced:
            self._referenced[image] |= sought
            self._files[image].add(path)
        for frame in segmentation.frames:
            for image, numbers in frame.images:
                self._files[image].add(path)
                for place in _places(image, numbers):
                    self._sought[place] |= sought
                    if frame.code in self._codes:
                        self._marks[place].append(FrameMark(self._codes.index(frame.code), path, frame))

    def of(self, image: str, frame: int, frames: int, size: tuple[int, int]) -> ReadMasks | None:
        """The reader of an image's masks; ``None`` unless all structures were annotated.

        Args:
            image: SOPInstanceUID.
            frame: of the image, from 0.
            frames: how many the image has. Only of an image with one it says enough that a segmentation refers to it;
                others are taken as looked at where a frame of a segmentation refers to theirs.
            size: rows and columns.
        """
        places: list[_Place] = [(image, None), (image, frame)]
        sought = set().union(*(self._sought.get(place, ()) for place in places))
        sought |= self._referenced.get(image, set()) if frames == 1 else set()
        if not sought:
            return None
        if len(sought) < len(self._codes):
            self.left_out["SEGMENTATION_INCOMPLETE"] += 1
            return None
        if any(self._sizes[path] != size for path in self._files[image]):
            self.left_out["SEGMENTATION_OF_OTHER_SIZE"] += 1
            return None
        marks = tuple(mark for place in places for mark in self._marks.get(place, ()))
        signature = "+".join(signature_of(path) for path in sorted(self._files[image]))
        return ReadMasks((len(self._codes), *size), marks, signature)


def _places(image: str, frames: tuple[int, ...]) -> list[_Place]:
    return [(image, frame) for frame in frames] if frames else [(image, None)]
