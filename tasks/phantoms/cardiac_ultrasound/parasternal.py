"""A phantom patient's heart from beside the breastbone: along its long axis, and across it at the papillary muscles.

Along the long axis the probe sees the heart of ``heart.py`` lying on its side, the apex beyond the left edge: where
that one has the right heart, this view has the right ventricle's outflow above the septum and the aortic root above the
left atrium. Across it the left ventricle is a ring, with the right ventricle as a crescent upon its septum (Lang et
al., J Am Soc Echocardiogr 28:1, 2015).

Tested in ``tests/tasks/phantoms/heart_views/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.cardiac_ultrasound.heart import Anatomy, Heart, anatomy_of


@dataclass(frozen=True)
class Window:
    """Where the probe stands beside the breastbone; lengths in millimetres.

    Attributes:
        deep: from the skin to the middle of the ventricle.
        aside: of that middle from the probe's.
        turned: of the long axis against the skin, in radians, or around the short axis.
    """

    deep: float
    aside: float
    turned: float


def window_of(rng: np.random.Generator) -> Window:
    """Of one patient."""
    return Window(float(rng.uniform(58, 82)), float(rng.normal(0, 7)), float(rng.normal(0, 0.14)))


def long_axis_of(heart: Heart, window: Window, phase: float, x_mm: NDArray[Any], z_mm: NDArray[Any]) -> Anatomy:
    """What lies at these places in the parasternal long axis; ``anatomy_of`` says of what kind they are."""
    lying = -1.32 + window.turned  # the base a little deeper than the apex
    middle = 0.55 * heart.length
    apex = window.aside - middle * sin(lying), window.deep - middle * cos(lying)
    turned = replace(heart, tilt=lying, apex=apex, right=max(heart.right, 0.55), right_width=0.8 * heart.right_width)
    return anatomy_of(turned, phase, -np.asarray(x_mm), z_mm)


def short_axis_of(heart: Heart, window: Window, phase: float, x_mm: NDArray[Any], z_mm: NDArray[Any]) -> Anatomy:
    """Likewise in the parasternal short axis, where there is no atrium and no valve."""
    drawn = heart.contraction * phase
    x, z = np.broadcast_arrays(np.asarray(x_mm) - window.aside, np.asarray(z_mm) - window.deep)
    radius, angle = np.hypot(x, z), np.arctan2(x, -z) + window.turned  # 0 is towards the probe, the right to the right
    cavity, wall = heart.width * (1 - drawn) * (1 + 0.05 * np.cos(2 * angle)), heart.wall * (1 + 1.2 * drawn)
    papillary = sum(
        _ramp(5.0 - np.hypot(radius * np.sin(angle - at), radius * np.cos(angle - at) - 0.72 * cavity), 1.0)
        for at in (2.3, -2.3)
    )
    inside = _ramp(cavity - radius, 0.8)
    muscle = np.maximum(_ramp(cavity + wall - radius, 0.8) * (1 - inside), inside * np.clip(papillary, 0, 1))
    # The crescent lies on the septum, to the upper left of the ring.
    reach = np.cos((angle + 1.05).clip(-np.pi, np.pi)).clip(0, 1) ** 0.7
    crescent, beyond = 1.5 * heart.right_width * (1 - 0.6 * drawn) * reach, radius - cavity - wall - 1.0
    right = _ramp(np.minimum(beyond, crescent - beyond), 1.0)
    right_wall = _ramp(np.minimum(beyond + 1, crescent + 4.0 - beyond), 1.0) * (reach > 0.05)
    pericardium = np.abs(radius - cavity - wall - 2.5) < 1.2
    nothing = np.zeros_like(radius)
    beam = np.arctan2(np.asarray(x_mm), np.asarray(z_mm) + 1e-3)
    crossing = np.abs(np.cos(angle + beam))
    fields = (
        inside * (1 - muscle),
        muscle,
        nothing,
        right,
        right_wall,
        nothing,
        pericardium * (reach < 0.05),
        crossing,
    )
    return Anatomy(*(np.asarray(field, dtype=np.float32) for field in fields))


def _ramp(inside_mm: NDArray[Any], soft_mm: float) -> NDArray[Any]:
    return np.asarray((inside_mm / np.float32(soft_mm) + np.float32(0.5)).clip(0, 1))
