"""From a chest CT to the network's input: a cube about the outlined nodule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.imaging.volumes import (
    NoExample,
    VoxelGrid,
    axial_grid,
    largest_centre_mm,
    of_scans,
    placed_masks,
    resampled,
    resampled_masks,
)
from tasks.lung_ct.structures import STRUCTURES
from tasks.task import Scan

SHAPE = (40, 40, 40)
SPACING_MM = (1.0, 1.0, 1.0)
WINDOW_HU = (-1000.0, 400.0)
"""Air to dense soft tissue, as is usual for nodules (LUNA16); what is denser is calcium or bone, and all the same."""


def read_example(scan: Scan) -> NDArray[np.float32]:
    """The 40 mm about the centre of the largest outlined nodule at 1 mm, of any spacing and orientation.

    A nodule has at most 30 mm by definition (Fleischner Society); the rest is what it sits in and pulls at. Where the
    scan ends there is air.

    Args:
        scan: with the volume ``CT`` in Hounsfield units and the mask ``nodule``.

    Returns:
        float32 (1, 40, 40, 40) in [0, 1]: slices to the head, rows to the back, columns to the left.

    Raises:
        NoExample: NO_OUTLINE where nobody has outlined a nodule: an examination has one label and maybe several
            nodules, and nothing says which one it means.
    """
    ct, low = scan.volumes["CT"], np.float32(WINDOW_HU[0])
    above_air = type(ct)(np.asarray(ct.values, dtype=np.float32) - low, ct.affine, ct.unit)
    values = resampled({"CT": above_air}, _grid(scan))["CT"] / np.float32(WINDOW_HU[1] - WINDOW_HU[0])
    return np.asarray(values.clip(0, 1)[None], dtype=np.float32)


def read_masks(scan: Scan) -> NDArray[np.bool_]:
    """bool (1, 40, 40, 40) on the grid of ``read_example``: all outlined nodules that reach into it.

    Raises:
        NoExample: as ``read_example``.
    """
    found = resampled_masks({} if scan.masks is None else scan.masks, _grid(scan))
    return np.stack([found[structure.name] for structure in STRUCTURES])


def place_masks(scan: Scan, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The way back from ``read_masks``: on the grid of the CT, bool (1, slices, rows, columns).

    Raises:
        NoExample: as ``read_example``.
    """
    return placed_masks(masks, _grid(scan), scan.volumes["CT"])


def _grid(scan: Scan) -> VoxelGrid:
    centre = None if scan.masks is None else largest_centre_mm(scan.masks["nodule"])
    if centre is None:
        raise NoExample("NO_OUTLINE", "no nodule is outlined, so that nothing says where the label's nodule is")
    return axial_grid(centre, SHAPE, SPACING_MM)


def _random(keys: Sequence[str]) -> list[Any]:
    from monai.transforms.intensity.dictionary import RandGaussianNoised, RandShiftIntensityd
    from monai.transforms.spatial.dictionary import RandAffined, RandFlipd, RandRotate90d

    mode = ["bilinear" if key == "example" else "nearest" for key in keys]
    return [
        *(RandFlipd(keys=keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
        RandRotate90d(keys=keys, prob=0.5, max_k=3, spatial_axes=(1, 2)),
        RandAffined(
            keys=keys,
            prob=0.8,
            rotate_range=(0.3, 0.3, 0.3),
            translate_range=(3, 3, 3),
            scale_range=(0.1, 0.1, 0.1),
            mode=mode,
            padding_mode="border",
        ),
        RandShiftIntensityd(keys="example", prob=0.5, offsets=0.03),
        RandGaussianNoised(keys="example", prob=0.3, std=0.02),
    ]


augment = of_scans(_random)
"""Mirrored, turned, moved by up to 3 mm, a little larger or smaller, denser or noisier."""
