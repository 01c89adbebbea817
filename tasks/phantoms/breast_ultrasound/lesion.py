"""The lesion of a phantom patient: how it looks when it is benign, and when it is malignant.

The signs are those of the ACR BI-RADS ultrasound lexicon: shape, orientation, margin, echo pattern, posterior features.
None of them decides alone, and in some patients all of them mislead; so it is with real lesions.

Tested in ``tests/tasks/phantoms/breast_ultrasound/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.fields import Field

_ANGLES = 720
_SEPARATION = 2.6  # between the mean suspicion of benign and of malignant lesions, in standard deviations


@dataclass(frozen=True)
class Lesion:
    """One lesion in one plane; lengths in millimetres, echoes in decibels below the brightest.

    Attributes:
        across: half its width.
        aspect: height to width; above 1 is taller than wide.
        tilt: rotation in radians.
        outline: float32 (720,), the radius by angle, 1 where it is a plain ellipse.
        softness: width of the margin's transition, as a fraction of the radius.
        echo: inside the lesion.
        shadow_db_per_mm: two-way loss inside the lesion beyond that of tissue; negative enhances what lies behind.
        halo: the bright reaction of tissue around the lesion.
        spicules: the bright lines that run out of it.
        calcifications: bright specks inside, a count.
    """

    across: float
    aspect: float
    tilt: float
    outline: Field
    softness: float
    echo: float
    shadow_db_per_mm: float
    halo: float
    spicules: float
    calcifications: int


def lesion_of(rng: np.random.Generator, malignant: bool) -> Lesion:
    """A patient's lesion.

    One hidden suspicion drives all signs, each sign adds its own chance, and the suspicions of benign and malignant
    lesions overlap: no reader can be right about every patient of a phantom hospital.
    """
    suspicion = rng.normal(_SEPARATION / 2 if malignant else -_SEPARATION / 2)

    def sign(benign: float, malignant: float, own: float = 0.8) -> float:
        share = 1 / (1 + np.exp(-(suspicion + own * rng.standard_normal())))
        return float(benign + (malignant - benign) * share)

    roughness = sign(0.0, 0.10)
    return Lesion(
        across=float(np.exp(rng.normal(1.65, 0.3))),
        aspect=sign(0.5, 1.15),
        tilt=float(rng.normal(0, 0.15)),
        outline=_outline(rng, lobes=float(rng.uniform(0.02, 0.07)), roughness=roughness),
        softness=sign(0.04, 0.16),
        echo=sign(-23, -31) if suspicion > 0 or rng.random() < 0.8 else -45.0,
        shadow_db_per_mm=sign(-0.9, 1.3, own=1.2),
        halo=sign(0, 5),
        spicules=sign(-4, 8),
        calcifications=int(rng.poisson(max(0.0, sign(-2, 3)))),
    )


def seen_again(lesion: Lesion, rng: np.random.Generator) -> Lesion:
    """The same lesion in another plane: turned and cut a little differently, of the same nature."""
    return replace(
        lesion,
        across=lesion.across * float(np.exp(rng.normal(0, 0.08))),
        aspect=lesion.aspect * float(np.exp(rng.normal(0, 0.07))),
        tilt=lesion.tilt + float(rng.normal(0, 0.1)),
        outline=np.roll(lesion.outline, int(rng.normal(0, 12))),
    )


def _outline(rng: np.random.Generator, lobes: float, roughness: float) -> Field:
    """Radius by angle: a few gentle lobes, and many small angular ones in proportion to ``roughness``."""
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    order = np.arange(2, 15)
    size = np.where(order < 5, lobes, roughness / np.sqrt(order / 5)) * rng.standard_normal(order.size)
    waves = np.cos(order[:, None] * angle + rng.uniform(0, 2 * np.pi, order.size)[:, None])
    return np.asarray((1 + (size / 1.5) @ waves).clip(0.45, 1.7), dtype=np.float32)


def echo_of(lesion: Lesion, rng: np.random.Generator, x_mm: Field, z_mm: Field, tissue: Field) -> Field:
    """What the lesion makes of its surroundings' echo.

    Args:
        lesion: what to draw.
        rng: for the places of spicules and calcifications.
        x_mm: (columns,) lateral distance from the lesion's centre.
        z_mm: (rows,) depth below the lesion's centre.
        tissue: float32 (rows, columns), echo of the tissue in decibels.

    Returns:
        float32 (rows, columns) in decibels, with the shadow or enhancement behind the lesion.
    """
    distance, angle = _distance(lesion, x_mm, z_mm)
    inside = 1 / (1 + np.exp(((distance - 1) / np.float32(lesion.softness)).clip(-30, 30)))
    around = np.exp(-(((distance - 1.12) / np.float32(0.16)) ** 2))
    rays = _rays(rng)
    reach = np.exp(-((distance - 1).clip(0, None) / np.float32(0.35))) * (distance > 1)
    outside = tissue + lesion.halo * around + max(0.0, lesion.spicules) * rays[angle] * reach
    echo = outside + inside * (lesion.echo - outside)
    _calcify(echo, lesion, rng, x_mm, z_mm)
    path_mm = np.cumsum(inside, axis=0) * np.float32(abs(z_mm[1] - z_mm[0]))
    loss: Field = (echo - path_mm * np.float32(lesion.shadow_db_per_mm) * (1 - inside / 2)).astype(np.float32)
    return loss


def outline_of(lesion: Lesion, x_mm: Field, z_mm: Field) -> NDArray[np.bool_]:
    """Where the lesion is, without its halo and spicules: bool (rows, columns); places as for ``echo_of``."""
    return _distance(lesion, x_mm, z_mm)[0] < 1


def _distance(lesion: Lesion, x_mm: Field, z_mm: Field) -> tuple[Field, NDArray[np.int32]]:
    """How far from the lesion's centre in units of its margin's distance, and in which direction, 0 to 719."""
    c, s = cos(lesion.tilt), sin(lesion.tilt)
    across = c * x_mm[None, :] + s * z_mm[:, None]
    down = (c * z_mm[:, None] - s * x_mm[None, :]) / np.float32(lesion.aspect)
    angle = (np.arctan2(down, across) * np.float32(_ANGLES / 2 / np.pi)).astype(np.int32) % _ANGLES
    return np.hypot(across, down) / (np.float32(lesion.across) * lesion.outline[angle]), angle


def _rays(rng: np.random.Generator) -> Field:
    """How much of a spicule runs in each direction, (720,) in [0, 1]."""
    turns = np.arange(_ANGLES)[:, None] / _ANGLES - rng.random(int(rng.integers(6, 14)))
    apart = np.abs(turns - np.rint(turns)) * 2 * np.pi
    return np.asarray(np.exp(-((apart / 0.07) ** 2)).max(axis=1), dtype=np.float32)


def _calcify(echo: Field, lesion: Lesion, rng: np.random.Generator, x_mm: Field, z_mm: Field) -> None:
    for _ in range(lesion.calcifications):
        x, z = rng.normal(0, 0.4, 2) * (lesion.across, lesion.across * lesion.aspect)
        echo[np.abs(z_mm - z).argmin(), np.abs(x_mm - x).argmin()] = 8
