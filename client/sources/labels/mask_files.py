"""Masks as image files: every pixel above zero is marked.

Tested in ``tests/client/sources/labels/test_annotations.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.sources.record import Unreadable

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded."""


def files_of(folder: Path, cell: str | None) -> list[Path]:
    """The files in a cell of a manifest, separated by ``;``."""
    return [folder / name for part in (cell or "").split(";") if (name := part.strip())]


def image_size(path: Path) -> tuple[int, int] | None:
    """Rows and columns from the file's header; ``None`` if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def mask_pixels(path: Path, formats: Sequence[str] = ("PNG", "BMP", "GIF", "TIFF")) -> NDArray[np.bool_]:
    """The pixels a file marks, bool of shape (rows, columns).

    Formats that lose something are not read: their rings around an edge would mark as well.

    Raises:
        Unreadable: MASK_UNREADABLE.
    """
    try:
        with Image.open(path, formats=tuple(formats)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable("MASK_UNREADABLE", f"{path}: {image.width}x{image.height} pixels")
            deep = image.mode.startswith("I")
            return np.asarray(image if deep else image.convert("L")) > 0
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unreadable("MASK_UNREADABLE", f"{path}: {type(error).__name__}: {error}") from error


def read_mask_files(files: Sequence[Sequence[Path]]) -> NDArray[np.bool_]:
    """Masks of shape (structures, rows, columns): the union of each structure's files, at least one each.

    Raises:
        Unreadable: MASK_UNREADABLE.
    """
    try:
        return np.stack([np.logical_or.reduce([mask_pixels(path) for path in some]) for some in files])
    except ValueError as error:  # a file has changed since it was listed
        raise Unreadable("MASK_UNREADABLE", f"masks of different sizes: {error}") from error
