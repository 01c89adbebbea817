"""The left hand of a phantom child, as a wrist's and fingers' bones ripen: what attenuates X-rays where.

With age bones lengthen, the carpal bones appear one after the other, and at one end of each long bone a cap appears,
widens and grows together with the shaft (W. Greulich and S. Pyle, Radiographic Atlas of Skeletal Development of the
Hand and Wrist, 1959; years as drawn here are rough and of no sex).

Tested in ``tests/tasks/phantoms/hand_xray/test_phantom.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.fields import Field

_LENGTHS = ((44, 31, 0, 21), (66, 40, 23, 17), (63, 44, 27, 18), (57, 41, 26, 18), (52, 33, 18, 16))
"""Of an adult's metacarpal and proximal, middle and distal phalanx, from the thumb on, in millimetres."""
_BASES = ((-19, 13), (-13, 25), (-4, 27), (5, 26), (13, 23))
_ANGLES = (-44, -11, -2, 7, 17)
"""Where metacarpals begin, across and above the wrist, and degrees from straight up."""
_HALF_WIDTHS = (3.9, 3.4, 2.8, 2.3)
_CARPALS = (
    (-1.0, 17.0, 5.5, 0.2), (7, 17, 4.8, 0.3), (10, 9, 4.2, 2.5), (1, 8, 4.6, 3.7), (-7, 9, 5.0, 5.2),
    (-13, 15, 4.2, 5.4), (-8, 18, 3.6, 5.6),
)  # fmt: skip
"""Across, above the wrist, half the width, and the year in which it appears."""
_FOREARM = ((-6.0, 6.5, 1.0, 17.6), (11, 4.2, 6.3, 17.2))
"""Radius and ulna: across, half the width, the years in which their caps appear and have grown together."""
WRIST_MM = 62.0
"""How far an adult's wrist lies below the middle of the plate."""
_CAPS = (2.0, 15.8)
"""These years of the fingers."""
_FLAT = 4.0
"""How much shorter the ends of a rod are than round ones."""
_SOFT, _BONE, _DENSE = 0.045, 0.085, 0.11  # per millimetre, as soft rays have it: flesh, spongy bone and shafts in it


@dataclass(frozen=True)
class Hand:
    """A patient's hand.

    Attributes:
        years: its bone age.
        size: to others of its age.
        flesh: how thick it is, to others.
        late: years by which each carpal bone appears later than usual.
    """

    years: float
    size: float
    flesh: float
    late: tuple[float, ...]


@dataclass(frozen=True)
class Pose:
    """How a hand lies on the plate: turned in radians, moved in millimetres, fingers spread to others'."""

    turned: float
    moved: tuple[float, float]
    spread: float


def hand_of(months: float, rng: np.random.Generator) -> Hand:
    """A hand of this bone age."""
    late = tuple(rng.normal(0, 0.5, len(_CARPALS)).tolist())
    return Hand(months / 12, float(np.exp(rng.normal(0, 0.09))), float(np.exp(rng.normal(0, 0.15))), late)


def pose_of(rng: np.random.Generator) -> Pose:
    """Of one image."""
    return Pose(
        float(rng.normal(0, 0.07)), (float(rng.normal(0, 6)), float(rng.normal(0, 6))), float(rng.uniform(0.6, 1.3))
    )


def scale_of(hand: Hand) -> float:
    """Its lengths to an adult's."""
    grown = (1 - np.exp(-hand.years / 6.5)) / (1 - np.exp(-18 / 6.5))
    return float((0.40 + 0.60 * grown) * hand.size)


def attenuation_of(hand: Hand, pose: Pose, x_mm: Field, y_mm: Field) -> Field:
    """Total attenuation at these places of the plate, across and upwards from its middle; of shapes that broadcast."""
    scale = scale_of(hand)
    c, s = np.cos(pose.turned), np.sin(pose.turned)
    x, y = x_mm - pose.moved[0], y_mm - pose.moved[1] + WRIST_MM * scale
    x, y = (c * x - s * y) / scale, (s * x + c * y) / scale
    flesh, bone = np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32)
    for start, end, half, soft in _long_bones(hand, pose):
        flesh = np.maximum(flesh, _chord(x, y, start, end, soft * hand.flesh))
        bone = np.maximum(bone, _DENSE * _thick(half) * _chord(x, y, start, end, half))
    for centre, half in _round_bones(hand, pose):
        bone = np.maximum(bone, _BONE * _chord(x, y, centre, centre, half))
    palm = _chord(x, y, (-2, 14), (0, 58), 34 * hand.flesh) * 0.36  # flatter than it is wide
    return np.asarray(scale * (_SOFT * np.maximum(flesh, palm) + bone), np.float32)


Place = tuple[float, float]


def _long_bones(hand: Hand, pose: Pose) -> Iterator[tuple[Place, Place, float, float]]:
    """Ends of each shaft, half the width, and that of the flesh around it."""
    for across, half, _, _ in _FOREARM:
        yield (across, -70.0), (across, -5.0), half, 15.0
    for finger in range(len(_LENGTHS)):
        for n, start, end in _bones_of(finger, pose):
            yield start, end, _HALF_WIDTHS[n], 9.5 - n


def _round_bones(hand: Hand, pose: Pose) -> Iterator[tuple[Place, float]]:
    """Carpal bones, and the caps of long ones: each a drop that widens from when it appears."""
    for (at, up, half, year), late in zip(_CARPALS, hand.late, strict=True):
        if (ripe := _ripe(hand.years, year + late, year + late + 8)) > 0:
            yield (float(at), float(up)), half * (0.3 + 0.7 * ripe)
    for across, half, year, closed in _FOREARM:
        if hand.years > year:
            up = -5.0 + half * 0.35 + 3.0 * (1 - _ripe(hand.years, closed - 5, closed))
            for side in (-0.4, 0.0, 0.4):
                yield (across + side * half, up), half * (0.25 + 0.35 * _ripe(hand.years, year, 10))
    if hand.years > _CAPS[0]:
        yield from _caps(hand, pose)


def _caps(hand: Hand, pose: Pose) -> Iterator[tuple[Place, float]]:
    gap = 1.8 - 3.6 * _ripe(hand.years, _CAPS[1] - 4, _CAPS[1])  # the growth plate; a closed one leaves no trace
    wide = 0.35 + 0.65 * _ripe(hand.years, _CAPS[0], 11)
    for finger in range(len(_LENGTHS)):
        for n, start, end in _bones_of(finger, pose):
            # Phalanges, and the thumb's metacarpal, have theirs at the near end, other metacarpals at the far one.
            near = n > 0 or finger == 0
            at, other = (start, end) if near else (end, start)
            length = float(np.hypot(other[0] - at[0], other[1] - at[1]))
            along = (at[0] - other[0]) / length, (at[1] - other[1]) / length
            half = 0.6 * _HALF_WIDTHS[n] * wide
            beyond = 1.0 + gap + half
            yield (at[0] + beyond * along[0], at[1] + beyond * along[1]), half


def _bones_of(finger: int, pose: Pose) -> Iterator[tuple[int, Place, Place]]:
    """Of a finger: which bone, and both ends of its shaft."""
    angle = np.deg2rad(_ANGLES[finger] * pose.spread)
    across, up = float(np.sin(angle)), float(np.cos(angle))
    x, y = map(float, _BASES[finger])
    for n, length in enumerate(_LENGTHS[finger]):
        if length:
            shaft = length - 5.5  # the rest is the cap, the growth plate and the joint
            yield n, (x, y), (x + shaft * across, y + shaft * up)
            x, y = x + (length + 3.0) * across, y + (length + 3.0) * up


def _chord(x: Field, y: Field, start: Place, end: Place, half: float) -> Field:
    """How far a ray goes through a round rod with nearly flat ends; through a ball where both are the same."""
    length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    dx, dy = ((end[0] - start[0]) / length, (end[1] - start[1]) / length) if length else (0.0, 1.0)
    across = (x - start[0]) * dy - (y - start[1]) * dx
    along = (x - start[0]) * dx + (y - start[1]) * dy
    over = along - along.clip(0, length)
    away = across**2 + (over * (_FLAT if length else 1.0)) ** 2
    chord: NDArray[np.float32] = 2 * np.sqrt((half * half - away).clip(0, None))
    return chord


def _thick(half: float) -> float:
    """How deep a bone is to how wide: those of the forearm are flat."""
    return min(1.0, 3.5 / half)


def _ripe(years: float, begins: float, ends: float) -> float:
    """From 0 to 1 between two ages."""
    return min(1.0, max(0.0, (years - begins) / (ends - begins)))
