"""What a segmentation's header says (PS3.3 A.51): its segments, and what each frame marks on which image.

Tested in ``tests/client/sources/labels/test_annotations.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.multival import MultiValue

from client.pixels.groups import group_item
from client.pixels.pixel_format import number_of_frames
from client.pixels.refusal import Reason, UnreadableDicom, guarded
from client.reading.slices import Plane, slices_of

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
_UNBOUNDED = 1e30
_NOWHERE = Path()


@dataclass(frozen=True)
class SegmentedFrame:
    """What one frame of a segmentation marks of one segment.

    Attributes:
        number: of the frame, from 0.
        code: scheme and value of its segment's type, such as ``SCT:86049000``.
        images: SOPInstanceUIDs of what it was derived from, each with the numbers of the frames, from 0; none of an
            image with one frame, or where it was derived from all.
        least, most: the values of its marked pixels, both included: of a segmentation by labels those of one segment.
        plane: where it lies, if it says.
    """

    number: int
    code: str
    images: tuple[tuple[str, tuple[int, ...]], ...]
    least: float
    most: float
    plane: Plane | None


@dataclass(frozen=True)
class SegmentationHeader:
    """A segmentation's header.

    Attributes:
        codes: of the segments that it describes, with a mark or without.
        frames: what it marks; of a segmentation by labels one for each frame and segment.
        referenced: SOPInstanceUIDs of the images that it was made from, with a mark or without.
        size: rows and columns.
        frame_of_reference: FrameOfReferenceUID.
    """

    codes: tuple[str, ...]
    frames: tuple[SegmentedFrame, ...]
    referenced: tuple[str, ...]
    size: tuple[int, int]
    frame_of_reference: str


def is_segmentation(header: Dataset) -> bool:
    """Whether a file is a segmentation, which is no image of the patient."""
    return str(header.get("SOPClassUID", "")) in (SEGMENTATION, LABEL_MAP)


def read_segmentation_header(header: Dataset) -> SegmentationHeader:
    """What a header says; no pixel is decoded.

    Raises:
        UnreadableDicom: it does not say what its frames are.
    """
    codes = _segment_codes(header)
    planes = [one.plane for one in slices_of(_NOWHERE, header)]
    frames = tuple(_segmented_frames(header, codes, planes))
    named = {image for one in frames for image, _ in one.images}
    return SegmentationHeader(
        codes=tuple(dict.fromkeys(codes.values())),
        frames=frames,
        referenced=tuple(sorted({*_referenced_images(header), *named})),
        size=guarded(Reason.IMPLAUSIBLE_HEADER, lambda: (int(header.Rows), int(header.Columns))),
        frame_of_reference=str(header.get("FrameOfReferenceUID", "")),
    )


def _segmented_frames(header: Dataset, codes: dict[int, str], planes: list[Plane | None]) -> Iterator[SegmentedFrame]:
    labels = str(header.get("SegmentationType", "")) == "LABELMAP" or str(header.get("SOPClassUID", "")) == LABEL_MAP
    least = 0.0 if labels else _least_value(header)
    for number in range(number_of_frames(header)):
        images = _images(header, number)
        if labels:  # a pixel's value is the number of its segment (C.8.20.2.3.3)
            yield from (
                SegmentedFrame(number, code, images, least=segment - 0.5, most=segment + 0.5, plane=planes[number])
                for segment, code in codes.items()
            )
            continue
        segment = _segment(header, number)
        if segment not in codes:
            raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"frame {number} is of segment {segment}, not described")
        yield SegmentedFrame(number, codes[segment], images, least=least, most=_UNBOUNDED, plane=planes[number])


def _least_value(header: Dataset) -> float:
    """The least value of a marked pixel: a fractional segmentation marks what is more likely present than not."""
    return guarded(Reason.IMPLAUSIBLE_HEADER, lambda: 0.5 * float(header.get("MaximumFractionalValue") or 1))


def _segment_codes(header: Dataset) -> dict[int, str]:
    """Scheme and value of each segment's type, by its number."""

    def read() -> dict[int, str]:
        types = {
            int(segment.SegmentNumber): segment.SegmentedPropertyTypeCodeSequence[0]
            for segment in header.SegmentSequence
            if segment.get("SegmentedPropertyTypeCodeSequence")
        }
        return {number: f"{code.CodingSchemeDesignator}:{code.CodeValue}" for number, code in types.items()}

    return guarded(Reason.IMPLAUSIBLE_HEADER, read)


def _referenced_images(header: Dataset) -> list[str]:
    """SOPInstanceUIDs of the Common Instance Reference module (C.12.2): also of images without a mark."""

    def read() -> list[str]:
        series = header.get("ReferencedSeriesSequence") or ()
        return [str(i.ReferencedSOPInstanceUID) for one in series for i in one.get("ReferencedInstanceSequence") or ()]

    return guarded(Reason.IMPLAUSIBLE_HEADER, read)


def _segment(header: Dataset, frame: int) -> int:
    which = group_item(header, frame, "SegmentIdentificationSequence")
    if which is None:
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"frame {frame} has no SegmentIdentificationSequence")
    return guarded(Reason.IMPLAUSIBLE_HEADER, lambda: int(which.ReferencedSegmentNumber))


def _images(header: Dataset, frame: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The images that a frame was derived from."""
    derived = group_item(header, frame, "DerivationImageSequence")

    def read() -> tuple[tuple[str, tuple[int, ...]], ...]:
        sources = () if derived is None else derived.get("SourceImageSequence") or ()
        return tuple((str(one.ReferencedSOPInstanceUID), _frame_numbers(one)) for one in sources)

    return guarded(Reason.IMPLAUSIBLE_HEADER, read)


def _frame_numbers(reference: Dataset) -> tuple[int, ...]:
    numbers = reference.get("ReferencedFrameNumber")
    if numbers is None or numbers == "":
        return ()
    return tuple(int(n) - 1 for n in (numbers if isinstance(numbers, MultiValue) else [numbers]))
