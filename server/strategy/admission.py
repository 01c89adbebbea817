"""Whether an update may touch the model at all: asked of every reply, before any strategy sees it."""

from __future__ import annotations

import numpy as np

from tasks.wire import Arrays

LARGEST = 1e6
"""Training that converges moves no weight so far in one round; from there no later round would come back."""


def unusable(update: Arrays, weights: Arrays) -> str:
    """Why an update must not touch the model ``weights``; empty if it may.

    One value that is not finite, or so large that a sum overflows, would make the whole model so; a tensor of another
    shape would be broadcast.
    """
    if update.keys() != weights.keys():
        return f"tensors {sorted(update.keys() ^ weights.keys())} are missing or unknown"
    for name, value in update.items():
        expected = weights[name]
        if value.shape != expected.shape or value.dtype != expected.dtype:
            return f"{name} is {value.dtype} {value.shape}, not {expected.dtype} {expected.shape}"
        if not np.isfinite(value).all():
            return f"{name} has values that are not finite"
        if value.size and np.abs(value).max() > LARGEST:
            return f"{name} has values beyond {LARGEST:g}"
    return ""
