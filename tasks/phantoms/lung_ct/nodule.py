"""The nodule of a phantom patient: how it looks when it is benign, and when it is malignant.

The signs are those by which radiologists rated LIDC-IDRI (Armato et al., Med Phys 38:915, 2011): size, spiculation,
lobulation, texture from ground glass to solid, calcification, margin. None decides alone, and in some patients all of
them mislead.

Tested in ``tests/tasks/phantoms/lung_ct/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.fields import Field

_SEPARATION = 3.2  # between the mean suspicion of benign and of malignant nodules, in standard deviations


@dataclass(frozen=True)
class Nodule:
    """One nodule; lengths in millimetres, densities in Hounsfield units.

    Attributes:
        radius: of the sphere of about its size.
        stretch: (3,) factors of the radius along slices, rows, columns.
        lobes: (count, 4) unit direction of a bulge and its height as a fraction of the radius.
        spicules: (count, 4) unit direction of a spicule and its length likewise.
        softness: width of the margin's transition.
        density: of its body; about -600 is ground glass, 40 is solid.
        core: radius of a solid core as a fraction; 0 where the body has none of its own.
        calcified: radius of the calcification as a fraction of the nodule's, and its density; 0 where there is none.
    """

    radius: float
    stretch: NDArray[np.float32]
    lobes: NDArray[np.float32]
    spicules: NDArray[np.float32]
    softness: float
    density: float
    core: float
    calcified: tuple[float, float]


def nodule_of(rng: np.random.Generator, malignant: bool) -> Nodule:
    """A patient's nodule. One hidden suspicion drives all signs, each sign adds its own chance, and the suspicions of
    benign and malignant nodules overlap: no reader can be right about every patient of a phantom hospital."""
    suspicion = rng.normal(_SEPARATION / 2 if malignant else -_SEPARATION / 2)

    def sign(benign: float, malignant: float, own: float = 0.8) -> float:
        share = 1 / (1 + np.exp(-(suspicion + own * rng.standard_normal())))
        return float(benign + (malignant - benign) * share)

    radius = float(np.clip(np.exp(rng.normal(np.log(sign(3.2, 8.0)), 0.18)), 2.2, 13.0))
    subsolid = rng.random() < sign(0.05, 0.4)
    spiculated = max(0.0, sign(-0.4, 1.1))
    calcified = not subsolid and rng.random() < sign(0.45, 0.0)
    lobes = _directions(rng, int(rng.integers(3, 7)))
    spicules = _directions(rng, int(rng.integers(7, 14)) if spiculated > 0.1 else 0)
    return Nodule(
        radius=radius,
        stretch=np.exp(rng.normal(0, 0.12, 3)).astype(np.float32),
        lobes=np.column_stack([lobes, rng.uniform(0.3, 1, len(lobes)) * sign(0.02, 0.5)]).astype(np.float32),
        spicules=np.column_stack([spicules, rng.uniform(0.4, 1, len(spicules)) * spiculated]).astype(np.float32),
        softness=sign(0.4, 1.3),
        density=rng.normal(-560, 60) if subsolid else sign(55, 25) + rng.normal(0, 12),
        core=float(rng.uniform(0.35, 0.7)) if subsolid and rng.random() < sign(0.2, 0.9) else 0.0,
        calcified=(float(rng.uniform(0.35, 0.8)), float(rng.uniform(180, 600))) if calcified else (0.0, 0.0),
    )


def _directions(rng: np.random.Generator, number: int) -> NDArray[np.float64]:
    vectors = rng.standard_normal((number, 3))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def drawn_into(density: Field, nodule: Nodule, at_mm: tuple[Field, Field, Field], near_mm: float) -> Field:
    """Put a nodule into the lung and say where it is.

    Args:
        density: float32 (slices, rows, columns) in Hounsfield units, is changed.
        nodule: what to draw.
        at_mm: places of the grid's slices, rows and columns, from the nodule's centre.
        near_mm: how much of the surroundings is computed; at least what spicules reach.

    Returns:
        float32 of the same shape, the share of the nodule's body in each voxel, spicules not counted: readers outline
        the body.
    """
    part = np.s_[tuple(slice(*np.searchsorted(axis, (-near_mm, near_mm))) for axis in at_mm)]
    z, y, x = (axis[one] / stretch for axis, one, stretch in zip(at_mm, part, nodule.stretch, strict=True))
    apart = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
    way = np.stack(np.broadcast_arrays(z[:, None, None], y[None, :, None], x[None, None, :]), axis=-1)
    way = way / np.maximum(apart, np.float32(1e-3))[..., None]
    edge = np.float32(nodule.radius) * (1 + _bulges(way, nodule.lobes, 0.5))
    body = _inside(edge - apart, nodule.softness)
    reach = edge * (1 + _bulges(way, nodule.spicules, 0.13))
    ray = _inside(reach - apart, 0.5) * (1 - body)
    local = density[part]
    local += ray * np.float32(0.75) * (np.float32(nodule.density) - local).clip(0, None)
    local += body * (np.float32(nodule.density) - local)
    inner = apart / edge
    if nodule.core:
        local += _inside((nodule.core - inner) * edge, 0.6) * (np.float32(35) - local)
    radius, hounsfield = nodule.calcified
    if radius:
        local += _inside((radius - inner) * edge, 0.5) * np.float32(hounsfield)
    share = np.zeros_like(density)
    share[part] = body
    return share


def _bulges(way: Field, bulges: NDArray[np.float32], width: float) -> Field:
    """Heights of bulges by direction, as a fraction of the radius; ``width`` is in radians."""
    heights = np.zeros(way.shape[:-1], dtype=np.float32)
    for *direction, height in bulges:
        along = way @ np.array(direction, dtype=np.float32)
        heights = np.maximum(heights, np.float32(height) * np.exp((along - 1) / np.float32(width**2)))
    return heights


def _inside(depth_mm: Field, softness: float) -> Field:
    return np.asarray(1 / (1 + np.exp(-(depth_mm * np.float32(4 / max(softness, 0.3))).clip(-30, 30))), np.float32)
