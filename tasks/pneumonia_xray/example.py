"""From a chest X-ray picture to the network's input, at the resolution of PneumoniaMNIST.

Tested in ``tests/tasks/phantoms/pneumonia_xray/test_phantom.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.imaging.augmentation import of_pictures
from tasks.imaging.frames import central_square
from tasks.task import Picture

SIDE = 28

augment = of_pictures(mirrored=False, degrees=5.0)
"""The heart is on one side, so left and right stay where they are."""


def read_example(picture: Picture) -> NDArray[np.float32]:
    """The central square of the picture, made small.

    PneumoniaMNIST was made in this way, so a hospital's own X-rays and the public ones meet in the same form, and one
    of its images passes unchanged. What the crop takes off are arms, chin and belly, not lung.

    Args:
        picture: a frontal view of any size.

    Returns:
        float32 (1, 28, 28) in [0, 1]; the same bits for the same picture.
    """
    return central_square(picture.pixels, SIDE)
