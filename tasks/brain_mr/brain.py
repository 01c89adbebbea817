"""Where the brain is on a T1: so that the scalp, which is brighter than any tumour, does not dominate the image.

Tested in ``tests/tasks/brain_mr/test_example.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_dilation, binary_erosion, binary_fill_holes, generate_binary_structure
from scipy.ndimage import label as parts_of

from tasks.imaging.volumes import head_threshold

_TISSUE = 0.6
"""Brain has more than this fraction of the head's median on T1; bone, fluid and air have less."""
_SHELL = 2
"""Voxels that are taken away and given back: a scalp is thinner than four."""
_FOLDS = 3
_BALL = generate_binary_structure(3, 1)


def brain_of(t1: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The brain with its ventricles, bool of the same shape.

    Bone and fluid are dark on T1 and part the brain from the scalp: of what is bright, two voxels are taken away, the
    largest part that is left is kept and given them back, and its folds and holes are filled. Where a bridge remains,
    by the eyes or along an enhancing vessel, some of the face may stay. A volume without a skull stays as it is, but
    for a few voxels at its edge.

    Args:
        t1: float32 (slices, rows, columns) of voxels of about 4 mm, with contrast agent or without.
    """
    head = t1 > head_threshold(t1)
    if not head.any():
        return head
    tissue = t1 > _TISSUE * np.median(t1[head])
    parts, number = parts_of(binary_erosion(tissue, _BALL, iterations=_SHELL), structure=_BALL)
    if not number:
        return head
    core = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    grown = binary_dilation(core, _BALL, iterations=_SHELL)
    closed = binary_closing(np.pad(grown, _FOLDS), _BALL, iterations=_FOLDS)
    return np.asarray(binary_fill_holes(closed[_FOLDS:-_FOLDS, _FOLDS:-_FOLDS, _FOLDS:-_FOLDS]), np.bool_)
