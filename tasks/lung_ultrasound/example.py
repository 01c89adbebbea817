"""From a lung ultrasound picture to the network's input.

Tested in ``tests/tasks/phantoms/lung_ultrasound/test_phantom.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.imaging.augmentation import of_pictures
from tasks.imaging.frames import fitted_square, image_area
from tasks.task import Picture

SIDE = 128

augment = of_pictures(mirrored=True)
"""Left and right of a view mean nothing; up and down do, as artefacts lie behind what makes them."""


def read_example(picture: Picture) -> NDArray[np.float32]:
    """The image area of the frame, scaled to fit a square, with black where the frame is not square.

    Nothing is cropped: a B-line is one only if it reaches the lower edge, and A-lines are told by their distance, which
    stretching would change. The sector of a convex probe stays a sector; B-lines fan out in it as a reader knows them.

    Args:
        picture: a still or one frame of a clip, of any size; pixels that are not square are made so when ``spacing_mm``
            tells.

    Returns:
        float32 (1, 128, 128) in [0, 1]; the same bits for the same picture.
    """
    return fitted_square(image_area(picture), picture.spacing_mm, SIDE)
