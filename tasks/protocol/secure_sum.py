"""A sum whose parts nobody sees: how hospitals write their parts, and how the server reads the sum.

Each hospital adds its share of the noise to its values, rounds them to a common grid and writes them as integers modulo
2^32 (or 2^64 where the range needs it). It adds pads that it shares with each other hospital, with opposite signs, so
that they cancel in the sum and nowhere else (``client/secure_sum/pads.py``). The server adds the words and takes the
result off the grid.

Noise. With H hospitals of which t may collude, each adds Gaussian noise of standard deviation sigma * C / sqrt(H - t):
the H - t honest ones together have sigma * C. The grid is a power of two, 2^-12 of the share or finer. A rounded sum of
Gaussians follows from the exact sum and from fractional parts; on so fine a grid these are uniform and independent but
for a difference of exp(-2 pi^2 2^24), so Gaussian accounting holds as it is.

Range. The sum must stay within half of the modulus; how many bits that takes follows from public sizes. A hospital that
sends more ruins the sum, as any hospital can, and harms no patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]

WORDS = "words"
"""Name of the one array in a report on a secure sum: all values in order of their tensors' names."""
_DIGITS = 1e4
_GRID_BITS = 12
_UNDECLARED = 4.0
"""A hospital may have so many times its public size in patients before the sum leaves its range."""
_NOISE = 64.0
"""Standard deviations of noise, of all hospitals together, for which there is room."""


def share(noise: float, hospitals: int, colluding: int) -> float:
    """The noise multiplier of one hospital's own part, so that all but ``colluding`` of ``hospitals`` together have
    ``noise``; rounded up to four decimals.

    >>> share(2.0, hospitals=5, colluding=1)
    1.0

    Raises:
        ValueError: nobody honest would be left.
    """
    if not 0 <= colluding < hospitals:
        raise ValueError(f"{colluding} colluding of {hospitals} hospitals leave nobody who is honest")
    return math.ceil(noise / math.sqrt(hospitals - colluding) * _DIGITS - 1e-9) / _DIGITS


@dataclass(frozen=True)
class Grid:
    """How values are written.

    Attributes:
        step: distance of neighbouring values, a power of two.
        bits: of a word, 32 or 64.
    """

    step: float
    bits: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the words."""
        return np.dtype(np.uint32 if self.bits == 32 else np.uint64)


def grid(noise: float, clip_norm: float, *, hospitals: int, colluding: int, patients: int) -> Grid:
    """The grid of a sum, the same for everybody who takes part: it follows from public numbers.

    Args:
        noise: noise multiplier of the sum.
        clip_norm: most that one patient changes it.
        patients: the public sizes of all hospitals together.
    """
    std = share(noise, hospitals, colluding) * clip_norm
    step = 2.0 ** (math.floor(math.log2(std)) - _GRID_BITS)
    largest = (_UNDECLARED * patients * clip_norm + _NOISE * std * math.sqrt(hospitals)) / step
    return Grid(step, 32 if largest < 2.0**31 else 64)


def encode(values: NDArray[np.float64], grid: Grid) -> Words:
    """Values as words; those beyond half of the modulus wrap around.

    >>> encode(np.array([0.5, -0.25]), Grid(step=0.25, bits=32))
    array([         2, 4294967295], dtype=uint32)
    """
    return np.round(values / grid.step).astype(np.int64).view(np.uint64).astype(grid.dtype)


def decode(words: Words, grid: Grid) -> NDArray[np.float64]:
    """The inverse of ``encode``, of a sum of words.

    >>> decode(np.array([2, 4294967295], np.uint32), Grid(step=0.25, bits=32))
    array([ 0.5 , -0.25])
    """
    signed = words.view(np.int32 if grid.bits == 32 else np.int64)
    return np.asarray(signed.astype(np.float64) * grid.step)
