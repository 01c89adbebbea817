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
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

_SIGMA = 0.8  # width of the smallest wavelet, in pixels
_XI = 3 * math.pi / 4  # its centre frequency, in radians a pixel
_VALUES_AT_ONCE = 2**20  # complex values in one set of L bands, 8 MB; a few such sets live at a time


class Scattering2D(nn.Module):
    """The scattering transform of orders 0, 1 and 2.

    Maps float32 (images, 1, rows, columns) to float32 (images, channels, rows // 2**J, columns // 2**J). Channels are
    order 0, then order 1 by (scale, orientation), then order 2 by (scale, orientation, larger scale, orientation).

    The filters take up to ``4/3 * J * L`` padded images of memory. Images are scattered a few at a time, so that
    intermediate results stay near 60 MB whatever their number, and a process grows by 300 MB at most with what the
    allocator keeps; only the output grows with the number, and is held twice at the end.

    Args:
        shape: rows and columns of the images; multiples of 2**J.
        J: number of scales; the output averages over 2**J pixels.
        L: number of orientations in half a turn.
        max_order: 1 or 2.

    Raises:
        ValueError: these do not go together; the message says what to change.
    """

    def __init__(self, *, shape: tuple[int, int], J: int, L: int = 8, max_order: int = 2) -> None:
        super().__init__()
        refuse(shape, J, L, max_order)
        self.shape, self.J, self.L, self.max_order = shape, J, L, max_order
        self.channels = channels(J, L, max_order)
        self.cells = (shape[0] // 2**J, shape[1] // 2**J)
        self._padded = (shape[0] + 2 * 2**J, shape[1] + 2 * 2**J)
        low = _low_pass(self._padded, J)
        for resolution in range(J):
            self._keep(f"low_{resolution}", _at_resolution(low, resolution))
        for j in range(J):
            bands = np.stack([_morlet(self._padded, j, angle, L) for angle in _angles(L)])
            for resolution in range(j + 1):  # an image already 2**resolution times smaller when it meets this band
                self._keep(f"band_{j}_{resolution}", _at_resolution(bands, resolution))

    def _keep(self, name: str, spectrum: NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.from_numpy(spectrum.astype(np.float32)), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scatter float32 (images, 1, rows, columns)."""
        if images.dim() != 4 or tuple(images.shape[1:]) != (1, *self.shape):
            raise ValueError(
                f"scattering: images of shape {tuple(images.shape)} do not fit filters made for {self.shape}: "
                f"pass (images, 1, {self.shape[0]}, {self.shape[1]}), or make a Scattering2D for that size"
            )
        at_once = max(1, _VALUES_AT_ONCE // (self.L * math.prod(self._padded)))
        chunks = [self._scatter(images[i : i + at_once]) for i in range(0, len(images), at_once)]
        return torch.cat(chunks) if chunks else images.new_empty(0, self.channels, *self.cells)

    def _scatter(self, images: Tensor) -> Tensor:
        edge = 2**self.J  # one cell of the output on every side: the low-pass filter never sees the far border
        spectrum = torch.fft.fft2(pad(images, (edge, edge, edge, edge), mode="reflect"))
        first, second = [], []
        for j in range(self.J):
            bands = self._modulus(spectrum, j, 0)
            first.append(self._averaged(bands, j))
            if self.max_order == 2:
                second += [part for k in range(self.L) for part in self._second_order(bands[:, k : k + 1], j)]
        return torch.cat([self._averaged(spectrum, 0), *first, *second], dim=1)

    def _second_order(self, band: Tensor, j: int) -> list[Tensor]:
        """The coefficients below one band of order 1: only larger scales have anything to find in its modulus."""
        return [self._averaged(self._modulus(band, larger, j), larger) for larger in range(j + 1, self.J)]

    def _modulus(self, spectrum: Tensor, j: int, resolution: int) -> Tensor:
        """Spectra (images, L, ...) of the moduli of the bands of scale j, at the resolution that this scale needs."""
        bands = spectrum * self.get_buffer(f"band_{j}_{resolution}")
        modulus: Tensor = torch.fft.ifft2(_subsampled(bands, 2 ** (j - resolution))).abs()
        spectra: Tensor = torch.fft.fft2(modulus)
        return spectra

    def _averaged(self, spectrum: Tensor, resolution: int) -> Tensor:
        """Images averaged over what is 2**J pixels of the input, one value for each cell, without the padding."""
        averaged = spectrum * self.get_buffer(f"low_{resolution}")
        cells: Tensor = torch.fft.ifft2(_subsampled(averaged, 2 ** (self.J - resolution)))
        return cells.real[..., 1:-1, 1:-1]


def channels(J: int, L: int, max_order: int) -> int:
    """Of a scattering's output, in two dimensions or three."""
    return 1 + J * L + (L * L * J * (J - 1) // 2 if max_order == 2 else 0)


def refuse(shape: tuple[int, int], J: int, L: int, max_order: int) -> None:
    """Refuse what ``Scattering2D`` cannot do.

    Raises:
        ValueError: listing every problem, with the remedy.
    """
    problems = []
    if J < 1 or L < 1:
        problems.append(f"J={J} and L={L} count scales and orientations: use 1 or more")
    elif any(n % 2**J or n < 2 ** (J + 1) for n in shape):
        problems.append(
            f"images of {shape} cannot be averaged over 2**J = {2**J} pixels: "
            f"lower J, or use multiples of {2**J} from {2 ** (J + 1)}"
        )
    if max_order not in (1, 2):
        problems.append(f"max_order={max_order} is not implemented, and finds little beyond 2: use 1 or 2")
    if problems:
        raise ValueError("scattering: " + "; ".join(problems))


def _angles(L: int) -> list[float]:
    """Orientations in radians, in Kymatio's order."""
    return [(int(L / 2 - 1) - k) * math.pi / L for k in range(L)]


def _low_pass(shape: tuple[int, int], J: int) -> NDArray[np.float64]:
    """Spectrum of a Gaussian that averages over 2**J pixels."""
    return _spectrum(_periodic_gaussian(shape, _SIGMA * 2 ** (J - 1), 0.0, 1.0, (0.0, 0.0)))


def _morlet(shape: tuple[int, int], j: int, angle: float, L: int) -> NDArray[np.float64]:
    """Spectrum of a wave under a Gaussian, less as much of the bare Gaussian as gives it mean zero."""
    sigma, xi, slant = _SIGMA * 2**j, _XI / 2**j, 4.0 / L
    wave = _periodic_gaussian(shape, sigma, angle, slant, (xi * math.cos(angle), xi * math.sin(angle)))
    bump = _periodic_gaussian(shape, sigma, angle, slant, (0.0, 0.0))
    return _spectrum(wave - bump * (wave.sum() / bump.sum()))


def _periodic_gaussian(
    shape: tuple[int, int], sigma: float, angle: float, slant: float, frequency: tuple[float, float]
) -> NDArray[np.complex128]:
    """A wave under a Gaussian of width sigma along ``angle`` and sigma / slant across it, wrapped round the image."""
    rows, columns = shape
    y = np.arange(-2 * rows, 3 * rows)[:, None]  # two images to each side: beyond, the Gaussian is nought
    x = np.arange(-2 * columns, 3 * columns)[None, :]
    along = y * math.cos(angle) + x * math.sin(angle)
    across = x * math.cos(angle) - y * math.sin(angle)
    wave = np.exp(1j * frequency[0] * y) * np.exp(1j * frequency[1] * x)
    values = wave * np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
    wrapped = values.reshape(5, rows, 5, columns).sum(axis=(0, 2))
    return np.asarray(wrapped * slant / (2 * math.pi * sigma**2))


def _spectrum(values: NDArray[np.complex128]) -> NDArray[np.float64]:
    """The Fourier transform, which is real because every filter here equals its own mirrored conjugate."""
    return np.asarray(np.fft.fft2(values).real)


def _at_resolution(spectrum: NDArray[np.float64], resolution: int) -> NDArray[np.float64]:
    """The filter for images that are 2**resolution times smaller; frequencies that they cannot hold are dropped."""
    kept, factor = spectrum.copy(), 2**resolution
    rows, columns = (n // factor for n in spectrum.shape[-2:])
    kept[..., rows // 2 : spectrum.shape[-2] - rows // 2, :] = 0
    kept[..., :, columns // 2 : spectrum.shape[-1] - columns // 2] = 0
    return np.asarray(kept.reshape(*kept.shape[:-2], factor, rows, factor, columns).sum(axis=(-4, -2)))


def _subsampled(spectrum: Tensor, factor: int) -> Tensor:
    """Spectra of the images of which only every factor-th row and column is kept."""
    if factor == 1:
        return spectrum
    rows, columns = (n // factor for n in spectrum.shape[-2:])
    blocks = spectrum.reshape(*spectrum.shape[:-2], factor, rows, factor, columns)
    # Adding up slices is four times faster than a mean over two axes of complex numbers.
    folded = reduce(torch.add, (blocks[..., i, :, :, :] for i in range(factor)))
    return reduce(torch.add, (folded[..., i, :] for i in range(factor))) / factor**2
