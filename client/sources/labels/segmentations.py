"""Labels from DICOM segmentations (PS3.3 A.51): the findings outlined on each image.

Each frame of a segmentation belongs to one segment and to the images that it was derived from (PS3.3 C.8.20.2,
C.7.6.16.2.6); of a segmentation by labels, to each. Headers and frames are read in separate processes, like all DICOM.

Tested in ``tests/client/sources/labels/test_annotations.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.pixels.refusal import Reason, UnreadableDicom
from client.reading.decoding import Decoder
from client.reading.dicom import Measured
from client.reading.segments import SegmentationHeader, SegmentedFrame
from client.sources.headers import FileHeader, plain_headers
from client.sources.record import Unreadable
from client.sources.settings import SegmentationLabels
from tasks.task import Structure

OWN = "SEGMENTATION_OF_CONSILIUM"
_NOT_MEANT = (Reason.NOT_DICOM, Reason.NO_PIXEL_DATA, Reason.RT_STRUCTURE_SET)  # the folder may hold anything


def labels_of_segmentations(
    source: SegmentationLabels, files: list[Path], left_out: Counter[str]
) -> Iterator[tuple[str, int]]:
    """SOPInstanceUID and label of each image on which a positive or a negative finding is outlined.

    An image that a segmentation refers to without marking a pixel of a listed finding is negative where
    ``empty_is_negative``, else counted as ``SEGMENTED_WITHOUT_FINDING``. Also counted: ``SEGMENTATION_UNREADABLE``,
    ``SEGMENTATION_OF_CONSILIUM``.
    """
    with Decoder() as decoder:
        for path, header in plain_headers(files):
            try:
                segmentation = _segmentation(header, left_out)
                marked = {} if segmentation is None else findings_of(path, segmentation, decoder)
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


def _segmentation(header: FileHeader | UnreadableDicom, left_out: Counter[str]) -> SegmentationHeader | None:
    if isinstance(header, UnreadableDicom):
        raise header
    if header.segmentation is None and header.is_segmentation:
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, "its segments are not described")
    left_out[OWN] += header.is_segmentation and header.own
    return None if header.own else header.segmentation


def findings_of(path: Path, segmentation: SegmentationHeader, decoder: Decoder) -> dict[str, set[str]]:
    """Codes of the findings with at least one marked pixel, by SOPInstanceUID of the image; none if nothing is marked.

    Raises:
        UnreadableDicom: it cannot be decoded.
    """
    found: dict[str, set[str]] = {image: set() for image in segmentation.referenced}
    for frame in segmentation.frames:
        values = decoder.read_values(path, frame.number).values
        marked = bool(((values >= frame.least) & (values <= frame.most)).any())
        for image, _ in frame.images:
            found.setdefault(image, set()).update({frame.code} if marked else ())
    return found


def mask_of(path: Path, frame: SegmentedFrame, values: Callable[[Path, int], Measured]) -> NDArray[np.bool_]:
    """Which pixels a frame of a segmentation marks of its segment, bool (rows, columns).

    Args:
        values: decodes a frame, such as ``Decoder.read_values``.

    Raises:
        Unreadable: SEGMENTATION_UNREADABLE.
    """
    try:
        found = values(path, frame.number).values
    except UnreadableDicom as error:
        raise Unreadable("SEGMENTATION_UNREADABLE", f"{path} frame {frame.number}: {error}") from error
    return np.asarray((found >= frame.least) & (found <= frame.most))


def codes_of(structures: Sequence[Structure]) -> list[str]:
    """Scheme and value of each structure's code, as ``SegmentedFrame`` writes them."""
    return [f"{one.code.scheme}:{one.code.value}" for one in structures]
