"""From a breast ultrasound picture to the network's input."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate, pad

from tasks.task import Box, Picture

SIDE = 128


def read_example(picture: Picture) -> NDArray[np.float32]:
    """The image area of the frame, scaled to fit a square, with black where the frame is not square.

    Proportions are kept because "taller than wide" is itself a sign of malignancy, which stretching would forge. The
    missing part is padded rather than cropped away: the shadow at the lower edge is a sign as well. Black is what a
    scanner shows where it has not looked. The resize is antialiased; plain sampling would turn speckle into noise.

    Args:
        picture: a frame of any size; pixels that are not square are made so when ``spacing_mm`` tells.

    Returns:
        float32 (1, 128, 128) in [0, 1]; the same bits for the same picture.
    """
    pixels = np.ascontiguousarray(_image_area(picture), dtype=np.float32)
    rows, columns = _fitted_size(pixels.shape[0], pixels.shape[1], picture.spacing_mm or (1.0, 1.0))
    small = interpolate(
        torch.from_numpy(pixels)[None, None], size=(rows, columns), mode="bilinear", antialias=True, align_corners=False
    )
    top, left = (SIDE - rows) // 2, (SIDE - columns) // 2
    square = pad(small, (left, SIDE - columns - left, top, SIDE - rows - top))
    return np.asarray(square[0].clamp(0, 1).numpy(), dtype=np.float32)


def _image_area(picture: Picture) -> NDArray[np.float32]:
    """The largest ultrasound region: a second one is a trace or a thumbnail, and around them stand burned-in texts."""
    if not picture.regions:
        return picture.pixels
    left, top, right, bottom = max(picture.regions, key=_area)
    return picture.pixels[top:bottom, left:right]


def _area(box: Box) -> int:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _fitted_size(rows: int, columns: int, spacing_mm: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of the image when its longer physical side fills the square."""
    height, width = rows * spacing_mm[0], columns * spacing_mm[1]
    scale = SIDE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
