"""Labels from DICOM segmentations (PS3.3 A.51): the findings outlined on each image.

Each frame of a segmentation belongs to one segment and to the images that it was derived from (PS3.3 C.8.20.2,
C.7.6.16.2.6). Frames are decoded in separate processes, like all DICOM pixels.

Tested in ``tests/client/sources/labels/test_annotations.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue

from client.pixels.groups import group_item
from client.pixels.pixel_format import number_of_frames
from client.pixels.refusal import Reason, UnreadableDicom, guarded
from client.reading.decoding import Decoder
from client.reading.dicom import Measured, read_header
from client.sources.labels.own import is_own
from client.sources.record import Unreadable
from client.sources.settings import SegmentationLabels
from tasks.task import Structure

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
OWN = "SEGMENTATION_OF_CONSILIUM"
_NOT_MEANT = (Reason.NOT_DICOM, Reason.NO_PIXEL_DATA)  # the folder may hold anything


def labels_of_segmentations(
    source: SegmentationLabels, files: list[Path], left_out: Counter[str]
) -> Iterator[tuple[str, int]]:
    """SOPInstanceUID and label of each image on which a positive or a negative finding is outlined.

    An image that a segmentation refers to without marking a pixel of a listed finding is negative where
    ``empty_is_negative``, else counted as ``SEGMENTED_WITHOUT_FINDING``. Also counted: ``SEGMENTATION_UNREADABLE``,
    ``SEGMENTATION_OF_CONSILIUM``.
    """
    with Decoder() as decoder:
        for path in files:
            try:
                header = read_header(path)
                if not is_segmentation(header):
                    continue
                if is_own(header):
                    left_out[OWN] += 1
                    continue
                marked = findings_of(path, header, decoder)
            except UnreadableDicom as error:
                left_out["SEGMENTATION_UNREADABLE"] += error.reason not in _NOT_MEANT
                continue
            for image, codes in marked.items():
                told = [(1, source.positive), (0, source.negative)]
                labels = [label for label, listed in told if codes & set(listed)]
                if not labels and source.empty_is_negative:
                    labels = [0]
                left_out["SEGMENTED_WITHOUT_FINDING"] += not labels
                yield from ((image, label) for label in labels)


def is_segmentation(header: Dataset) -> bool:
    """Whether a file is a segmentation, which is no image of the patient."""
    return str(header.get("SOPClassUID", "")) == SEGMENTATION


def findings_of(path: Path, header: Dataset, decoder: Decoder) -> dict[str, set[str]]:
    """Codes of the findings with at least one marked pixel, by SOPInstanceUID of the image; none if nothing is marked.

    Raises:
        UnreadableDicom: it cannot be decoded, or does not say what its frames are.
    """
    found: dict[str, set[str]] = {image: set() for image in referenced_images(header)}
    limit = least_value(header)
    for frame in segmented_frames(header):
        marked = bool((decoder.read_values(path, frame.number).values >= limit).any())
        for image, _ in frame.images:
            found.setdefault(image, set()).update({frame.code} if marked else ())
    return found


@dataclass(frozen=True)
class SegmentedFrame:
    """One frame of a segmentation.

    Attributes:
        number: from 0.
        code: scheme and value of its segment's type, such as ``SCT:86049000``.
        images: SOPInstanceUIDs of what it was derived from, each with the numbers of the frames, from 0; none of an
            image with one frame, or where it was derived from all.
    """

    number: int
    code: str
    images: tuple[tuple[str, tuple[int, ...]], ...]


def segmented_frames(header: Dataset) -> list[SegmentedFrame]:
    """All frames of a segmentation.

    Raises:
        UnreadableDicom: it does not say what its frames are.
    """
    codes = segment_codes(header)
    frames = []
    for number in range(number_of_frames(header)):
        segment, images = _frame(header, number)
        if segment not in codes:
            raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"frame {number} is of segment {segment}, not described")
        frames.append(SegmentedFrame(number, codes[segment], images))
    return frames


def least_value(header: Dataset) -> float:
    """The least value of a marked pixel: a fractional segmentation marks what is more likely present than not."""
    return guarded(Reason.IMPLAUSIBLE_HEADER, lambda: 0.5 * float(header.get("MaximumFractionalValue") or 1))


def mask_of(path: Path, frame: int, least: float, values: Callable[[Path, int], Measured]) -> NDArray[np.bool_]:
    """Which pixels a frame of a segmentation marks, bool (rows, columns).

    Args:
        least: see ``least_value``.
        values: decodes a frame, such as ``Decoder.read_values``.

    Raises:
        Unreadable: SEGMENTATION_UNREADABLE.
    """
    try:
        return np.asarray(values(path, frame).values >= least)
    except UnreadableDicom as error:
        raise Unreadable("SEGMENTATION_UNREADABLE", f"{path} frame {frame}: {error}") from error


def codes_of(structures: Sequence[Structure]) -> list[str]:
    """Scheme and value of each structure's code, as ``segment_codes`` writes them."""
    return [f"{one.code.scheme}:{one.code.value}" for one in structures]


def segment_codes(header: Dataset) -> dict[int, str]:
    """Scheme and value of each segment's type, by its number.

    Raises:
        UnreadableDicom: a segment does not tell.
    """

    def read() -> dict[int, str]:
        types = {int(s.SegmentNumber): s.SegmentedPropertyTypeCodeSequence[0] for s in header.SegmentSequence}
        return {number: f"{code.CodingSchemeDesignator}:{code.CodeValue}" for number, code in types.items()}

    return guarded(Reason.IMPLAUSIBLE_HEADER, read)


def referenced_images(header: Dataset) -> list[str]:
    """SOPInstanceUIDs of the Common Instance Reference module (C.12.2); frames without a mark may have been left out.

    Raises:
        UnreadableDicom: they cannot be parsed.
    """

    def read() -> list[str]:
        series = header.get("ReferencedSeriesSequence") or ()
        return [str(i.ReferencedSOPInstanceUID) for one in series for i in one.get("ReferencedInstanceSequence") or ()]

    return guarded(Reason.IMPLAUSIBLE_HEADER, read)


def _frame(header: Dataset, frame: int) -> tuple[int, tuple[tuple[str, tuple[int, ...]], ...]]:
    """A frame's segment, and the images that it was derived from."""
    which = group_item(header, frame, "SegmentIdentificationSequence")
    derived = group_item(header, frame, "DerivationImageSequence")

    def read() -> tuple[int, tuple[tuple[str, tuple[int, ...]], ...]]:
        if which is None:
            raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"frame {frame} has no SegmentIdentificationSequence")
        sources = () if derived is None else derived.get("SourceImageSequence") or ()
        return int(which.ReferencedSegmentNumber), tuple(
            (str(one.ReferencedSOPInstanceUID), _frame_numbers(one)) for one in sources
        )

    return guarded(Reason.IMPLAUSIBLE_HEADER, read)


def _frame_numbers(reference: Dataset) -> tuple[int, ...]:
    numbers = reference.get("ReferencedFrameNumber")
    if numbers is None or numbers == "":
        return ()
    return tuple(int(n) - 1 for n in (numbers if isinstance(numbers, MultiValue) else [numbers]))
