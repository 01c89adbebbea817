"""Smooth random fields, from which phantom tissue is made.

Tested in ``tests/tasks/phantoms/breast_ultrasound/test_phantom.py``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: tuple[float, float]) -> Field:
    """A Gaussian random field of about unit variance.

    White noise on a coarse grid, spread by two small matrices: a hundred times less work than blurring at full size.

    Args:
        rng: where the noise comes from.
        shape: rows and columns.
        scale: correlation length along rows and along columns, in pixels, at least 1.

    Returns:
        float32 array of ``shape``.
    """
    down, across = _spread(shape[0], float(scale[0])), _spread(shape[1], float(scale[1]))
    coarse = rng.standard_normal((down.shape[1], across.shape[1]), dtype=np.float32)
    # einsum, not @: for matrices this small the threads that a BLAS library starts cost more than they bring.
    return np.asarray(np.einsum("ij,jk->ik", down, np.einsum("ij,kj->ik", coarse, across)), dtype=np.float32)


def smooth_volume(rng: np.random.Generator, shape: tuple[int, int, int], scale: tuple[float, float, float]) -> Field:
    """``smooth_noise`` in three dimensions: float32 of ``shape``, scales in voxels along each axis."""
    spreads = [_spread(size, float(length)) for size, length in zip(shape, scale, strict=True)]
    field = rng.standard_normal(tuple(spread.shape[1] for spread in spreads), dtype=np.float32)
    for axis, spread in enumerate(spreads):
        field = np.moveaxis(np.einsum("ij,jkl->ikl", spread, np.moveaxis(field, axis, 0)), 0, axis)
    return np.ascontiguousarray(field, dtype=np.float32)


@lru_cache(maxsize=64)
def _spread(size: int, scale: float) -> Field:
    """Gaussian weights (size, coarse size) from coarse points ``scale`` apart; the squares of a row sum to 1."""
    points = np.arange(-2.0, size / scale + 3.0)
    weights = np.exp(-0.5 * ((np.arange(size)[:, None] / scale - points) / 0.7) ** 2)
    spread: Field = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
    return spread
