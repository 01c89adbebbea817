"""Pixels with which a scanner or a program filled up what it has not imaged (PS3.3 C.7.5.1.1.2).

Tested in ``tests/client/reading/test_volume.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from client.pixels.pixel_format import PixelFormat
from client.pixels.refusal import Reason, guarded
from client.pixels.stored import StoredValues

_FLOATING = {32: "FloatPixelPadding", 64: "DoubleFloatPixelPadding"}


def padding(stored: StoredValues, header: Dataset, form: PixelFormat) -> NDArray[np.bool_] | None:
    """Where stored values are padding: from PixelPaddingValue to PixelPaddingRangeLimit, both included, in either
    order; ``None`` where nothing is.

    Args:
        stored: of one frame of one sample a pixel.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER, they are no numbers.
    """
    name = _FLOATING[form.bits_allocated] if form.floating else "PixelPadding"
    value, limit = (_number(header, f"{name}{which}") for which in ("Value", "RangeLimit"))
    if value is None:
        return None
    bounds = [one if form.floating else _as_stored(one, form) for one in (value, value if limit is None else limit)]
    padded = np.asarray((stored >= min(bounds)) & (stored <= max(bounds)))
    return padded if padded.any() else None


def _number(header: Dataset, keyword: str) -> float | None:
    def read() -> float | None:
        value = header.get(keyword)
        return None if value in (None, "") else float(value)

    return guarded(Reason.IMPLAUSIBLE_HEADER, read)


def _as_stored(value: float, form: PixelFormat) -> float:
    """Many files have -2000 as 63536, under the wrong of the two value representations (US or SS)."""
    span = 1 << form.bits_allocated
    if form.signed and value > form.high:
        return value - span
    return value + span if not form.signed and value < 0 else value
