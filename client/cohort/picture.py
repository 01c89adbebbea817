"""An example as a person sees it: one grey plane, and that as a PNG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def plane_of(example: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of an example's channels, float32 (rows, columns); of a volume the slice in its middle."""
    plane = example if example.ndim == 3 else example[:, example.shape[1] // 2]
    return np.asarray(plane.mean(axis=0), dtype=np.float32)


def png(example: NDArray[np.float32]) -> bytes:
    """An example as a grey PNG: the mean of its channels, and of a volume the slice in its middle."""
    stream = io.BytesIO()
    Image.fromarray((plane_of(example) * 255).clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
