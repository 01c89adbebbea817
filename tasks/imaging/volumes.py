"""From an examination to arrays on one grid: what the transforms of several volume tasks share.

Grids and volumes are in DICOM's patient space (x to the left, y to the back, z to the head: LPS). MONAI, which
resamples, counts to the right and to the front (RAS), as NIfTI does; the turn between the two is made here and nowhere
else. All of it is deterministic: the same scan gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from tasks.imaging.augmentation import drawn, plain
from tasks.task import Augmentation, Volume

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

# MONAI is imported where it is used: that takes seconds, and most processes transform no volume.

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_FWHM = float(np.sqrt(8 * np.log(2)))
_REACH = 3.0
"""Standard deviations at which a blur is cut."""
_GRID = " grid"  # no sequence and no structure has a blank in its name
_POINTS = 64
"""Points along each axis by which a head is found; more would tell nothing new."""
_HEAD_MM, _HALF_MM = 150.0, 80.0


class NoExample(Exception):
    """A scan cannot become an example of this task; ``reason`` is one word from a fixed list, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True)
class VoxelGrid:
    """Where the voxels of an example lie.

    Attributes:
        shape: slices, rows, columns.
        affine: float64 (4, 4), from (slice, row, column, 1) to the patient in millimetres (LPS).
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Along slices, rows, columns."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))


def axial_grid(
    centre_mm: NDArray[np.float64], shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> VoxelGrid:
    """The grid about a point whose slices go to the head, rows to the back and columns to the left."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * spacing_mm
    affine[:3, 3] = centre_mm - affine[:3, :3] @ (np.subtract(shape, 1) / 2)
    return VoxelGrid(shape, affine)


def resampled(volumes: Mapping[str, Volume], grid: VoxelGrid) -> dict[str, NDArray[np.float32]]:
    """Values of each volume on the grid, trilinear; 0 where the volume does not reach.

    Where the grid is coarser than the volume, the volume is blurred before it is sampled, so that noise is averaged
    and not picked: by the Gaussian that turns its point-spread function into the grid's, each taken to be as wide at
    half its height as the spacing (Cardoso et al., Scale factor point spread function matching, MICCAI 2015).
    """
    return _on_grid(volumes, grid, "bilinear", _blurred)


def resampled_masks(masks: Mapping[str, Volume], grid: VoxelGrid) -> dict[str, NDArray[np.bool_]]:
    """Masks on the grid, each voxel as the nearest one was: a thin rim keeps its share of space, which any threshold
    after an average would take from it. Nothing is marked where the mask does not reach."""
    found = _on_grid(masks, grid, "nearest", lambda mask, grid: mask)
    return {name: values > 0.5 for name, values in found.items()}


def placed_masks(masks: NDArray[np.bool_], grid: VoxelGrid, volume: Volume) -> NDArray[np.bool_]:
    """Masks on the grid at their place in a volume, smooth between the grid's voxels.

    Args:
        masks: bool (structures, *grid.shape).

    Returns:
        bool (structures, *volume.values.shape), nothing where the grid does not reach.
    """
    on = VoxelGrid(volume.values.shape, volume.affine)
    named = {str(number): Volume(mask, grid.affine) for number, mask in enumerate(masks)}
    found = _on_grid(named, on, "bilinear", lambda mask, grid: mask)
    return np.stack([values >= 0.5 for values in found.values()])


def _sigma(volume: Volume, grid: VoxelGrid) -> NDArray[np.float64]:
    """Of the blur along each axis of the volume, in its voxels."""
    source = np.linalg.norm(volume.affine[:3, :3], axis=0)
    wanted = float(grid.spacing_mm.mean())
    return np.asarray(np.sqrt(np.maximum(0.0, wanted**2 - source**2)) / _FWHM / source)


def _blurred(volume: Volume, grid: VoxelGrid) -> Volume:
    sigma = _sigma(volume, grid)
    if not sigma.any():
        return volume
    values = np.asarray(volume.values, dtype=np.float32)
    return replace(volume, values=gaussian_filter(values, sigma, mode="nearest", truncate=_REACH))


def _on_grid(
    volumes: Mapping[str, Volume], grid: VoxelGrid, mode: str, made: Callable[[Volume, VoxelGrid], Volume]
) -> dict[str, NDArray[np.float32]]:
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.spatial.dictionary import ResampleToMatchd

    near = {name: _near(volume, grid) for name, volume in volumes.items()}
    data: dict[Hashable, torch.Tensor] = {
        name: _tensor(made(volume, grid)) for name, volume in near.items() if volume is not None
    }
    names = list(data)
    if names:
        data[_GRID] = MetaTensor(torch.zeros(1, *grid.shape), affine=torch.from_numpy(_LPS_TO_RAS @ grid.affine))
        match = ResampleToMatchd(
            keys=names, key_dst=_GRID, mode=mode, padding_mode="zeros", align_corners=True, dtype=np.float32
        )
        data = dict(match(data))
    nothing = torch.zeros(1, *grid.shape)
    return {name: np.asarray(plain(data.get(name, nothing))[0].numpy(), dtype=np.float32) for name in volumes}


def _near(volume: Volume, grid: VoxelGrid) -> Volume | None:
    """The part of a volume that the grid can see, since a chest is a thousand times a nodule; ``None`` if there is
    none."""
    corners = np.array(list(product(*((-0.5, size - 0.5) for size in grid.shape))))
    to_index = np.linalg.inv(volume.affine) @ grid.affine
    seen = corners @ to_index[:3, :3].T + to_index[:3, 3]
    margin = 2 + np.ceil(_REACH * _sigma(volume, grid))
    first = np.maximum(0, np.floor(seen.min(axis=0) - margin)).astype(int)
    last = np.minimum(volume.values.shape, np.ceil(seen.max(axis=0) + margin + 1)).astype(int)
    if (first >= last).any():
        return None
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    return replace(volume, values=volume.values[tuple(map(slice, first, last))], affine=affine)


def _tensor(volume: Volume) -> MetaTensor:
    """With one channel and the affine in MONAI's space."""
    from monai.data.meta_tensor import MetaTensor

    data = torch.from_numpy(np.ascontiguousarray(volume.values, dtype=np.float32))[None]
    return MetaTensor(data, affine=torch.from_numpy(_LPS_TO_RAS @ volume.affine))


def largest_centre_mm(mask: Volume) -> NDArray[np.float64] | None:
    """Centroid in the patient of the largest connected part of a mask, float64 (3,); ``None`` where it is empty."""
    parts, number = label(mask.values, structure=np.ones((3, 3, 3)))
    if not number:
        return None
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    centre = np.argwhere(parts == largest).mean(axis=0)
    return np.asarray((mask.affine @ [*centre, 1.0])[:3])


def head_threshold(values: NDArray[np.float32]) -> float:
    """What parts the head from the air: a tenth of the way from the 2nd to the 98th percentile (Smith, Fast robust
    automated brain extraction, Hum Brain Mapp 17:143, 2002)."""
    low, high = np.percentile(values, (2, 98))
    return float(low + 0.1 * (high - low))


def head_centre_mm(volume: Volume) -> NDArray[np.float64]:
    """Where the middle of a brain is to be sought: 80 mm below the top of the head, between left and right, front and
    back of the 150 mm below the top. How far a scan reaches into the neck does not matter (as FSL's ``robustfov``).

    Raises:
        NoExample: CONSTANT_IMAGE, nothing is brighter than the rest.
    """
    steps = [max(1, size // _POINTS) for size in volume.values.shape]
    thinned = volume.values[:: steps[0], :: steps[1], :: steps[2]]
    inside = np.argwhere(thinned > head_threshold(thinned)) * steps
    if not len(inside):
        raise NoExample("CONSTANT_IMAGE", "nothing in the volume is brighter than the rest")
    points = inside @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    top = np.percentile(points[:, 2], 99.8)
    sides = np.percentile(points[points[:, 2] > top - _HEAD_MM, :2], (1, 99), axis=0)
    return np.asarray([*sides.mean(axis=0), top - _HALF_MM])


def standardised(values: NDArray[np.float32], inside: NDArray[np.bool_], reach: float) -> NDArray[np.float32]:
    """Grey values of a sequence without unit as robust z-scores, ``-reach`` to ``reach`` as 0 to 1; 0 outside.

    Median and median absolute deviation, not mean and standard deviation: vessels, tumour and what is left of the scalp
    are a small part, whose extremes these do not follow.

    Args:
        values: float32, of any shape.
        inside: bool of the same shape, what the scores are of.
        reach: in standard deviations of a normal distribution; beyond it values are cut.
    """
    if not inside.any():
        return np.zeros_like(values)
    middle = np.median(values[inside])
    spread = 1.4826 * float(np.median(np.abs(values[inside] - middle)))
    score = (values - middle) / np.float32(max(spread, 1e-6 * max(1.0, abs(float(middle)))))
    return np.where(inside, ((score / np.float32(reach) + 1) / 2).clip(0, 1), 0).astype(np.float32)


def of_scans(transforms: Callable[[Sequence[str]], list[Any]]) -> Augmentation:
    """A task's ``augment`` for volumes: a channel that is 0 everywhere was not acquired and stays so.

    Args:
        transforms: as ``tasks.imaging.augmentation.drawn`` takes them.

    Returns:
        From a float32 example (channels, slices, rows, columns) in [0, 1], bool masks (structures, slices, rows,
        columns), maybe of no structure, and a generator to both.
    """

    def augment(
        example: torch.Tensor, masks: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        changed, moved = drawn(example, masks, generator, transforms)
        acquired = (example.flatten(1) > 0).any(dim=1)[:, None, None, None]
        return changed * acquired, moved

    return augment
