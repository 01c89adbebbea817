"""What a series says of itself, as far as it tells which of a task's sequences it is.

Tested in ``tests/tasks/brain_mr/test_sequences.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_LONGEST = 64  # LO (PS3.5 table 6.2-1); whoever writes more shall not occupy a regular expression for long


@dataclass(frozen=True)
class Series:
    """Attributes of a series.

    Attributes:
        description: SeriesDescription.
        image_type: ImageType, or an enhanced image's FrameType, in capitals.
        contrast_agent: ContrastBolusAgent; "" if none is written down, which does not mean that none was given.
        echo_time_ms, repetition_time_ms, inversion_time_ms: EchoTime, RepetitionTime, InversionTime; ``None`` where
            they are not written down.
    """

    description: str = ""
    image_type: tuple[str, ...] = ()
    contrast_agent: str = ""
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None


def series_of(texts: Mapping[str, str]) -> Series:
    """From the texts of a header by keyword, values with backslashes between; what cannot be read is absent."""
    return Series(
        description=texts.get("SeriesDescription", "").strip()[:_LONGEST],
        image_type=tuple(part.strip().upper() for part in texts.get("ImageType", "").split("\\")),
        contrast_agent=texts.get("ContrastBolusAgent", "").strip(),
        echo_time_ms=_number(texts.get("EchoTime", "")),
        repetition_time_ms=_number(texts.get("RepetitionTime", "")),
        inversion_time_ms=_number(texts.get("InversionTime", "")),
    )


def _number(text: str) -> float | None:
    """The first value of a text."""
    try:
        value = float(text.partition("\\")[0])
    except ValueError:
        return None
    return value if math.isfinite(value) else None
