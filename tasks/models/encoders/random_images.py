"""Pictures and volumes of nothing, drawn by random processes: what directions can be fitted to in place of patients.

Half are dead leaves (discs that hide each other, of sizes that follow a power law: A. Lee, D. Mumford and J. Huang,
IJCV 41:35, 2001), which have edges as images have; half are noise with the spectrum of natural images, which has
textures (M. Baradad et al., Learning to see by looking at noise, NeurIPS 2021, compares these and others).
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LEAVES = {2: 400, 3: 150}
_SMALLEST, _LARGEST = 0.02, 0.6
"""Radii, in sides of the image."""
TOLD = "random processes: dead leaves and noise with the spectrum of natural images"


def drawn(number: int, size: tuple[int, ...], seed: int = 0) -> Tensor:
    """float32 (number, 1, ...) in [0, 1]; the same numbers on every machine, up to rounding.

    Args:
        size: along each axis; two or three.
    """
    draw = np.random.RandomState(seed)  # the one generator whose numbers NumPy promises never to change
    made = [(_leaves if index % 2 else _noise)(draw, size) for index in range(number)]
    return torch.from_numpy(np.stack(made)[:, None].astype(np.float32))


def _leaves(draw: np.random.RandomState, size: tuple[int, ...]) -> NDArray[np.float64]:
    image, hidden = np.full(size, draw.uniform()), np.zeros(size, bool)
    places = np.meshgrid(*[np.arange(n) for n in size], indexing="ij", sparse=True)
    for _ in range(_LEAVES[len(size)]):
        radius = min(size) * min(_SMALLEST * draw.uniform() ** -0.5, _LARGEST)
        stretch, grey = draw.uniform(0.5, 1.5), draw.uniform()
        inside = [(place - draw.uniform(0, n)) ** 2 for place, n in zip(places, size, strict=True)]
        leaf = (inside[0] * stretch + reduce(np.add, inside[1:]) / stretch < radius**2) & ~hidden
        image[leaf] = grey
        hidden |= leaf
        if hidden.all():
            break
    return image


def _noise(draw: np.random.RandomState, size: tuple[int, ...]) -> NDArray[np.float64]:
    frequency = reduce(np.hypot, np.meshgrid(*map(np.fft.fftfreq, size), indexing="ij", sparse=True))
    frequency[(0,) * len(size)] = math.inf
    exponent = draw.uniform(0.8, 1.6) + (len(size) - 2) / 2
    noise = np.fft.ifftn(np.fft.fftn(draw.standard_normal(size)) * frequency**-exponent).real
    pictures: NDArray[np.float64] = np.clip(0.35 + 0.15 * noise / noise.std(), 0, 1)
    return pictures
