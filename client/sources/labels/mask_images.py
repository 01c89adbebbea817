"""Labels from mask images: one PNG or NIfTI file per image, named by SOPInstanceUID; pixels above zero are marked.

Tested in ``tests/client/sources/labels/test_annotations.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from client.sources.labels.mask_files import mask_pixels
from client.sources.nifti_volume import MAX_VOXELS
from client.sources.record import Unreadable
from client.sources.settings import MaskLabels

_ENDINGS = (".nii.gz", ".nii", ".png")


def labels_of_masks(source: MaskLabels, files: list[Path], left_out: Counter[str]) -> Iterator[tuple[str, int]]:
    """SOPInstanceUID and label of each mask: 1 if it marks anything, 0 if it is empty.

    Counted: ``NOT_A_MASK`` for other files, ``MASK_UNREADABLE``, ``MASK_TOO_SMALL`` for marks below ``min_pixels``.
    """
    for path in files:
        ending = next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), None)
        if ending is None:
            left_out["NOT_A_MASK"] += 1
            continue
        try:
            marked = marked_pixels(path)
        except Unreadable:
            left_out["MASK_UNREADABLE"] += 1
            continue
        if 0 < marked < source.min_pixels:
            left_out["MASK_TOO_SMALL"] += 1  # a slip of the pen is neither a finding nor its absence
            continue
        yield path.name[: -len(ending)], int(marked > 0)


def marked_pixels(path: Path) -> int:
    """Number of pixels or voxels of a mask above zero.

    Raises:
        Unreadable: MASK_UNREADABLE.
    """
    try:
        return _of_image(path) if path.suffix.lower() == ".png" else _of_volume(path)
    except Unreadable:
        raise
    except Exception as error:  # a broken file may provoke any error in a parser; each means the same to us
        raise Unreadable("MASK_UNREADABLE", f"{path}: {type(error).__name__}: {error}") from error


def _of_image(path: Path) -> int:
    return int(np.count_nonzero(mask_pixels(path, ("PNG",))))


def _of_volume(path: Path) -> int:
    image: Any = nib.load(path)
    if int(np.prod(image.shape, dtype=np.float64)) > MAX_VOXELS:
        raise Unreadable("MASK_UNREADABLE", f"{path}: shape {image.shape}")
    values = np.asanyarray(image.dataobj)
    return int(np.count_nonzero(values > 0))
