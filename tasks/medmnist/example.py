"""From an image or a volume of a MedMNIST archive to the network's input, at the set's own small size.

Tested in ``tests/tasks/medmnist/test_tasks.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from tasks.imaging.augmentation import of_pictures
from tasks.imaging.frames import central_square
from tasks.imaging.volumes import NoExample
from tasks.task import Picture, Scan

SIDE = 28
VOLUME = "volume"
"""The sequence of a volume."""

augment = of_pictures(mirrored=False)


def reader_of(colours: int) -> Callable[[Picture], NDArray[np.float32]]:
    """The transform of images with so many colours."""

    def read_example(picture: Picture) -> NDArray[np.float32]:
        """Each colour, of 28 x 28 pixels as it is, of larger ones made small.

        Args:
            picture: red with green and blue beside it, or grey.

        Returns:
            float32 (colours, 28, 28) in [0, 1].

        Raises:
            NoExample: WRONG_COLOURS, it has more colours or fewer.
        """
        planes = (picture.pixels, *picture.beside)
        if len(planes) != colours:
            raise NoExample("WRONG_COLOURS", f"{len(planes)} colours, not {colours}")
        return np.concatenate([central_square(plane, SIDE) for plane in planes])

    return read_example


def read_volume(scan: Scan) -> NDArray[np.float32]:
    """A volume, of 28 voxels along each axis as it is, of more made small.

    Returns:
        float32 (1, 28, 28, 28) in [0, 1].
    """
    values = torch.from_numpy(np.ascontiguousarray(scan.volumes[VOLUME].values, dtype=np.float32))
    small = interpolate(values[None, None], size=(SIDE,) * 3, mode="area")
    return np.asarray(small[0].clamp(0, 1).numpy(), dtype=np.float32)
