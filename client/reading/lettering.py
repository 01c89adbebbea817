"""Lines of text in the pixels, where burned-in names stand: at the edges of a frame.

A glyph is a connected stroke of nearly one brightness that fills part of its box, on a flat ground; a line is a row of
glyphs of like height, close to each other, on one baseline. Speckle, bone and skin have spots too, but not rows of
them. It finds text as scanners write it, not handwriting; who wants to be sure looks (``client/setup/page.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, grey_opening, label

_EDGE = 0.2
"""Part of the rows at the top and at the bottom, and as much of the columns at either side, that is searched."""
_LOWEST, _HIGHEST = 5, 48
"""Rows that a glyph has; smaller ones nobody can read."""
_CONTRAST = 0.25
"""Of the band's range: by which a stroke is brighter, or darker, than its ground."""
_STROKE = 9
"""No stroke is as thick as this many pixels and a box around it is: larger bright areas are the image."""
_FILLED = (0.15, 0.9)
_LIKE, _GAP, _BASELINE = 0.35, 1.5, 0.4
"""Fractions of a glyph's height: by which heights in a line differ, glyphs stand apart, and their feet do."""
_FLAT = 0.04
"""Standard deviation of the ground between a line's strokes, of the band's range: text is written on black, or on a
bar."""
_EVEN = 0.12
"""Standard deviation of the glyphs' brightest pixels, of the band's range: text is written in one brightness."""


@dataclass(frozen=True)
class _Glyph:
    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top


def glyphs(pixels: NDArray[np.float32]) -> int:
    """How many glyphs the longest line of text at an edge has; 0 without any.

    Args:
        pixels: float32 (rows, columns) in [0, 1], a complete frame.
    """
    return max((_longest(band) for band in _bands(pixels)), default=0)


def _bands(pixels: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    rows, columns = (max(_HIGHEST, int(_EDGE * size)) for size in pixels.shape)
    yield from (pixels[:rows], pixels[-rows:])
    if pixels.shape[0] > 2 * rows:
        yield from (pixels[rows:-rows, :columns], pixels[rows:-rows, -columns:])


def _longest(band: NDArray[np.float32]) -> int:
    low, high = float(band.min()), float(band.max())
    if high - low < 1 / 255:
        return 0
    scaled = (band - low) / (high - low)
    return max(_longest_bright(scaled), _longest_bright(1 - scaled))


def _longest_bright(band: NDArray[np.float32]) -> int:
    """Of bright text on a darker ground: what an opening with a square that no stroke holds takes away."""
    above = band - grey_opening(band, size=(_STROKE, _STROKE))
    parts, number = label(above > _CONTRAST, structure=np.ones((3, 3)))
    if number < 2:
        return 0
    found = [glyph for place, box in enumerate(find_objects(parts), start=1) if (glyph := _glyph(parts, place, box))]
    return max((len(line) for line in _lines(found) if _is_written(band, above, line)), default=0)


def _glyph(parts: NDArray[Any], place: int, box: tuple[slice, ...]) -> _Glyph | None:
    rows, columns = box
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not _LOWEST <= height <= _HIGHEST or width > 2 * height:
        return None
    filled = float((parts[box] == place).mean())
    if not _FILLED[0] <= filled <= _FILLED[1] and width > height / 2:  # an I, an l and a 1 fill their box
        return None
    return _Glyph(rows.start, rows.stop, columns.start, columns.stop)


def _lines(found: list[_Glyph]) -> Iterator[list[_Glyph]]:
    """Rows of glyphs, from left to right; a glyph joins the line whose last one it follows."""
    lines: list[list[_Glyph]] = []
    for glyph in sorted(found, key=lambda glyph: glyph.left):
        line = next((line for line in lines if _follows(line[-1], glyph)), None)
        if line is None:
            lines.append([glyph])
        else:
            line.append(glyph)
    return iter(lines)


def _follows(one: _Glyph, other: _Glyph) -> bool:
    height = max(one.height, other.height)
    return (
        abs(one.height - other.height) <= _LIKE * height
        and abs(one.bottom - other.bottom) <= _BASELINE * height
        and -0.2 * height <= other.left - one.right <= _GAP * height
    )


def _is_written(band: NDArray[np.float32], above: NDArray[np.float32], line: list[_Glyph]) -> bool:
    """Whether the ground between the strokes is of one brightness, and the strokes are."""
    rows = slice(min(glyph.top for glyph in line), max(glyph.bottom for glyph in line))
    columns = slice(line[0].left, line[-1].right)
    contrast, shown = above[rows, columns], band[rows, columns]
    ground = shown[contrast < _CONTRAST / 2]
    peaks = [float(band[glyph.top : glyph.bottom, glyph.left : glyph.right].max()) for glyph in line]
    return bool(len(ground)) and float(ground.std()) <= _FLAT and float(np.std(peaks)) <= _EVEN
