"""The scattering transform without complex numbers, for formats that have none, such as ONNX.

Spectra are pairs of real and imaginary parts, and a Fourier transform is a product with matrices of cosines and sines
along each axis. It computes what ``Scattering2D`` and ``Scattering3D`` do, of all images at once and more slowly.
"""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from tasks.models.scattering import Scattering2D
from tasks.models.scattering3d import Scattering3D

Spectrum = tuple[Tensor, Tensor]
"""Real and imaginary part."""


class RealScattering(nn.Module):
    """Maps what ``transform`` maps, to the same numbers within float32's precision."""

    def __init__(self, transform: Scattering2D | Scattering3D) -> None:
        super().__init__()
        self.J, self.L, self.max_order, self.axes = transform.J, transform.L, transform.max_order, len(transform.shape)
        for name, buffer in transform.named_buffers():
            self.register_buffer(name, buffer, persistent=False)
        padded = [n + 2 * 2**self.J for n in transform.shape]
        for n in {n // 2**resolution for n in padded for resolution in range(self.J + 1)}:
            angle = 2 * math.pi * torch.outer(torch.arange(n), torch.arange(n)).remainder(n).double() / n
            self.register_buffer(f"cos_{n}", angle.cos().float(), persistent=False)
            self.register_buffer(f"sin_{n}", angle.sin().float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scatter float32 (images, 1, ...)."""
        edge = 2**self.J
        spectrum = self._transformed(pad(images, (edge,) * (2 * self.axes), mode="reflect"))
        maps = [self._averaged(spectrum, 0)]
        below = []
        for j in range(self.J):
            bands = self._modulus(spectrum, j, 0)
            maps.append(self._averaged(bands, j))
            if self.max_order == 2 and j + 1 < self.J:
                below.append(self._second_order(bands, j))
        return torch.cat([*maps, *below], dim=1)

    def _second_order(self, bands: Spectrum, j: int) -> Tensor:
        """All coefficients below the bands of scale j: by orientation, larger scale, orientation."""
        real, imaginary = (part.flatten(0, 1).unsqueeze(1) for part in bands)
        larger = [self._averaged(self._modulus((real, imaginary), k, j), k) for k in range(j + 1, self.J)]
        every = torch.stack(larger, dim=1)  # (images * L, larger scales, L, ...)
        return every.reshape(-1, self.L * len(larger) * self.L, *every.shape[3:])

    def _modulus(self, spectrum: Spectrum, j: int, resolution: int) -> Spectrum:
        bands = self._filtered(spectrum, f"band_{j}_{resolution}", 2 ** (j - resolution))
        real, imaginary = self._back(bands)
        return self._transformed(torch.sqrt(real * real + imaginary * imaginary))

    def _averaged(self, spectrum: Spectrum, resolution: int) -> Tensor:
        cells, _ = self._back(self._filtered(spectrum, f"low_{resolution}", 2 ** (self.J - resolution)))
        for axis in range(-self.axes, 0):
            cells = cells.narrow(axis, 1, cells.shape[axis] - 2)
        return cells

    def _filtered(self, spectrum: Spectrum, name: str, factor: int) -> Spectrum:
        band = self.get_buffer(name)
        real, imaginary = (_subsampled(part * band, factor, self.axes) for part in spectrum)
        return real, imaginary

    def _transformed(self, values: Tensor) -> Spectrum:
        return self._fourier((values, torch.zeros_like(values)), sign=-1.0)

    def _back(self, spectrum: Spectrum) -> Spectrum:
        real, imaginary = self._fourier(spectrum, sign=1.0)
        number = math.prod(spectrum[0].shape[-self.axes :])
        return real / number, imaginary / number

    def _fourier(self, values: Spectrum, sign: float) -> Spectrum:
        """The sum over x of values(x) exp(sign * i * angle(k, x)), along each axis in turn."""
        real, imaginary = values
        for axis in range(-self.axes, 0):
            real, imaginary = real.transpose(axis, -1), imaginary.transpose(axis, -1)
            n = real.shape[-1]
            cos, sin = self.get_buffer(f"cos_{n}"), sign * self.get_buffer(f"sin_{n}")
            real, imaginary = real @ cos - imaginary @ sin, real @ sin + imaginary @ cos
            real, imaginary = real.transpose(axis, -1), imaginary.transpose(axis, -1)
        return real, imaginary


def _subsampled(part: Tensor, factor: int, axes: int) -> Tensor:
    """One part of the spectra of the images of which only every factor-th point along each axis is kept."""
    if factor == 1:
        return part
    for axis in range(-axes, 0):
        n = part.shape[axis] // factor
        part = reduce(torch.add, (part.narrow(axis, i * n, n) for i in range(factor))) / factor
    return part
