"""From a frame to a square image: what the tasks' ``read_example`` share. The resize is antialiased; plain sampling
would turn speckle into noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate, pad

from tasks.imaging.volumes import NoExample
from tasks.task import Box, Picture


def image_area(picture: Picture) -> NDArray[np.float32]:
    """The largest ultrasound region: a second one is a trace or a thumbnail, and around them is burned-in text."""
    left, top, right, bottom = _area_of(picture)
    return picture.pixels[top:bottom, left:right]


def _area_of(picture: Picture) -> Box:
    rows, columns = picture.pixels.shape
    return max(picture.regions, key=_area) if picture.regions else (0, 0, columns, rows)


def moments_of(picture: Picture, moments: tuple[str, ...]) -> list[Picture]:
    """The frames that were read together, each as a picture of its own, in the order of ``Task.moments``.

    Raises:
        NoExample: TOO_FEW_FRAMES, there are others than one for each moment.
    """
    planes = (picture.pixels, *picture.beside)
    if len(planes) != len(moments):
        raise NoExample("TOO_FEW_FRAMES", f"{len(planes)} read together, not one for each of {', '.join(moments)}")
    return [replace(picture, pixels=plane, beside=()) for plane in planes]


def fitted_square(
    pixels: NDArray[np.float32], spacing_mm: tuple[float, float] | None, side: int
) -> NDArray[np.float32]:
    """All of an image in its proportions, its longer physical side filling a square, with black beside it.

    Args:
        pixels: float32 (rows, columns) in [0, 1].
        spacing_mm: size of a pixel along rows and columns; ``None`` takes pixels to be square.
        side: rows and columns of the square.

    Returns:
        float32 (1, side, side) in [0, 1]; the same bits for the same pixels.
    """
    left, top, right, bottom = _fitted(pixels.shape, spacing_mm, side)
    small = _resized(pixels, bottom - top, right - left)
    square = pad(small, (left, side - right, top, side - bottom))
    return np.asarray(square[0].clamp(0, 1).numpy(), dtype=np.float32)


def central_square(pixels: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The largest central square of an image, resized: float32 (1, side, side) in [0, 1]."""
    least = min(pixels.shape)
    top, left = (pixels.shape[0] - least) // 2, (pixels.shape[1] - least) // 2
    small = _resized(pixels[top : top + least, left : left + least], side, side)
    return np.asarray(small[0].clamp(0, 1).numpy(), dtype=np.float32)


def masks_on(read_example: Callable[[Picture], NDArray[np.float32]]) -> Callable[[Picture], NDArray[np.bool_]]:
    """A task's ``read_masks``: masks on the grid of the example.

    For a transform that moves and resizes pixels and does not change their values. Each mask is transformed as the
    image is, antialiased; a pixel belongs to a structure that covers half of it.

    Args:
        read_example: from a picture to (1, side, side).

    Returns:
        From a picture with masks to bool (structures, side, side). It raises ``ValueError`` where the picture has none.
    """

    def read_masks(picture: Picture) -> NDArray[np.bool_]:
        if picture.masks is None:
            raise ValueError("the picture has no masks: nobody has outlined anything on it")
        moved = (read_example(replace(picture, pixels=mask.astype(np.float32)))[0] for mask in picture.masks)
        return np.stack([mask >= 0.5 for mask in moved])

    return read_masks


def masks_from_square(picture: Picture, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The inverse of ``fitted_square(image_area(picture), ...)``: masks on the square at their place on the picture.

    Args:
        masks: bool (structures, side, side).

    Returns:
        bool (structures, rows, columns) of the picture, nothing outside its image area; a pixel is marked where the
        mask, bilinear between the square's pixels, covers half of it.
    """
    left, top, right, bottom = _area_of(picture)
    rows, columns = bottom - top, right - left
    first_column, first_row, end_column, end_row = _fitted((rows, columns), picture.spacing_mm, masks.shape[-1])
    placed = np.zeros((len(masks), *picture.pixels.shape), dtype=np.bool_)
    for whole, mask in zip(placed, masks[:, first_row:end_row, first_column:end_column], strict=True):
        whole[top:bottom, left:right] = _resized(mask.astype(np.float32), rows, columns)[0, 0].numpy() >= 0.5
    return placed


def _resized(pixels: NDArray[np.float32], rows: int, columns: int) -> torch.Tensor:
    whole = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))[None, None]
    return interpolate(whole, size=(rows, columns), mode="bilinear", antialias=True, align_corners=False)


def _area(box: Box) -> int:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _fitted(shape: tuple[int, ...], spacing_mm: tuple[float, float] | None, side: int) -> Box:
    """Where an image lies in a square that its longer physical side fills."""
    height, width = (length * spacing for length, spacing in zip(shape, spacing_mm or (1.0, 1.0), strict=True))
    scale = side / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (side - rows) // 2, (side - columns) // 2
    return left, top, left + columns, top + rows
