"""From a clip of an apical view to the network's input: its first and its last frame, as two channels.

Tested in ``tests/tasks/phantoms/ejection_fraction/test_phantom.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.cardiac_ultrasound.example import read_example as read_frame
from tasks.imaging.frames import moments_of
from tasks.task import Picture

MOMENTS = ("end of diastole", "end of systole")


def read_example(picture: Picture) -> NDArray[np.float32]:
    """Each moment as ``cardiac_ultrasound`` has a still: the whole sector in its proportions.

    Both are on the same grid, so that what differs between the channels has moved.

    Args:
        picture: the first frame of a clip with the last one beside it, of any size.

    Returns:
        float32 (2, 128, 128) in [0, 1]; the same bits for the same picture.

    Raises:
        NoExample: TOO_FEW_FRAMES, nothing is beside it.
    """
    return np.concatenate([read_frame(moment) for moment in moments_of(picture, MOMENTS)])
