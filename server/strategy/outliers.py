"""Which updates of a round need a look: they are named to people, and count all the same.

Only lengths (L2 norms) decide. An update far longer than its own noise explains and than the others' is an outlier; one
far shorter than its own noise would be was not computed as the study demands. A hospital that sends the opposite of
what it should, in the usual length, is not detected here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

_FAR = 3.0
_CLOSE_TO_ZERO = 0.25
_FEWEST = 3


@dataclass(frozen=True)
class UpdateLengths:
    """L2 norms of one update.

    Attributes:
        norm: as it arrived.
        noise: of its noise alone; 0 without privacy.
        counted: as it was added to the round's; shorter where excess noise would have been a lever.
    """

    norm: float
    noise: float
    counted: float


def conspicuous(updates: Mapping[str, UpdateLengths]) -> dict[str, str]:
    """What to tell people about each hospital's update; most are not mentioned."""
    remarks = {hospital: "; ".join(_remarks(hospital, updates)) for hospital in sorted(updates)}
    return {hospital: text for hospital, text in remarks.items() if text}


def _remarks(hospital: str, updates: Mapping[str, UpdateLengths]) -> Iterator[str]:
    update, others = updates[hospital], [other.norm for name, other in updates.items() if name != hospital]
    if not update.norm or (update.noise and update.norm < _CLOSE_TO_ZERO * update.noise):
        noise = f", its noise alone would have {update.noise:.2g}" if update.noise else ""
        yield f"its update is close to zero: norm {update.norm:.2g}{noise}"
    elif len(updates) >= _FEWEST and update.norm > _FAR * max(update.noise, usual := median(others)):
        noise = f", its noise alone {update.noise:.2g}" if update.noise else ""
        yield f"its update is an outlier: norm {update.norm:.2g}, the others' {usual:.2g}{noise}"
    if update.counted < update.norm and math.isfinite(update.norm):
        yield (
            f"its update was shortened to {update.counted / update.norm:.0%}: it has far more noise than the study's "
            "privacy needs"
        )
