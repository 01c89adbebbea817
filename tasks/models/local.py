"""Features of places in an image, for a linear model that outlines structures under differential privacy.

Every place is described at several scales: grey value and wavelet moduli averaged over 2, 4, 8 and 16 pixels (in
volumes over 2, 4 and 8), each on a grid as coarse as the average. A place is also described by where it is, and by
cosines of random projections of all that (A. Rahimi and B. Recht, Random features for large-scale kernel machines, NIPS
2007), because a structure is no linear function of grey value and texture. A linear model can be evaluated on each grid
by itself and its logits be interpolated and added up, so the fine grids need not hold what the coarse ones know.

On 92 breast ultrasound images (BUSI; the lesion; 4 folds of patients, ridge regression on a grid of 32 x 32), Dice was
0.58, without the cosines 0.54, without the position 0.54.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from tasks.models.scatter import GridSize, filters, natural_noise, statistics

_SCALES = {2: (1, 2, 3, 4), 3: (1, 2, 3)}
_LARGEST = {2: 128, 3: 48}
"""Larger images are averaged down to this side before, so that maps take no more than 200 kB an image, or 450 kB."""
_ORIENTATIONS = {2: 4, 3: 7}
_COSINES = 16
_COSINES_AT = {2: 3, 3: 2}
"""The scale whose grid has the cosines."""
_BANDWIDTH = 0.5
"""Standard deviation of a projection of typical noise, in radians; the smaller, the smoother is what can be learned."""

REACH = 8.0
"""Bound on the norm of all that describes a place. The gradient of a Dice coefficient is a mean over places that mostly
agree: with 1 it had norm 0.01 to 0.1 where that of a finding has 0.5, and under one clip for both the noise would have
drowned it."""


@dataclass(frozen=True)
class FeatureGrid:
    """One of the grids: how many places along each axis, and how many values describe a place."""

    cells: GridSize
    values: int


class LocalFeatures(nn.Module):
    """Maps float32 (images, channels, ...) to float32 (images, ``features``): the grids one after the other, each in
    the order (places, values).

    The vector of a place has L2 norm below ``REACH`` / sqrt(number of grids), so that all vectors of a place together,
    however they are interpolated, have norm below ``REACH``. What all images share is taken out, see
    ``tasks/models/scatter.py``.
    Of several channels, a channel that is zero everywhere adds nothing but to the cosines.

    Args:
        shape: (channels, rows, columns) or (channels, slices, rows, columns) of an image.

    Attributes:
        grids: from fine to coarse; the last one has the position.
        features: how many values there are for one image.
    """

    def __init__(self, *, shape: GridSize) -> None:
        super().__init__()
        self._size = _working(shape[1:])
        self._oriented = shape[0] == 1  # of several channels the mean over orientations, to save memory
        self.grids = _grids(self._size, shape[0], self._oriented)
        self.features = sum(math.prod(grid.cells) * grid.values for grid in self.grids)

    def forward(self, images: Tensor) -> Tensor:
        """Features, float32 (images, features)."""
        planes = interpolate(images.reshape(-1, 1, *images.shape[2:]), size=self._size, mode="area")
        present = planes.flatten(1).any(dim=1).float().view(-1, *[1] * (planes.dim() - 1))
        standard = [
            ((maps - mean.to(maps.device)) / spread.to(maps.device) * present).reshape(len(images), -1, *maps.shape[2:])
            for maps, (mean, spread) in zip(
                _maps(planes, self._oriented), _public_statistics(self._size, self._oriented), strict=True
            )
        ]
        cosines = _cosines(standard, _COSINES_AT[len(self._size)])
        position = _position(self.grids[-1].cells).to(images.device).expand(len(images), -1, *self.grids[-1].cells)
        described = [*(_shortened(maps) for maps in standard), cosines, position]
        flat = [maps.flatten(2).transpose(1, 2).flatten(1) for maps in described]
        return torch.cat(flat, dim=1) * (REACH / math.sqrt(len(described)))


def _working(size: GridSize) -> GridSize:
    """The nearest size that all scales can be averaged over."""
    coarsest, largest = 2 ** max(_SCALES[len(size)]), _LARGEST[len(size)]
    return tuple(min(largest, max(2, (n + coarsest // 2) // coarsest) * coarsest) for n in size)


def _grids(size: GridSize, channels: int, oriented: bool) -> tuple[FeatureGrid, ...]:
    scales = [
        FeatureGrid(tuple(n // 2**J for n in size), channels * _values(J, len(size), oriented))
        for J in _SCALES[len(size)]
    ]
    at = scales[_COSINES_AT[len(size)] - 1].cells
    return (*scales, FeatureGrid(at, _COSINES), FeatureGrid(scales[-1].cells, 2 * len(size)))


def _values(J: int, dimensions: int, oriented: bool) -> int:
    if J == 1:
        return 2 if dimensions == 2 else 1
    return 1 + J * (_ORIENTATIONS[dimensions] if oriented else 1)


def _maps(planes: Tensor, oriented: bool) -> list[Tensor]:
    """Of each scale the grey value and the moduli, float32 (planes, values, *cells)."""
    dimensions = planes.dim() - 2
    return [_maps_of_scale(planes, J, _ORIENTATIONS[dimensions], oriented and J > 1) for J in _SCALES[dimensions]]


def _maps_of_scale(planes: Tensor, J: int, L: int, oriented: bool) -> Tensor:
    if J == 1 and planes.dim() == 5:  # moduli on the finest grid of a volume would take more than all the others
        return interpolate(planes, scale_factor=0.5, mode="area")
    transform = filters(tuple(planes.shape[2:]), J, L, 1, planes.device)
    scattered = _centred(transform(_moved(planes, 2 ** (J - 1))), 2**J)
    if oriented:
        return scattered
    return torch.cat(
        [scattered[:, :1], scattered[:, 1:].reshape(len(planes), J, L, *scattered.shape[2:]).mean(dim=2)], dim=1
    )


# Scattering says what it finds about the first pixel of each cell; an outline needs it about the cell's middle.


def _moved(planes: Tensor, pixels: int) -> Tensor:
    """Images moved towards the origin, and mirrored where they end."""
    moved = pad(planes, (0, pixels) * (planes.dim() - 2), mode="reflect")
    for axis in range(2, planes.dim()):
        moved = moved.narrow(axis, pixels, planes.shape[axis])
    return moved


def _centred(maps: Tensor, side: int) -> Tensor:
    """Maps moved back by the half pixel that the middle of a cell with an even side lies before a pixel."""
    for axis in range(2, maps.dim()):
        first, others = maps.narrow(axis, 0, 1), maps.narrow(axis, 0, maps.shape[axis] - 1)
        maps = torch.lerp(maps, torch.cat([first, others], dim=axis), 0.5 / side)
    return maps


@lru_cache(maxsize=4)
@torch.no_grad()
def _public_statistics(size: GridSize, oriented: bool) -> list[tuple[Tensor, Tensor]]:
    return [statistics(maps) for maps in _maps(natural_noise(size), oriented)]


def _shortened(maps: Tensor) -> Tensor:
    """Vectors along dimension 1 of norm below 1; a typical one keeps 0.7, and contrast is not lost."""
    shortened: Tensor = maps / (maps.shape[1] + (maps**2).sum(dim=1, keepdim=True)).sqrt()
    return shortened


def _cosines(standard: list[Tensor], scale: int) -> Tensor:
    """Random cosines of what all scales say of the places of one grid; vectors of norm 1 at most."""
    cells = standard[scale - 1].shape[2:]
    mode = "bilinear" if len(cells) == 2 else "trilinear"
    described = torch.cat([_on_grid(maps, cells, mode) for maps in standard], dim=1)
    draw = torch.Generator().manual_seed(0)  # the same at every hospital
    ways = torch.randn(_COSINES, described.shape[1], generator=draw) * _BANDWIDTH / math.sqrt(described.shape[1])
    phases = torch.rand(_COSINES, 1, generator=draw) * 2 * math.pi
    ways, phases = ways.to(described.device), phases.to(described.device)
    turned = (ways @ described.flatten(2) + phases).reshape(len(described), _COSINES, *cells)
    return turned.cos() / math.sqrt(_COSINES)


def _on_grid(maps: Tensor, cells: torch.Size, mode: str) -> Tensor:
    if tuple(maps.shape[2:]) == tuple(cells):
        return maps
    if maps.shape[2] > cells[0]:
        return interpolate(maps, size=tuple(cells), mode="area")
    return interpolate(maps, size=tuple(cells), mode=mode)


def _position(cells: GridSize) -> Tensor:
    """Along each axis the place from -1 to 1 and its square, (1, 2 * axes, *cells); vectors of norm 1 at most."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in cells], indexing="ij")
    return torch.stack([value for axis in axes for value in (axis, axis**2)])[None] / math.sqrt(2 * len(cells))
