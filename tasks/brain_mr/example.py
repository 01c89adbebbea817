"""From a brain MR of several sequences to the network's input: all of the brain, one channel a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.brain_mr.brain import brain_of
from tasks.brain_mr.sequences import SEQUENCES
from tasks.brain_mr.structures import STRUCTURES
from tasks.imaging.volumes import (
    NoExample,
    VoxelGrid,
    axial_grid,
    head_centre_mm,
    of_scans,
    placed_masks,
    resampled,
    resampled_masks,
    standardised,
)
from tasks.task import Scan

SHAPE = (48, 48, 48)
SPACING_MM = (4.0, 4.0, 4.0)
_REACH = 4.0
"""Robust standard deviations about the brain's median that become 0 to 1; the brightest rims are beyond."""


def read_example(scan: Scan) -> NDArray[np.float32]:
    """All sequences on one grid of 192 mm at 4 mm about the brain, each standardised by itself.

    The sequences of one session share the patient's space; what moved between them is not put right. What is outside
    the brain, as far as that can be told on the contrast-enhanced T1 (``brain.py``), is 0.

    Args:
        scan: with the volume ``T1ce``, and ``FLAIR``, ``T2`` and ``T1`` where they were acquired.

    Returns:
        float32 (4, 48, 48, 48) in [0, 1], channels in the order of the task's sequences; a sequence that is missing is
        0 everywhere. Slices to the head, rows to the back, columns to the left.

    Raises:
        NoExample: CONSTANT_IMAGE, nothing can be seen on the contrast-enhanced T1.
    """
    found = resampled(scan.volumes, _grid(scan))
    brain = brain_of(found[SEQUENCES[0].name])
    example = np.zeros((len(SEQUENCES), *SHAPE), dtype=np.float32)
    for channel, sequence in zip(example, SEQUENCES, strict=True):
        if sequence.name in found:
            channel[:] = standardised(found[sequence.name], brain, _REACH)
    return example


def read_masks(scan: Scan) -> NDArray[np.bool_]:
    """bool (3, 48, 48, 48) on the grid of ``read_example``: whole tumour, tumour core, enhancing tumour, each with all
    that the next one has, also where a reader's outlines leave a gap.

    Raises:
        NoExample: as ``read_example``; NO_OUTLINE without masks.
    """
    if scan.masks is None:
        raise NoExample("NO_OUTLINE", "nobody has outlined anything")
    found = resampled_masks(scan.masks, _grid(scan))
    whole, core, enhancing = (found[structure.name] for structure in STRUCTURES)
    return np.stack([whole | core | enhancing, core | enhancing, enhancing])


def place_masks(scan: Scan, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The way back from ``read_masks``: on the grid of the contrast-enhanced T1, bool (3, slices, rows, columns).

    Raises:
        NoExample: as ``read_example``.
    """
    return placed_masks(masks, _grid(scan), scan.volumes[SEQUENCES[0].name])


def _grid(scan: Scan) -> VoxelGrid:
    return axial_grid(head_centre_mm(scan.volumes[SEQUENCES[0].name]), SHAPE, SPACING_MM)


def _random(keys: Sequence[str]) -> list[Any]:
    from monai.transforms.intensity.dictionary import RandGaussianNoised, RandScaleIntensityd, RandShiftIntensityd
    from monai.transforms.spatial.dictionary import RandAffined, RandFlipd

    mode = ["bilinear" if key == "example" else "nearest" for key in keys]
    return [
        RandFlipd(keys=keys, prob=0.5, spatial_axis=2),
        RandAffined(
            keys=keys,
            prob=0.8,
            rotate_range=(0.17, 0.17, 0.17),
            translate_range=(2, 2, 2),
            scale_range=(0.1, 0.1, 0.1),
            mode=mode,
            padding_mode="zeros",
        ),
        RandScaleIntensityd(keys="example", prob=0.5, factors=0.1, channel_wise=True),
        RandShiftIntensityd(keys="example", prob=0.3, offsets=0.03),
        RandGaussianNoised(keys="example", prob=0.3, std=0.02),
    ]


augment = of_scans(_random)
"""Mirrored left to right, turned by up to 10 degrees, moved, a little larger or smaller, brighter or noisier."""
