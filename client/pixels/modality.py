"""From stored to measured values: the Modality LUT (PS3.3 C.11.1), wherever the file has it.

Classic images have it at the top, enhanced ones in the Pixel Value Transformation macro of their functional groups
(C.7.6.16.2.9), RT Dose as DoseGridScaling (C.8.8.3). The VOI LUT (C.11.2) is a display preference and not read.

Tested in ``tests/client/reading/test_dicom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from client.pixels.groups import frame_value, group_item
from client.pixels.refusal import Reason, UnreadableDicom, guarded
from client.pixels.tables import look_up_modality

_CT = frozenset((CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage))
_EXACT_BITS = 24  # of a float32's significand


@dataclass(frozen=True)
class Rescale:
    """``measured = slope * stored + intercept``, in ``unit`` ("HU", "BQML", "GY"...; "" when the file does not say)."""

    slope: float = 1.0
    intercept: float = 0.0
    unit: str = ""


def read_rescale(header: Dataset, frame: int) -> Rescale:
    """The linear transformation of a frame; the identity if the file has none, or a table instead.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER, it is not finite, or its slope is 0.
    """
    if header.get("ModalityLUTSequence"):
        unit = str(header.ModalityLUTSequence[0].get("ModalityLUTType") or "")
        return Rescale(unit="" if unit == "US" else unit)  # US means unspecified (C.11.1.1.2)
    group = group_item(header, frame, "PixelValueTransformationSequence")
    rescale = guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _rescale(header, header if group is None else group))
    if rescale.slope == 0 or not isfinite(rescale.slope) or not isfinite(rescale.intercept):
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"RescaleSlope {rescale.slope}, intercept {rescale.intercept}")
    return rescale


class Hounsfield(StrEnum):
    """Whether a frame's values are Hounsfield units."""

    TOLD = "TOLD"
    OTHER_UNIT = "OTHER_UNIT"
    NOT_TOLD = "NOT_TOLD"
    """RescaleSlope or RescaleIntercept is missing, which a CT image must have (type 1, C.8.2.1): the values may be
    anything."""


def hounsfield(header: Dataset, frame: int = 0) -> Hounsfield:
    """What the file says of a frame's values: the same transformation that ``measured`` applies.

    Raises:
        UnreadableDicom: see ``read_rescale``.
    """
    unit, table = read_rescale(header, frame).unit, bool(header.get("ModalityLUTSequence"))
    linear = (frame_value(header, frame, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if not table and any(value in (None, "") for value in linear):
        return Hounsfield.NOT_TOLD
    # Whoever says nothing more of a CT image says HU; US is "unspecified" (C.11.1.1.2), which HU is not.
    return Hounsfield.TOLD if unit == "HU" else Hounsfield.OTHER_UNIT


def _rescale(header: Dataset, source: Dataset) -> Rescale:
    if header.get("Modality") == "RTDOSE" and header.get("DoseGridScaling") not in (None, ""):
        return Rescale(float(header.DoseGridScaling), 0.0, str(header.get("DoseUnits") or ""))
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    unit = str(source.get("RescaleType") or header.get("Units") or "").strip()
    told = slope not in (None, "") and intercept not in (None, "")
    if not unit and told and header.get("SOPClassUID") in _CT:
        unit = "HU"  # a CT image may leave out RescaleType if it is HU (table C.8-3), but not slope and intercept
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
