"""From a picture of an apical view to the network's input, and its outlines to the same grid.

Tested in ``tests/tasks/phantoms/cardiac_ultrasound/test_phantom.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.imaging.augmentation import of_pictures
from tasks.imaging.frames import fitted_square, image_area, masks_from_square, masks_on
from tasks.task import Picture

SIDE = 128

augment = of_pictures(mirrored=True)
"""Laboratories differ in the side on which they show the left ventricle, so either is an image of a heart."""


def read_example(picture: Picture) -> NDArray[np.float32]:
    """The image area of the frame, scaled to fit a square, with black where the frame is not square.

    The whole sector stays: the atria lie at its lower edge, the right ventricle at its side. Proportions are kept, or a
    ventricle's shape would change with the scanner's pixels.

    Args:
        picture: a frame of any size; pixels that are not square are made so when ``spacing_mm`` tells.

    Returns:
        float32 (1, 128, 128) in [0, 1]; the same bits for the same picture.
    """
    return fitted_square(image_area(picture), picture.spacing_mm, SIDE)


read_masks = masks_on(read_example)
"""The structures' outlines on the grid of ``read_example``: bool (3, 128, 128)."""
place_masks = masks_from_square
"""The way back from ``read_masks``."""
