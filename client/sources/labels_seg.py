"""Labels from DICOM segmentations (PS3.3 A.51): which findings were outlined on which image.

Each frame of a segmentation belongs to one segment and to the images that it was derived from (PS3.3 C.8.20.2,
C.7.6.16.2.6). Frames are decoded in processes of their own, like all DICOM pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset

from client.decoding import Decoder
from client.dicom import number_of_frames, read_header
from client.pixels.groups import group_item
from client.pixels.refusal import Reason, UnreadableDicom, guarded
from client.sources.settings import SegmentationLabels

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_NOT_MEANT = (Reason.NOT_DICOM, Reason.NO_PIXEL_DATA)  # the folder may hold anything


def labels_of_segmentations(
    source: SegmentationLabels, files: list[Path], left_out: Counter[str]
) -> Iterator[tuple[str, int]]:
    """SOPInstanceUID and label of each image on which a positive or a negative finding is outlined.

    An image that a segmentation refers to without marking a pixel of a listed finding is negative where
    ``empty_is_negative``, else counted as ``SEGMENTED_WITHOUT_FINDING``. Also counted: ``SEGMENTATION_UNREADABLE``.
    """
    with Decoder() as decoder:
        for path in files:
            try:
                header = read_header(path)
                marked = findings_of(path, header, decoder) if is_segmentation(header) else {}
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
    """Codes of the findings with at least one marked pixel, by SOPInstanceUID of the image; no code where none has.

    Raises:
        UnreadableDicom: it cannot be decoded, or does not say what its frames are.
    """
    codes = guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _codes(header))
    found: dict[str, set[str]] = {}
    for image in guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _referenced(header)):
        found[image] = set()
    for frame in range(number_of_frames(header)):
        segment, images = _frame(header, frame)
        if segment not in codes:
            raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"frame {frame} is of segment {segment}, not described")
        # A fractional segmentation marks what is more likely there than not.
        values = decoder.read_values(path, frame).values
        limit = 0.5 * float(header.get("MaximumFractionalValue") or 1)
        for image in images:
            found.setdefault(image, set()).update({codes[segment]} if (values >= limit).any() else ())
    return found


def _codes(header: Dataset) -> dict[int, str]:
    """Scheme and value of each segment's type, by its number."""
    types = {int(s.SegmentNumber): s.SegmentedPropertyTypeCodeSequence[0] for s in header.SegmentSequence}
    return {number: f"{code.CodingSchemeDesignator}:{code.CodeValue}" for number, code in types.items()}


def _referenced(header: Dataset) -> list[str]:
    """Images of the Common Instance Reference module (C.12.2); frames without a mark may have been left out."""
    series = header.get("ReferencedSeriesSequence") or ()
    return [str(i.ReferencedSOPInstanceUID) for one in series for i in one.get("ReferencedInstanceSequence") or ()]


def _frame(header: Dataset, frame: int) -> tuple[int, list[str]]:
    """A frame's segment, and the images that it was derived from."""
    which = group_item(header, frame, "SegmentIdentificationSequence")
    derived = group_item(header, frame, "DerivationImageSequence")

    def read() -> tuple[int, list[str]]:
        if which is None:
            raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"frame {frame} has no SegmentIdentificationSequence")
        sources = () if derived is None else derived.get("SourceImageSequence") or ()
        return int(which.ReferencedSegmentNumber), [str(one.ReferencedSOPInstanceUID) for one in sources]

    return guarded(Reason.IMPLAUSIBLE_HEADER, read)
