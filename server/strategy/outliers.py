"""Which updates of a round deserve a look: named to people, and counted all the same.

Lengths alone decide. One that is far longer than its own noise explains and than the others are stands out; one that
is far shorter than its own noise would be was not made as it should have been. A hospital that sends the opposite of
what it should, in the usual length, is not found here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

_FAR = 3.0
_NOTHING = 0.25
_FEWEST = 3


@dataclass(frozen=True)
class Sent:
    """Lengths of an update as it came.

    Attributes:
        norm: its own.
        noise: that of its noise alone; 0 without privacy.
        counted: as it was folded in; shorter where its noise would have been a lever.
    """

    norm: float
    noise: float
    counted: float


def named(updates: Mapping[str, Sent]) -> dict[str, str]:
    """By hospital what there is to say of its update; most are not mentioned."""
    told = {name: "; ".join(_remarks(name, updates)) for name in sorted(updates)}
    return {name: text for name, text in told.items() if text}


def _remarks(name: str, updates: Mapping[str, Sent]) -> Iterator[str]:
    sent, others = updates[name], [other.norm for key, other in updates.items() if key != name]
    if not sent.norm or (sent.noise and sent.norm < _NOTHING * sent.noise):
        yield f"its update is nothing: length {sent.norm:.2g}" + (
            f", its noise alone would have {sent.noise:.2g}" if sent.noise else ""
        )
    elif len(updates) >= _FEWEST and sent.norm > _FAR * max(sent.noise, usual := median(others)):
        noise = f", its noise alone {sent.noise:.2g}" if sent.noise else ""
        yield f"its update stands out: length {sent.norm:.2g}, the others' {usual:.2g}{noise}"
    if sent.counted < sent.norm and math.isfinite(sent.norm):
        yield (
            f"its update was shortened to {sent.counted / sent.norm:.0%}: it has far more noise than the study's "
            "privacy needs"
        )
