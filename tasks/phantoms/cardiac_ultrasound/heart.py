"""The heart of a phantom patient, cut from its apex: two chambers or four, at the end of diastole or of systole.

From the apex a probe shows the left ventricle as a bullet that points to it, and the left atrium behind the mitral
valve. Turned by sixty degrees the plane leaves the right heart, which is what tells the two views apart (Lang et al.,
J Am Soc Echocardiogr 28:1, 2015). Few planes are ideal: some four-chamber views hardly show a right ventricle, and some
two-chamber views a piece of it.

Tested in ``tests/tasks/phantoms/cardiac_ultrasound/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.fields import Field

_WIDEST = 0.60
"""Where the left ventricle is widest, as a fraction of its length from the apex."""
_SHORTER = 0.7
"""By how much it shortens where it narrows by 1."""


@dataclass(frozen=True)
class Heart:
    """A patient's heart in one view; lengths in millimetres, at the end of diastole.

    Attributes:
        length: of the left ventricle, from the apex to the mitral valve.
        width: half of its largest width.
        wall: thickness of its muscle.
        atrium: half the width and half the length of the left atrium.
        tilt: of the long axis, in radians; positive turns the base to the right of the image.
        apex: where the apex of the cavity lies: across, and below the probe.
        contraction: by how much it shortens and narrows until the end of systole, as a fraction.
        right: how much of the right heart the plane shows, 0 (nothing) to 1.
        right_width: half the width of the right ventricle at its base.
        bend: of the long axis.
    """

    length: float
    width: float
    wall: float
    atrium: tuple[float, float]
    tilt: float
    apex: tuple[float, float]
    contraction: float
    right: float
    right_width: float
    bend: float


@dataclass(frozen=True)
class Anatomy:
    """What lies where; each 1 inside, 0 outside and a ramp between, float32 of the places' shape.

    Attributes:
        left_ventricle, myocardium, left_atrium: as CAMUS outlines them; the muscle is open at the base.
        right: cavities of the right heart.
        right_wall: the muscle around them.
        valves: leaflets between ventricles and atria.
        pericardium: the bright line around the heart.
        across_beam: how much a wall lies across the beam, 0 to 1: along it walls give little echo.
    """

    left_ventricle: Field
    myocardium: Field
    left_atrium: Field
    right: Field
    right_wall: Field
    valves: Field
    pericardium: Field
    across_beam: Field


def heart_of(rng: np.random.Generator, four_chambers: bool) -> Heart:
    """A patient's heart in the view that was taken of it."""
    size = float(np.exp(rng.normal(0, 0.10)))
    if four_chambers:
        right, tilt = float(rng.beta(2.2, 1.6)), float(rng.normal(0.10, 0.13))
    else:
        right, tilt = float(rng.beta(1.0, 3.2)) * (rng.random() < 0.45), float(rng.normal(-0.02, 0.13))
    return Heart(
        length=82 * size * float(rng.uniform(0.86, 1.06)),  # cut short when the probe does not stand on the apex
        width=22.5 * size * float(np.exp(rng.normal(0, 0.10))),
        wall=float(rng.normal(9.5, 1.3)),
        atrium=(19.5 * float(np.exp(rng.normal(0, 0.13))), 21.0 * float(np.exp(rng.normal(0, 0.15)))),
        tilt=tilt,
        apex=(float(rng.normal(7 if four_chambers else 2, 6)), float(rng.uniform(18, 30))),
        contraction=float(rng.uniform(0.06, 0.26)),
        right=right,
        right_width=17.0 * float(np.exp(rng.normal(0, 0.18))),
        bend=float(rng.normal(0, 0.06)),
    )


def anatomy_of(heart: Heart, phase: float, x_mm: NDArray[Any], z_mm: NDArray[Any]) -> Anatomy:
    """What lies at these places.

    Args:
        heart: which.
        phase: from 0 at the end of diastole to 1 at the end of systole.
        x_mm, z_mm: across and below the probe's middle, of shapes that broadcast.
    """
    drawn = heart.contraction * phase
    length, width = heart.length * (1 - _SHORTER * drawn), heart.width * (1 - drawn)
    wall = heart.wall * (1 + 1.2 * drawn)
    across, along = _axes(heart, x_mm, z_mm, drawn)
    along = along / np.float32(length)  # 0 at the apex of the cavity, 1 at the mitral valve
    cavity, outer = _bullet(along, width), _bullet((along * length + wall) / (length + wall), width + wall)
    inside = _ramp(cavity - np.abs(across), 0.8) * _ramp((1 - along) * length, 0.8)
    muscle = _ramp(outer - np.abs(across), 0.8) * _ramp((1 - along) * length, 0.8) * (1 - inside)
    half, tall = heart.atrium[0] * (1 + 0.5 * drawn), heart.atrium[1] * (1 + 0.6 * drawn)
    behind = (along - 1) * length - 3.0
    round_ = 1 - (across / half) ** 2 - ((behind - 0.8 * tall) / tall) ** 2
    atrium = _ramp(np.minimum(round_ * min(half, tall) / 2, behind), 0.8)
    right, right_wall, tricuspid = _right_heart(
        heart, drawn, across=across, along_mm=along * length, length=length, outer=outer, left_atrium=half
    )
    leaflets = np.maximum(_mitral(across, behind + 3.0, width, phase > 0.5), tricuspid)
    border = np.abs(np.abs(across) - outer - 2.5) < 1.2
    pericardium = border * _ramp((1 - along) * length, 1) * (across > -0.5 * width) * (along > -0.05)
    # Where the cavity's outline runs along the beam, which comes from the middle of the probe.
    slope = np.gradient(_bullet(np.linspace(0, 1, 101), width), length / 100)
    leaning = np.arctan(np.interp(along.clip(0, 1), np.linspace(0, 1, 101), slope)) * np.sign(across)
    beam = np.arctan2(x_mm, z_mm + 1e-3) + heart.tilt
    crossing = np.abs(np.sin(leaning - beam)).astype(np.float32)
    fields = (inside, muscle, atrium, right, right_wall, leaflets, pericardium, crossing)
    return Anatomy(*(np.asarray(field, dtype=np.float32) for field in fields))


def ejection_fraction(contraction: float) -> float:
    """Which share of its volume a left ventricle ejects, in percent.

    Bodies of rotation of one shape have volumes as their lengths times their widths squared, which is what the method
    of disks adds up (Lang et al., as above).
    """
    return 100 * (1 - (1 - _SHORTER * contraction) * (1 - contraction) ** 2)


def contraction_for(ejected: float) -> float:
    """The contraction with an ejection fraction of up to 90 %, the inverse of ``ejection_fraction``."""
    contractions = np.linspace(0, 0.6, 601)
    return float(np.interp(ejected, [ejection_fraction(each) for each in contractions.tolist()], contractions))


def _axes(heart: Heart, x_mm: NDArray[Any], z_mm: NDArray[Any], drawn: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Across and along the long axis, from the apex of the cavity, which hardly moves as the heart beats."""
    x, z = x_mm - np.float32(heart.apex[0]), z_mm - np.float32(heart.apex[1] + 2 * drawn)
    c, s = np.float32(cos(heart.tilt)), np.float32(sin(heart.tilt))
    across, along = c * x - s * z, s * x + c * z
    return across - np.float32(heart.bend) * along * (1 - along / 160), along


def _ramp(inside_mm: NDArray[Any], soft_mm: float) -> NDArray[Any]:
    return np.asarray((inside_mm / np.float32(soft_mm) + np.float32(0.5)).clip(0, 1))


def _bullet(along: NDArray[Any], width: float) -> NDArray[Any]:
    """Half the width at a fraction of the length; negative above the apex."""
    above = (along - _WIDEST) / _WIDEST
    below = (along - _WIDEST) / (1 - _WIDEST)
    half = np.where(along < _WIDEST, np.sqrt((1 - above**2).clip(0, 1)), 1 - 0.22 * below.clip(0, 2) ** 2)
    return np.asarray(np.where(along < 0, -1.0, width * half))


def _right_heart(
    heart: Heart,
    drawn: float,
    across: NDArray[Any],
    along_mm: NDArray[Any],
    length: float,
    outer: NDArray[Any],
    left_atrium: float,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Cavities, wall and valve left of the septum; the apex of the right ventricle lies deeper than the left one's.

    Args:
        outer: where the left heart's muscle ends, from the axis.
        left_atrium: half the width of the left atrium.
    """
    wide = heart.right_width * 2 * heart.right * (1 - 0.7 * drawn)
    if wide < 2.0:
        nothing = np.zeros(np.broadcast_shapes(across.shape, along_mm.shape), dtype=np.float32)
        return nothing, nothing, nothing
    along, behind = along_mm / np.float32(length), along_mm - np.float32(length)
    from_septum = -across - outer.clip(0, None) - 1.0
    start = 0.36 + 0.25 * (1 - heart.right)
    edge = wide * np.sqrt(((along - start) / (1 - start)).clip(0, 1)) * (along < 1.0)
    ventricle = _ramp(np.minimum(from_septum, edge - from_septum), 1.0) * _ramp(-behind, 1)
    wall = (
        _ramp(np.minimum(from_septum + 1, edge + 4.0 - from_septum), 1.0) * (along > start - 0.03) * _ramp(-behind, 1)
    )
    room = 0.5 * wide + 4
    middle = -(left_atrium + 2.5 + room)
    round_ = 1 - ((across - middle) / room) ** 2 - ((behind - 17) / 17) ** 2
    atrium = _ramp(np.minimum(round_ * 6, behind - 2), 1.0)
    valve = np.exp(-((behind / 1.1) ** 2)) * _ramp(np.minimum(from_septum, edge - from_septum + 2), 1)
    return np.maximum(ventricle, atrium), wall, valve


def _mitral(across: NDArray[Any], behind_mm: NDArray[Any], width: float, systole: bool) -> NDArray[Any]:
    """Two leaflets: closed, they bow into the ventricle a little; at the end of diastole they are about to close."""
    reach = (np.abs(across) / (0.85 * width)).clip(0, 1.2)
    bow = -3.5 * (1 - reach) if systole else -9.0 * (1 - reach) * reach * 2.2
    line = np.exp(-(((behind_mm - bow) / 1.1) ** 2)) * (reach < 1.1)
    return np.asarray(line)
