"""From a chest X-ray picture to the network's input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.imaging.augmentation import of_pictures
from tasks.imaging.frames import fitted_square
from tasks.task import Picture

SIDE = 128
_TAILS = (1.0, 99.0)

augment = of_pictures(mirrored=False, degrees=5.0)
"""The heart is on one side, so left and right stay where they are."""


def read_example(picture: Picture) -> NDArray[np.float32]:
    """The whole picture between its first and last percentile of grey, scaled to fit a square, black beside it.

    A maker's processing leaves images in any part of the range that the bits allow, and a collimator's edge or a lead
    letter at its end; between the percentiles most of that is gone. Proportions are kept, as the heart's width to the
    chest's is a sign. Nothing is cropped: fluid collects in the lowest corners.

    Args:
        picture: a frontal view of any size, bone bright.

    Returns:
        float32 (1, 128, 128) in [0, 1]; the same bits for the same picture.
    """
    low, high = (np.float32(value) for value in np.percentile(picture.pixels, _TAILS))
    spread = (picture.pixels - low) / max(high - low, np.float32(1e-6))
    return fitted_square(spread.clip(0, 1), picture.spacing_mm, SIDE)
