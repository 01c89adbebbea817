"""Functional groups of enhanced multi-frame images: what holds for one frame or for all of them (PS3.3 C.7.6.16).

Tested in ``tests/client/reading/test_dicom.py``.
"""

from __future__ import annotations

from typing import Any

from pydicom import Dataset

from client.pixels.refusal import Reason, guarded

_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
_PLACES: dict[str, tuple[tuple[str, str], ...]] = {
    "ImageType": tuple((macro, "FrameType") for macro in _FRAME_TYPES),
    "ComplexImageComponent": tuple((macro, "ComplexImageComponent") for macro in _FRAME_TYPES),
    "SliceThickness": (("PixelMeasuresSequence", "SliceThickness"),),
    "SpacingBetweenSlices": (("PixelMeasuresSequence", "SpacingBetweenSlices"),),
    "RescaleSlope": (("PixelValueTransformationSequence", "RescaleSlope"),),
    "RescaleIntercept": (("PixelValueTransformationSequence", "RescaleIntercept"),),
    "RescaleType": (("PixelValueTransformationSequence", "RescaleType"),),
    "EchoTime": (("MREchoSequence", "EffectiveEchoTime"),),
    "RepetitionTime": (("MRTimingAndRelatedParametersSequence", "RepetitionTime"),),
    "InversionTime": (("MRModifierSequence", "InversionTimes"),),
    "AnatomicRegionSequence": (("FrameAnatomySequence", "AnatomicRegionSequence"),),
    "ImageLaterality": (("FrameAnatomySequence", "FrameLaterality"),),
}
"""Where enhanced images have what classic ones have at the top (PS3.3 C.7.6.16.2, C.8.13.5, C.8.15.3.1)."""


def frame_value(header: Dataset, frame: int, keyword: str) -> Any:
    """A value that holds for one frame, from its functional groups if they have it; ``None`` where it is absent.

    Args:
        keyword: as classic images have it at the top, such as ``SliceThickness``.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER, the sequences cannot be parsed.
    """
    for macro, inside in _PLACES.get(keyword, ()) if is_enhanced(header) else ():
        item = group_item(header, frame, macro)
        if item is not None and item.get(inside) not in (None, ""):
            return item.get(inside)
    return header.get(keyword)


def moves(keyword: str) -> bool:
    """Whether enhanced images may have this attribute in their functional groups."""
    return keyword in _PLACES


def is_enhanced(header: Dataset) -> bool:
    """Whether frames have functional groups."""
    return "SharedFunctionalGroupsSequence" in header or "PerFrameFunctionalGroupsSequence" in header


def group_item(header: Dataset, frame: int, macro: str) -> Dataset | None:
    """The item of a functional group macro for a frame: its own, else the shared one, else ``None``.

    ``macro`` is the keyword of the macro's sequence, for instance "PixelMeasuresSequence".

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER, the sequences cannot be parsed.
    """

    def find() -> Dataset | None:
        own = header.get("PerFrameFunctionalGroupsSequence") or ()
        shared = header.get("SharedFunctionalGroupsSequence") or ()
        for groups in ([own[frame]] if frame < len(own) else [], shared[:1]):
            for group in groups:
                if items := group.get(macro):
                    item: Dataset = items[0]
                    return item
        return None

    return guarded(Reason.IMPLAUSIBLE_HEADER, find)
