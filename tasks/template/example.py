"""From a picture to the network's input.

Tested in ``tests/tasks/phantoms/template/test_phantom.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.imaging.frames import fitted_square, image_area
from tasks.task import Picture

SIDE = 64  # CHANGE: as small as the finding allows


def read_example(picture: Picture) -> NDArray[np.float32]:
    """The image area of the frame, scaled to fit a square, with black where the frame is not square.

    CHANGE: say why this and nothing else. It is the only transform before the cache; what it removes is lost.

    Args:
        picture: a frame of any size; pixels that are not square are made so when ``spacing_mm`` tells.

    Returns:
        float32 (1, 64, 64) in [0, 1]; the same bits for the same picture.
    """
    return fitted_square(image_area(picture), picture.spacing_mm, SIDE)
