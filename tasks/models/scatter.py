"""``scatter_linear``: a linear model on wavelet scattering, made ready for differential privacy.

What all images share would fill a clipped gradient and tell nothing, so it is taken out; mean and spread must not come
from patients, so they come from noise with the spectrum of natural images. Every vector that a linear model meets has
norm 1 at most, which bounds its gradient, (probability - label) * vector, by 1 whatever the image shows.
"""

from __future__ import annotations

import copy
import math
from functools import lru_cache, reduce

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d, interpolate, normalize

from tasks.models import scattering, scattering3d
from tasks.models.scattering import Scattering2D
from tasks.models.scattering3d import Scattering3D

_PICTURES_OF_NOISE, _VOLUMES_OF_NOISE = 32, 8
_PROCESSOR = torch.device("cpu")

GridSize = tuple[int, ...]


class ScatterFeatures(nn.Module):
    """Features of whole images.

    Maps float32 (images, channels, rows, columns) or (images, channels, slices, rows, columns) to float32 (images,
    ``features``): the scattering of each channel averaged to pool cells along each axis, each of its channels less its
    mean and divided by its spread, the whole vector brought to L2 norm 1. Of several channels, those that are zero
    everywhere, sequences that were not acquired, add nothing.

    Args:
        shape: (channels, rows, columns) or (channels, slices, rows, columns) of an image.
        resolution: the images are averaged down to this side first; 0 leaves them as they are.
        J, L: as for ``Scattering2D`` and ``Scattering3D``.
        pool: cells along each side; fewer when the scattering has fewer.
        mirror: take the mean with the features of the image's mirror image, where left and right mean the same.
            Takes twice the time.

    Raises:
        ValueError: these do not go together; the message says what to change.
    """

    def __init__(
        self, *, shape: GridSize, resolution: int = 0, J: int = 4, L: int = 8, pool: int = 3, mirror: bool = True
    ) -> None:
        super().__init__()
        space = shape[1:]
        if not 0 <= resolution <= min(space):
            raise ValueError(f"scattering: resolution={resolution} would enlarge {space}: use 0 to {min(space)}")
        if pool < 1:
            raise ValueError(f"scattering: pool={pool} leaves no feature: use 1 or more")
        self.size = (resolution,) * len(space) if resolution else space
        refuse(self.size, J, L)
        self.J, self.L, self.mirror = J, L, mirror
        self.pool = min(pool, *(n // 2**J for n in self.size))
        self.features = shape[0] * scattering.channels(J, L, 2) * self.pool ** len(space)

    def forward(self, images: Tensor) -> Tensor:
        """Features of norm 1, float32 (images, features)."""
        return self.through(filters(self.size, self.J, self.L, 2, images.device), images)

    def through(self, transform: nn.Module, images: Tensor) -> Tensor:
        """``forward`` with another module that scatters, such as ``RealScattering``."""
        mean, spread = (each.to(images.device) for each in _public_statistics(self.size, self.J, self.L, self.pool))
        planes = images.reshape(-1, 1, *images.shape[2:])
        small = interpolate(planes, size=self.size, mode="area")
        pooled = _pooled(transform(small), self.pool)
        if self.mirror:
            pooled = (pooled + _pooled(transform(small.flip(-1)), self.pool)) / 2
        standard = (pooled - mean) / spread
        if images.shape[1] > 1:
            standard = standard * planes.flatten(1).any(dim=1).view(-1, *[1] * (standard.dim() - 1))
        return normalize(standard.reshape(images.shape[0], -1))


# Filters and statistics are made when the first image comes, and once in a process: a hospital that has its features in
# the cache needs neither, and would otherwise spend most of a round on them.


@lru_cache(maxsize=8)
def filters(
    size: GridSize, J: int, L: int, max_order: int, device: torch.device = _PROCESSOR
) -> Scattering2D | Scattering3D:
    """The scattering transform of images, or of volumes, of that size."""
    if device.type != "cpu":
        return copy.deepcopy(filters(size, J, L, max_order)).to(device)
    if len(size) == 2:
        return Scattering2D(shape=(size[0], size[1]), J=J, L=L, max_order=max_order)
    return Scattering3D(shape=(size[0], size[1], size[2]), J=J, L=L, max_order=max_order)


def refuse(size: GridSize, J: int, L: int) -> None:
    """Refuse what cannot be scattered.

    Raises:
        ValueError: listing every problem, with the remedy.
    """
    if len(size) == 2:
        scattering.refuse((size[0], size[1]), J, L, 2)
    else:
        scattering3d.refuse((size[0], size[1], size[2]), J, L, 2)


@lru_cache(maxsize=4)
@torch.no_grad()
def _public_statistics(size: GridSize, J: int, L: int, pool: int) -> tuple[Tensor, Tensor]:
    """Mean and spread of each channel over noise, (1, channels, 1, ...)."""
    return statistics(_pooled(filters(size, J, L, 2)(natural_noise(size)), pool))


def statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each channel over images and space, shape (1, channels, 1, ...)."""
    over = (0, *range(2, maps.dim()))
    return maps.mean(dim=over, keepdim=True), maps.std(dim=over, keepdim=True)


def _pooled(maps: Tensor, pool: int) -> Tensor:
    return adaptive_avg_pool2d(maps, pool) if maps.dim() == 4 else adaptive_avg_pool3d(maps, pool)


def natural_noise(size: GridSize) -> Tensor:
    """Pictures of nothing, float32 (32, 1, rows, columns), or (8, 1, slices, rows, columns), in [0, 1], the same on
    every machine.

    Amplitudes fall as 1 / frequency**a, as those of natural images do (Field, J. Opt. Soc. Am. A 4:2379, 1987); in
    volumes half a power faster, so that their slices are such images.
    """
    number = _PICTURES_OF_NOISE if len(size) == 2 else _VOLUMES_OF_NOISE
    draw = np.random.RandomState(0)  # the one generator whose numbers NumPy promises never to change
    frequency = reduce(np.hypot, np.meshgrid(*map(np.fft.fftfreq, size), indexing="ij", sparse=True))
    frequency[(0,) * len(size)] = math.inf
    exponent = np.linspace(0.8, 1.6, number).reshape(-1, *[1] * len(size)) + (len(size) - 2) / 2
    axes = tuple(range(1, len(size) + 1))
    noise = np.fft.ifftn(
        np.fft.fftn(draw.standard_normal((number, *size)), axes=axes) * frequency**-exponent, axes=axes
    )
    spread = noise.real.std(axis=axes, keepdims=True)
    pictures = np.clip(0.35 + 0.15 * noise.real / spread, 0, 1)
    return torch.from_numpy(pictures[:, None].astype(np.float32))
