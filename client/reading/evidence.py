"""Evidence of an image's history in the pixels themselves, whatever its header says.

JPEG rounds the cosine coefficients of every 8x8 block to multiples of a step (ITU-T T.81 annex A.3). Afterwards they
still lie near those multiples, as long as nobody has resized, cropped off the grid, or windowed the image; Fan and de
Queiroz (IEEE Trans. Image Process. 12:230, 2003) find them so. Quality 95 has steps of 1 to 2 grey levels, which the
rounding to whole levels hides: such images are not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from client.reading.lettering import glyphs

_LOW = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))  # where nearly all images have energy
_STEPS = np.arange(2, 25, dtype=np.float32)
_MOST_BLOCKS, _FEWEST_BLOCKS, _FEWEST_VALUES = 256, 64, 40
_FLAT = 2.0  # grey levels within a block; of flat blocks nothing is left to round


@dataclass(frozen=True)
class PixelEvidence:
    """Evidence from one image.

    Attributes:
        jpeg: strength of JPEG's trace, 0 to 1; ``None`` when too few blocks have structure to tell.
        levels: how many different grey values there are.
        glyphs: of the longest line of text at an edge, see ``client/reading/lettering.py``.
    """

    jpeg: float | None
    levels: int
    glyphs: int = 0


def examine(
    pixels: NDArray[np.float32], bits_stored: int | None, shown: NDArray[np.float32] | None = None
) -> PixelEvidence:
    """Examine a complete decoded frame, before anything is cropped.

    Args:
        pixels: float32 (rows, columns) in [0, 1] over the range of the stored bits.
        bits_stored: how many those are; ``None`` when the source does not tell.
        shown: the same with what a model never sees blacked out, if anything; text is looked for in it.
    """
    levels = _levels(pixels, bits_stored)
    # A trace of 8-bit JPEG has steps of 8-bit levels; an image that really uses more bits, steps of its own levels.
    high = 255 if bits_stored is None or levels <= 256 else 2**bits_stored - 1
    return PixelEvidence(_jpeg(pixels, high), levels, glyphs(pixels if shown is None else shown))


def _levels(pixels: NDArray[np.float32], bits_stored: int | None) -> int:
    high = 2 ** min(bits_stored or 16, 16) - 1
    whole = np.rint(pixels * np.float32(high)).astype(np.int32).clip(0, high)
    return int(np.count_nonzero(np.bincount(whole.ravel(), minlength=high + 1)))


def _jpeg(pixels: NDArray[np.float32], high: int) -> float | None:
    rows, columns = pixels.shape[0] // 8, pixels.shape[1] // 8
    blocks = pixels[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    lively = np.flatnonzero(np.ptp(blocks, axis=(1, 2)) > _FLAT / high)
    if len(lively) < _FEWEST_BLOCKS:
        return None
    spread = lively[np.linspace(0, len(lively) - 1, min(len(lively), _MOST_BLOCKS)).astype(np.intp)]
    coefficients = dctn(blocks[spread] * np.float32(high), axes=(1, 2), norm="ortho")
    return float(np.median([_combed(coefficients[:, row, column]) for row, column in _LOW]))


def _combed(values: NDArray[np.float32]) -> float:
    """How closely values match multiples of the best step: 1 exactly, about 0 not at all.

    Values near zero keep to any step and are left out; what chance would give is taken off (three standard errors).
    """
    counted = np.abs(values) >= 0.75 * _STEPS[:, None]
    enough = counted.sum(axis=1)
    usable = enough >= _FEWEST_VALUES
    if not usable.any():
        return 0.0
    near = np.cos(np.float32(2 * np.pi) * values / _STEPS[usable, None]) * counted[usable]
    number = enough[usable]
    return float(max(0.0, np.max(near.sum(axis=1) / number - 3 / np.sqrt(number))))
