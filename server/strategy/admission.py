"""Whether an update may touch the model at all: every reply is checked, before any strategy sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.strategy.strategy import LARGEST
from tasks.protocol.wire import Arrays

_SHOWN = 3
NOT_FINITE, TOO_FAR = "has values that are not finite", "which no converging training reaches"
"""What is said of updates of a training that has diverged."""


def unusable(update: Arrays, weights: Arrays) -> str:
    """Why an update must not touch the model ``weights``; empty if it may.

    One value that is not finite, or so large that a sum overflows, would make the whole model so; a tensor of another
    shape would be broadcast.
    """
    if other := sorted(update.keys() ^ weights.keys()):
        more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        return f"tensors {', '.join(name[:60] for name in other[:_SHOWN])}{more} are missing or unknown"
    for name, value in update.items():
        expected = weights[name]
        if value.shape != expected.shape or value.dtype != expected.dtype:
            return f"{name} is {value.dtype} {value.shape}, not {expected.dtype} {expected.shape}"
        if not np.isfinite(value).all():
            return f"{name} {NOT_FINITE}"
        if value.size and _reach(value, expected) > LARGEST:
            return f"{name} would bring values beyond {LARGEST:g} into the model, {TOO_FAR}"
    return ""


def _reach(update: NDArray[Any], value: NDArray[Any]) -> float:
    """The largest value of the hospital's own model."""
    with np.errstate(over="ignore"):
        reached = np.add(update, value)
    return float(np.abs(reached, out=reached).max())
