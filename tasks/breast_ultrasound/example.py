"""From a breast ultrasound picture to the network's input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.imaging.augmentation import of_pictures
from tasks.imaging.frames import fitted_square, image_area, masks_from_square, masks_on
from tasks.task import Picture

SIDE = 128

augment = of_pictures(mirrored=True)
"""Left and right carry no meaning in a breast lesion; up and down do, as shadows fall downwards."""


def read_example(picture: Picture) -> NDArray[np.float32]:
    """The image area of the frame, scaled to fit a square, with black where the frame is not square.

    Proportions are kept because "taller than wide" is itself a sign of malignancy, which stretching would fake. The
    missing part is padded rather than cropped away: the shadow at the lower edge is a sign as well. Black is what a
    scanner shows where it has not looked.

    Args:
        picture: a frame of any size; pixels that are not square are made so when ``spacing_mm`` tells.

    Returns:
        float32 (1, 128, 128) in [0, 1]; the same bits for the same picture.
    """
    return fitted_square(image_area(picture), picture.spacing_mm, SIDE)


read_masks = masks_on(read_example)
"""The lesion's outline on the grid of ``read_example``: bool (1, 128, 128)."""
place_masks = masks_from_square
"""The way back from ``read_masks``."""
