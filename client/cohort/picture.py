"""An example as an image for people: one grey plane, and a PNG, with outlines if there are any."""

from __future__ import annotations

import io
import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00")
"""Colours of outlined structures, in the task's order, repeated if there are more: distinguishable for people with
colour vision deficiency (M. Okabe, K. Ito, Color Universal Design, 2008)."""
_LEAST_SIDE = 192
T = TypeVar("T", bound=np.generic)


def plane_of(example: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of an example's channels, float32 (rows, columns); for a volume its middle slice."""
    plane = example if example.ndim == 3 else example[:, example.shape[1] // 2]
    return np.asarray(plane.mean(axis=0), dtype=np.float32)


def png(example: NDArray[np.float32], marked: NDArray[np.bool_] | None = None) -> bytes:
    """An example as a PNG: the mean of its channels; for a volume one slice of each channel, in rows.

    Args:
        marked: shape (structures, *example.shape[1:]): is outlined in ``COLOURS``, and of a volume that slice is shown
            of which most is marked. ``None`` and where nothing is: the slice in the middle.
    """
    slice_ = _slice(example, marked)
    grey = plane_of(example) if slice_ is None else _tiled(example[:, slice_])
    shown = (grey * 255).clip(0, 255).astype(np.uint8)
    if marked is not None:
        tiles = 1 if slice_ is None else len(example)
        flat = marked if slice_ is None else marked[:, slice_]
        shown = _outlined(shown, np.stack([_tiled(np.stack([mask] * tiles)) for mask in flat]))
    stream = io.BytesIO()
    Image.fromarray(shown).save(stream, "PNG")
    return stream.getvalue()


def _slice(example: NDArray[np.float32], marked: NDArray[np.bool_] | None) -> int | None:
    """Which slice of a volume to show; ``None`` for a 2D image."""
    if example.ndim == 3:
        return None
    if marked is None or not marked.any():
        return int(example.shape[1] // 2)
    return int(marked.sum(axis=(0, 2, 3)).argmax())


def _outlined(grey: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A grey image as RGB, with the edge of each mask (structures, rows, columns) in its colour. Small images are
    enlarged so that the lines do not cover what they outline."""
    times = math.ceil(_LEAST_SIDE / max(grey.shape))
    coloured = np.stack([_enlarged(grey, times)] * 3, axis=-1)
    for structure, mask in enumerate(masks):
        large = _enlarged(mask, times)
        coloured[large & ~binary_erosion(large)] = _rgb(COLOURS[structure % len(COLOURS)])
    return coloured


def _enlarged(plane: NDArray[T], times: int) -> NDArray[T]:
    return plane.repeat(times, axis=0).repeat(times, axis=1)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _tiled(planes: NDArray[T]) -> NDArray[T]:
    """Planes of shape (number, rows, columns) tiled in a square; unused tiles are black."""
    across = math.ceil(math.sqrt(len(planes)))
    down = math.ceil(len(planes) / across)
    rows, columns = planes.shape[1:]
    filled = np.zeros((down * across, rows, columns), dtype=planes.dtype)
    filled[: len(planes)] = planes
    return filled.reshape(down, across, rows, columns).swapaxes(1, 2).reshape(down * rows, across * columns)
