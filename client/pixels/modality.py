"""From stored to measured values: the Modality LUT (PS3.3 C.11.1), wherever the file has it.

Classic images have it at the top, enhanced ones in the Pixel Value Transformation macro of their functional groups
(C.7.6.16.2.9), RT Dose as DoseGridScaling (C.8.8.3). The VOI LUT (C.11.2) is a display preference; it can be read here
and is never applied.

Tested in ``tests/client/reading/test_dicom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from client.pixels.groups import group_item
from client.pixels.refusal import Reason, UnreadableDicom, guarded
from client.pixels.tables import look_up_modality

_EXACT_BITS = 24  # of a float32's significand


@dataclass(frozen=True)
class Rescale:
    """``measured = slope * stored + intercept``, in ``unit`` ("HU", "BQML", "GY"...; "" when the file does not say)."""

    slope: float = 1.0
    intercept: float = 0.0
    unit: str = ""


@dataclass(frozen=True)
class Window:
    """A display window: values from about centre - width/2 to centre + width/2 (PS3.3 C.11.2.1.2).

    ``function`` is LINEAR, LINEAR_EXACT or SIGMOID; centre and width are in units of the measured values.
    """

    centre: float
    width: float
    function: str = "LINEAR"
    explanation: str = ""


def read_rescale(header: Dataset, frame: int) -> Rescale:
    """The linear transformation of a frame; the identity if the file has none, or a table instead.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER, it is not finite, or its slope is 0.
    """
    if header.get("ModalityLUTSequence"):
        unit = str(header.ModalityLUTSequence[0].get("ModalityLUTType") or "")
        return Rescale(unit="" if unit == "US" else unit)  # US means unspecified (C.11.1.1.2)
    group = group_item(header, frame, "PixelValueTransformationSequence")
    found = guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _rescale(header, header if group is None else group))
    if found.slope == 0 or not isfinite(found.slope) or not isfinite(found.intercept):
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"RescaleSlope {found.slope}, intercept {found.intercept}")
    return found


def _rescale(header: Dataset, source: Dataset) -> Rescale:
    if header.get("Modality") == "RTDOSE" and header.get("DoseGridScaling") not in (None, ""):
        return Rescale(float(header.DoseGridScaling), 0.0, str(header.get("DoseUnits") or ""))
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    unit = str(source.get("RescaleType") or header.get("Units") or "")
    if not unit and header.get("SOPClassUID") == CTImageStorage:
        unit = "HU"  # a CT image may leave out RescaleType if it is HU (table C.8-3)
    return Rescale(
        1.0 if slope in (None, "") else float(slope),
        0.0 if intercept in (None, "") else float(intercept),
        "" if unit == "US" else unit,
    )


def measured(stored: NDArray[Any], header: Dataset, rescale: Rescale, bits_stored: int) -> NDArray[Any]:
    """Output of the Modality LUT: float32, or float64 where float32 would round stored values.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER, the table is damaged.
    """
    if header.get("ModalityLUTSequence"):
        return look_up_modality(stored, header)[0].astype(np.float32)
    exact = stored.astype(np.float64) * rescale.slope + rescale.intercept
    return exact if bits_stored > _EXACT_BITS else exact.astype(np.float32)


def read_windows(header: Dataset, frame: int = 0) -> tuple[Window, ...]:
    """The windows that the file proposes for a frame, the preferred one first. They are not applied.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER.
    """
    group = group_item(header, frame, "FrameVOILUTSequence")
    return guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _windows(header if group is None else group))


def _windows(source: Dataset) -> tuple[Window, ...]:
    centres, widths = _several(source, "WindowCenter"), _several(source, "WindowWidth")
    words = _several(source, "WindowCenterWidthExplanation")
    function = str(source.get("VOILUTFunction") or "LINEAR")
    return tuple(
        Window(float(centre), float(width), function, str(words[i]) if i < len(words) else "")
        for i, (centre, width) in enumerate(zip(centres, widths, strict=False))
    )


def _several(source: Dataset, keyword: str) -> list[Any]:
    value = source.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | float | int) else list(value)
