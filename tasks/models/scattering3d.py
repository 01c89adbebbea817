"""Three-dimensional wavelet scattering, as ``tasks/models/scattering.py`` explains it for images.

The wavelets are Morlet's: a plane wave under a Gaussian that is as wide in every direction, less as much of the bare
Gaussian as gives it mean zero. Such a Gaussian is a product over the axes, and so is its spectrum, which is written
down directly: Gaussians about the wave's frequency, added up over the periods of a sampled signal. The waves run along
the axes, then the space diagonals, then the face diagonals, so that no axis is treated unlike another.

    M. Eickenberg et al., Solid harmonic wavelet scattering, J. Chem. Phys. 148:241732, 2018, scatter volumes likewise
    with other wavelets. Scales and widths here are those of the two-dimensional Morlet wavelets.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from tasks.models.scattering import channels

_SIGMA = 0.8  # width of the smallest wavelet, in voxels
_XI = 3 * math.pi / 4  # its centre frequency, in radians a voxel
ORIENTATIONS = (3, 7, 13)
"""How many directions treat every axis alike: axes; and space diagonals; and face diagonals."""

VolumeSize = tuple[int, int, int]


class Scattering3D(nn.Module):
    """The scattering transform of orders 0, 1 and 2.

    Maps float32 (volumes, 1, slices, rows, columns) to float32 (volumes, channels, slices // 2**J, rows // 2**J,
    columns // 2**J). Channels are order 0, then order 1 by (scale, orientation), then order 2 by (scale, orientation,
    larger scale, orientation). Volumes are scattered one by one.

    Args:
        shape: slices, rows and columns of the volumes; multiples of 2**J.
        J: number of scales; the output averages over 2**J voxels along each axis.
        L: number of orientations, one of ``ORIENTATIONS``.
        max_order: 1 or 2.

    Raises:
        ValueError: these do not go together; the message says what to change.
    """

    def __init__(self, *, shape: VolumeSize, J: int, L: int = 7, max_order: int = 2) -> None:
        super().__init__()
        refuse(shape, J, L, max_order)
        self.shape, self.J, self.L, self.max_order = shape, J, L, max_order
        self.channels = channels(J, L, max_order)
        self.cells = tuple(n // 2**J for n in shape)
        self._padded = tuple(n + 2 * 2**J for n in shape)
        for resolution in range(J):
            self._keep(f"low_{resolution}", _gaussian(self._padded, _SIGMA * 2 ** (J - 1), np.zeros(3), resolution))
        for j in range(J):
            for resolution in range(j + 1):  # a volume already 2**resolution times smaller when it meets this band
                bands = np.stack([_morlet(self._padded, j, way, resolution) for way in _directions(L)])
                self._keep(f"band_{j}_{resolution}", bands)

    def _keep(self, name: str, spectrum: NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.from_numpy(spectrum.astype(np.float32)), persistent=False)

    def forward(self, volumes: Tensor) -> Tensor:
        """Scatter float32 (volumes, 1, slices, rows, columns)."""
        if volumes.dim() != 5 or tuple(volumes.shape[1:]) != (1, *self.shape):
            raise ValueError(
                f"scattering: volumes of shape {tuple(volumes.shape)} do not fit filters made for {self.shape}: "
                f"pass (volumes, 1, {', '.join(map(str, self.shape))}), or make a Scattering3D for that size"
            )
        if not len(volumes):
            return volumes.new_empty(0, self.channels, *self.cells)
        return torch.cat([self._scatter(volumes[i : i + 1]) for i in range(len(volumes))])

    def _scatter(self, volume: Tensor) -> Tensor:
        edge = 2**self.J  # one cell of the output on every side: the low-pass filter never sees the far border
        spectrum = torch.fft.fftn(pad(volume, (edge,) * 6, mode="reflect"), dim=(-3, -2, -1))
        first, second = [], []
        for j in range(self.J):
            bands = self._modulus(spectrum, j, 0)
            first.append(self._averaged(bands, j))
            if self.max_order == 2:
                second += [
                    self._averaged(self._modulus(bands[:, k : k + 1], larger, j), larger)
                    for k in range(self.L)
                    for larger in range(j + 1, self.J)
                ]
        return torch.cat([self._averaged(spectrum, 0), *first, *second], dim=1)

    def _modulus(self, spectrum: Tensor, j: int, resolution: int) -> Tensor:
        """Spectra (1, L, ...) of the moduli of the bands of scale j, at the resolution that this scale needs."""
        filters, factor = self.get_buffer(f"band_{j}_{resolution}"), 2 ** (j - resolution)
        # One orientation at a time: together they are many times what a processor keeps at hand.
        moduli = [torch.fft.ifftn(_subsampled(spectrum * band, factor), dim=(-3, -2, -1)).abs() for band in filters]
        spectra: Tensor = torch.fft.fftn(torch.cat(moduli, dim=1), dim=(-3, -2, -1))
        return spectra

    def _averaged(self, spectrum: Tensor, resolution: int) -> Tensor:
        """Volumes averaged over what is 2**J voxels of the input, one value for each cell, without the padding."""
        averaged = _subsampled(spectrum * self.get_buffer(f"low_{resolution}"), 2 ** (self.J - resolution))
        cells: Tensor = torch.fft.ifftn(averaged, dim=(-3, -2, -1))
        return cells.real[..., 1:-1, 1:-1, 1:-1]


def refuse(shape: VolumeSize, J: int, L: int, max_order: int) -> None:
    """Refuse what ``Scattering3D`` cannot do.

    Raises:
        ValueError: listing every problem, with the remedy.
    """
    problems = []
    if J < 1:
        problems.append(f"J={J} counts scales: use 1 or more")
    elif any(n % 2**J or n < 2 ** (J + 1) for n in shape):
        problems.append(
            f"volumes of {shape} cannot be averaged over 2**J = {2**J} voxels: "
            f"lower J, or use multiples of {2**J} from {2 ** (J + 1)}"
        )
    if L not in ORIENTATIONS:
        problems.append(f"L={L} directions in space do not treat every axis alike: use 3, 7 or 13")
    if max_order not in (1, 2):
        problems.append(f"max_order={max_order} is not implemented, and finds little beyond 2: use 1 or 2")
    if problems:
        raise ValueError("scattering: " + "; ".join(problems))


def _directions(L: int) -> list[NDArray[np.float64]]:
    """Unit vectors along (slices, rows, columns), one of each pair of opposites."""
    ways = [np.array([i, j, k], float) for i in (1, 0, -1) for j in (1, 0, -1) for k in (1, 0, -1)][:13]
    ways.sort(key=lambda way: {1: 0, 3: 1, 2: 2}[int(np.abs(way).sum())])  # axes, space diagonals, face diagonals
    return [way / np.linalg.norm(way) for way in ways[:L]]


def _morlet(shape: tuple[int, ...], j: int, way: NDArray[np.float64], resolution: int) -> NDArray[np.float64]:
    """Spectrum of a wave under a Gaussian, less as much of the bare Gaussian as gives it mean zero."""
    sigma, wave, bare = _SIGMA * 2**j, _XI / 2**j * way, np.zeros(3)
    share = _gaussian((1, 1, 1), sigma, wave, 0) / _gaussian((1, 1, 1), sigma, bare, 0)  # their sums over all voxels
    return np.asarray(
        _gaussian(shape, sigma, wave, resolution) - share * _gaussian(shape, sigma, bare, resolution), np.float64
    )


def _gaussian(
    shape: tuple[int, ...], sigma: float, frequency: NDArray[np.float64], resolution: int
) -> NDArray[np.float64]:
    """Spectrum of a wave under a Gaussian of width sigma and integral 1, for volumes 2**resolution times smaller."""
    axes = [_along_axis(n, sigma, f, resolution) for n, f in zip(shape, frequency, strict=True)]
    return np.asarray(axes[0][:, None, None] * axes[1][:, None] * axes[2])


def _along_axis(n: int, sigma: float, frequency: float, resolution: int) -> NDArray[np.float64]:
    """One axis of it: sampling adds up what is a whole number of periods apart, a smaller volume drops what it cannot
    hold."""
    periods = 2 * math.pi * (np.fft.fftfreq(n) + np.arange(-3, 4)[:, None])
    spectrum = np.exp(-((sigma * (periods - frequency)) ** 2) / 2).sum(axis=0)
    if not resolution:
        return np.asarray(spectrum)
    kept = n // 2**resolution
    spectrum[kept // 2 : n - kept // 2] = 0
    return np.asarray(spectrum.reshape(2**resolution, kept).sum(axis=0))


def _subsampled(spectrum: Tensor, factor: int) -> Tensor:
    """Spectra of the volumes of which only every factor-th slice, row and column is kept."""
    if factor == 1:
        return spectrum
    for axis in range(spectrum.dim() - 3, spectrum.dim()):
        shape = spectrum.shape
        parts = spectrum.reshape(*shape[:axis], factor, shape[axis] // factor, *shape[axis + 1 :]).unbind(axis)
        spectrum = reduce(torch.add, parts)
    return spectrum / factor**3
