"""Two-dimensional wavelet scattering: image features that are fixed by mathematics, not learned from patients.

An image is convolved with complex Morlet wavelets at J scales and L orientations, the modulus is taken, the same is
done once more, and every result is averaged over 2**J pixels. What comes out hardly changes when the image is shifted
or bent a little, and loses little that tells textures apart; a linear model on it needs few patients. Because nothing
in it is trained, it costs no privacy and is computed once for each image.

    S. Mallat, Group invariant scattering, Comm. Pure Appl. Math. 65:1331, 2012.
    J. Bruna and S. Mallat, Invariant scattering convolution networks, IEEE TPAMI 35:1872, 2013.
    M. Andreux et al., Kymatio: scattering transforms in Python, JMLR 21:60, 2020. Filters, their parameters, padding
    and the order of channels follow it; the tests hold this file against its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

_SIGMA = 0.8  # width of the smallest wavelet, in pixels
_XI = 3 * math.pi / 4  # its centre frequency, in radians a pixel
_FLOATS_AT_ONCE = 2**24  # about 64 MB for the largest intermediate result


class Scattering2D(nn.Module):
    """The scattering transform of orders 0, 1 and 2.

    Maps float32 (images, 1, rows, columns) to float32 (images, channels, rows // 2**J, columns // 2**J). Channels are
    order 0, then order 1 by scale and orientation, then order 2 by both scales and both orientations.

    Args:
        shape: rows and columns of the images; multiples of 2**J.
        J: scales; averages over 2**J pixels.
        L: orientations in half a turn.
        max_order: 1 or 2.

    Raises:
        ValueError: these do not go together; the message says what to change.
    """

    def __init__(self, *, shape: tuple[int, int], J: int, L: int = 8, max_order: int = 2) -> None:
        super().__init__()
        _refuse(shape, J, L, max_order)
        self.J, self.L, self.max_order, self.shape = J, L, max_order, shape
        self.channels = 1 + J * L + (L * L * J * (J - 1) // 2 if max_order == 2 else 0)
        padded = [n + 2 * 2**J for n in shape]
        low = np.real(np.fft.fft2(_gabor(padded, _SIGMA * 2 ** (J - 1), 0.0, 0.0, 1.0)))
        for resolution in range(J):
            self._keep(f"low_{resolution}", _periodized(low, resolution))
        for j in range(J):
            bands = np.stack([np.real(np.fft.fft2(_morlet(padded, j, angle, L))) for angle in _angles(L)])
            for resolution in range(j + 1):
                self._keep(f"band_{j}_{resolution}", np.stack([_periodized(band, resolution) for band in bands]))

    def _keep(self, name: str, values: NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scatter; images are taken a few at a time so that memory stays at a few hundred MB whatever their number."""
        rows, columns = images.shape[-2:]
        at_once = max(1, _FLOATS_AT_ONCE // (rows * columns * self.L * 4))
        return torch.cat([self._scatter(chunk[:, 0]) for chunk in images.split(at_once)])

    def _scatter(self, images: Tensor) -> Tensor:
        edge = 2**self.J
        spectrum = torch.fft.fft2(F.pad(images[:, None], (edge, edge, edge, edge), mode="reflect"))
        first, second = [], []
        for j1 in range(self.J):
            u1 = self._modulus(spectrum, j1, 0)  # (images, L, ...)
            first.append(self._averaged(u1, j1))
            if self.max_order == 2:
                second += [part for k in range(self.L) for part in self._second(u1[:, k : k + 1], j1)]
        return torch.cat([self._averaged(spectrum, 0), *first, *second], dim=1)

    def _second(self, u1: Tensor, j1: int) -> list[Tensor]:
        """All coefficients of order 2 below one band of order 1."""
        larger = range(j1 + 1, self.J)
        return [self._averaged(self._modulus(u1, j2, j1), j2) for j2 in larger]

    def _modulus(self, spectrum: Tensor, j: int, resolution: int) -> Tensor:
        """Spectrum of the modulus of a band, at the resolution that the band needs."""
        bands = self.get_buffer(f"band_{j}_{resolution}")
        return torch.fft.fft2(torch.fft.ifft2(_subsampled(spectrum * bands, 2 ** (j - resolution))).abs())

    def _averaged(self, spectrum: Tensor, resolution: int) -> Tensor:
        low = self.get_buffer(f"low_{min(resolution, self.J - 1)}")
        image = torch.fft.ifft2(_subsampled(spectrum * low, 2 ** (self.J - resolution))).real
        return image[..., 1:-1, 1:-1]  # the padding is one cell wide by now


class ScatterFeatures(nn.Module):
    """Scattering made ready for a linear model under differential privacy.

    Maps float32 (images, 1, rows, columns) to float32 (images, ``features``). Coefficients of each scale path group
    are put on one scale by group normalisation within the image (no statistics of other patients), averaged to
    pool x pool cells, and the whole vector has L2 norm 1, so that one patient's gradient has a norm of at most 1
    whatever the image.
    """

    def __init__(self, *, shape: tuple[int, int], J: int, L: int = 8, pool: int = 4) -> None:
        super().__init__()
        self.scattering = Scattering2D(shape=shape, J=J, L=L)
        self.pool = min(pool, shape[0] // 2**J, shape[1] // 2**J)
        self.features = self.scattering.channels * self.pool**2

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(list(self._chunks(images)))

    def _chunks(self, images: Tensor) -> Iterator[Tensor]:
        for chunk in images.split(64):
            scattered = self.scattering(chunk)
            by_path = scattered.unflatten(1, (1, -1)) if self.scattering.L < 2 else scattered
            normal = F.group_norm(F.adaptive_avg_pool2d(torch.log1p(by_path.clamp(min=0) * 1e2), self.pool), 1)
            yield F.normalize(normal.flatten(1))


def _refuse(shape: tuple[int, int], J: int, L: int, max_order: int) -> None:
    problems = []
    if J < 1 or L < 1:
        problems.append(f"J={J} and L={L} must be at least 1")
    elif any(n % 2**J or n < 2 ** (J + 1) for n in shape):
        problems.append(f"an image of {shape} cannot be averaged over 2**J = {2**J} pixels: lower J, or use multiples")
    if max_order not in (1, 2):
        problems.append(f"max_order={max_order} must be 1 or 2")
    if problems:
        raise ValueError("scattering: " + "; ".join(problems))


def _angles(L: int) -> list[float]:
    return [(int(L - L / 2 - 1) - k) * math.pi / L for k in range(L)]


def _gabor(shape: list[int], sigma: float, angle: float, xi: float, slant: float) -> NDArray[np.complex128]:
    """A Gaussian of width sigma, narrowed by slant across the direction of its wave, made periodic over the image."""
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = np.array([[cos, -sin], [sin, cos]])
    curve = rotation @ np.diag([1, slant**2]) @ rotation.T / (2 * sigma**2)
    y = np.arange(-2 * shape[0], 3 * shape[0])[:, None]
    x = np.arange(-2 * shape[1], 3 * shape[1])[None, :]
    form = curve[0, 0] * y * y + 2 * curve[0, 1] * y * x + curve[1, 1] * x * x
    values = np.exp(-form + 1j * xi * (y * cos + x * sin))
    folded = values.reshape(5, shape[0], 5, shape[1]).sum(axis=(0, 2))
    return np.asarray(folded / (2 * math.pi * sigma**2 / slant))


def _morlet(shape: list[int], j: int, angle: float, L: int) -> NDArray[np.complex128]:
    """A Gabor wave minus the Gaussian that gives it mean zero."""
    sigma, xi, slant = _SIGMA * 2**j, _XI / 2**j, 4.0 / L
    wave, bump = _gabor(shape, sigma, angle, xi, slant), _gabor(shape, sigma, angle, 0.0, slant)
    return np.asarray(wave - bump * (wave.sum() / bump.sum()))


def _periodized(spectrum: NDArray[np.float64], resolution: int) -> NDArray[np.float64]:
    """The filter for an image that has 2**resolution times fewer rows and columns: its high frequencies go."""
    kept = spectrum.copy()
    for axis, n in enumerate(spectrum.shape):
        gone = slice(int(n * 2.0 ** (-resolution - 1)), int(n * 2.0 ** (-resolution - 1)) + int(n * (1 - 2.0**-resolution)))
        kept[gone if axis == 0 else (slice(None), gone)] = 0
    factor = 2**resolution
    rows, columns = (n // factor for n in spectrum.shape)
    return np.asarray(kept.reshape(factor, rows, factor, columns).sum(axis=(0, 2)))


def _subsampled(spectrum: Tensor, factor: int) -> Tensor:
    """Spectrum of the image of which every factor-th row and column is kept."""
    rows, columns = (n // factor for n in spectrum.shape[-2:])
    blocks = spectrum.unflatten(-1, (factor, columns)).unflatten(-3, (factor, rows))
    return blocks.mean(dim=(-4, -2))
