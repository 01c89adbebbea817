"""An example as a person sees it: one grey plane, and a PNG."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def plane_of(example: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of an example's channels, float32 (rows, columns); of a volume the slice in its middle."""
    plane = example if example.ndim == 3 else example[:, example.shape[1] // 2]
    return np.asarray(plane.mean(axis=0), dtype=np.float32)


def png(example: NDArray[np.float32]) -> bytes:
    """An example as a grey PNG: the mean of its channels, and of a volume the middle slice of each channel, in rows."""
    stream = io.BytesIO()
    shown = plane_of(example) if example.ndim == 3 else _tiled(example[:, example.shape[1] // 2])
    Image.fromarray((shown * 255).clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _tiled(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Planes of shape (number, rows, columns) side by side in a square, as far as they fill it; the rest is black."""
    across = math.ceil(math.sqrt(len(planes)))
    down = math.ceil(len(planes) / across)
    rows, columns = planes.shape[1:]
    filled = np.zeros((down * across, rows, columns), dtype=np.float32)
    filled[: len(planes)] = planes
    return filled.reshape(down, across, rows, columns).swapaxes(1, 2).reshape(down * rows, across * columns)
