"""Whether a prepared example is what it claims to be, looked at once more before it is kept.

What comes before knows headers; this looks at the values. An example that is wrong in spite of everything costs itself,
by a word, and never becomes a quiet zero in a study.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from client.sources.record import Unreadable
from tasks.exclusion import contradicted
from tasks.task import Picture, Scan, Task, Volume

_ON_IMAGE = 0.5
"""Least fraction of what is marked that must lie where something was imaged: outlines reach a little beyond."""
_POINTS = 20_000
_AIR_HU, _DENSEST_HU = -300.0, 40_000.0
"""Gas is below and soft tissue and fat above the first (fat has about -100, lung -500 and less); metal in an extended
range of CT numbers, of 16 bits, is below the second."""
_SOME_AIR = 1e-4
"""Least fraction of a CT's voxels that are gas: there is some around every patient, and in every chest."""


def require_sound_example(example: NDArray[np.float32]) -> None:
    """Refuse what a model can learn nothing from.

    Args:
        example: float32 of the task's ``example_shape``.

    Raises:
        Unreadable: NOT_FINITE, VALUES_NOT_IN_RANGE, or CONSTANT_EXAMPLE where the first channel, which every example
            has, shows nothing.
    """
    if not np.isfinite(example).all():
        raise Unreadable("NOT_FINITE", "the example has values that are not finite")
    if example.min() < 0 or example.max() > 1:
        raise Unreadable("VALUES_NOT_IN_RANGE", f"{example.min():g} to {example.max():g}, not 0 to 1")
    if np.ptp(example[0]) == 0:
        raise Unreadable("CONSTANT_EXAMPLE", f"every value is {float(example[0].flat[0]):g}")


def require_sound_picture(picture: Picture, example: NDArray[np.float32]) -> None:
    """``require_sound_example``, and that outlines lie inside the image area.

    Args:
        picture: with its masks, if it has any.

    Raises:
        Unreadable: as there, and MASK_OUTSIDE_IMAGE.
    """
    require_sound_example(example)
    if picture.masks is None or not picture.regions or not picture.masks.any():
        return
    inside = np.zeros(picture.pixels.shape, dtype=np.bool_)
    for left, top, right, bottom in picture.regions:
        inside[top:bottom, left:right] = True
    marked = picture.masks.any(axis=0)
    _require_on_image(float(inside[marked].mean()))


def require_sound_scan(scan: Scan, task: Task) -> None:
    """Refuse a scan whose values cannot be what their unit says, or whose outlines lie where nothing was imaged.

    Raises:
        Unreadable: NOT_FINITE, NOT_HOUNSFIELD, CONSTANT_IMAGE, MASK_OUTSIDE_IMAGE.
    """
    first = scan.volumes[task.sequences[0].name]
    for volume in scan.volumes.values():
        _require_possible(volume)
    if np.ptp(first.values) == 0:
        raise Unreadable("CONSTANT_IMAGE", "every voxel of the first sequence has the same value")
    for mask in (scan.masks or {}).values():
        if mask.values.any():
            _require_on_image(_on_image(mask, first))


def require_apart(masks: NDArray[np.bool_] | Mapping[str, Volume] | None, task: Task) -> None:
    """Refuse outlines in which a place belongs to two structures that exclude each other: a person must say to which.

    Args:
        masks: of a picture, bool (structures, rows, columns), or of a scan, by name of the structure.

    Raises:
        Unreadable: EXCLUSIVE_STRUCTURES_OVERLAP; EXCLUSIVE_STRUCTURES_ON_TWO_GRIDS where their voxels are not the same.
    """
    if masks is None:
        return
    for group in task.exclusive:
        if isinstance(masks, Mapping):
            own = _on_one_grid([masks[name] for name in group], group)
        else:
            own = masks[[structure.name in group for structure in task.structures]]
        if places := contradicted(own, [tuple(range(len(own)))]):
            raise Unreadable(
                "EXCLUSIVE_STRUCTURES_OVERLAP", f"{places} places belong to two of {', '.join(group)}, which cannot be"
            )


def _on_one_grid(masks: list[Volume], group: tuple[str, ...]) -> NDArray[np.bool_]:
    first = masks[0]
    if any(m.values.shape != first.values.shape or not np.allclose(m.affine, first.affine) for m in masks):
        raise Unreadable("EXCLUSIVE_STRUCTURES_ON_TWO_GRIDS", f"{', '.join(group)} were not outlined on one series")
    return np.stack([mask.values for mask in masks])


def _require_possible(volume: Volume) -> None:
    if not np.isfinite(volume.values).all():
        raise Unreadable("NOT_FINITE", "values that are not finite")
    if volume.unit != "HU":
        return
    imaged = volume.values if volume.imaged is None else volume.values[volume.imaged]
    gas = float((imaged < _AIR_HU).mean()) if imaged.size else 0.0
    if gas < _SOME_AIR or float(imaged.max()) > _DENSEST_HU:
        raise Unreadable("NOT_HOUNSFIELD", f"{imaged.min():g} to {imaged.max():g} HU, {gas:.2%} of it gas")


def _require_on_image(fraction: float) -> None:
    if fraction < _ON_IMAGE:
        raise Unreadable("MASK_OUTSIDE_IMAGE", f"only {fraction:.0%} of what is outlined was imaged")


def _on_image(mask: Volume, image: Volume) -> float:
    """The fraction of a mask's voxels whose centres lie on imaged voxels."""
    marked = np.argwhere(mask.values)
    marked = marked[:: max(1, len(marked) // _POINTS)]
    points = marked @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    inverse = np.linalg.inv(image.affine)
    places = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    inside = ((places >= 0) & (places < image.values.shape)).all(axis=1)
    if image.imaged is not None:
        inside[inside] = image.imaged[tuple(places[inside].T)]
    return float(inside.mean())
