"""A phantom thorax, and how it attenuates X-rays.

Rays fan out from a point: what lies far from the detector is shown larger. A chest is X-rayed from behind (PA) by a
tube far away with the heart next to the detector, or in bed from the front (AP) by a near one, which shows the heart
larger; people who lie breathe in less. The thorax is cut into planes parallel to the detector, each seen at its own
magnification, and what they attenuate is added up along the rays.

Tested in ``tests/tasks/phantoms/chest_xray/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.chest_xray.illness import Illness, Opacity
from tasks.phantoms.fields import Field, smooth_noise

_WATER, _LUNG, _BONE = 0.0195, 0.0050, 0.030
"""Attenuation per millimetre near 65 keV: of soft tissue, of lung full of air, and of bone beyond soft tissue."""
_PLANES = 26


@dataclass(frozen=True)
class Thorax:
    """A patient's build, in millimetres.

    Attributes:
        wide, deep: half the width and half the depth of the chest.
        tall: half the height of the lungs.
        seed: of the pattern of vessels, which is the patient's own.
    """

    wide: float
    deep: float
    tall: float
    seed: int


@dataclass(frozen=True)
class Projection:
    """How the patient stands or lies before the tube.

    Attributes:
        supine: lying, X-rayed from the front; else standing, from behind.
        tube_mm: from the tube to the detector.
        breath: 0 is usual, 1 a very deep breath.
        shift_mm: of the patient before the detector, across and down.
    """

    supine: bool
    tube_mm: float
    breath: float
    shift_mm: tuple[float, float]

    def magnification(self, thorax: Thorax, z_mm: float) -> float:
        """Of what lies at ``z_mm`` in front of the middle of the chest."""
        from_detector = 30 + thorax.deep + (z_mm if self.supine else -z_mm)
        return self.tube_mm / (self.tube_mm - from_detector)


def thorax_of(rng: np.random.Generator) -> Thorax:
    """A patient's build."""
    size = rng.normal(0, 1)
    wide, deep = 158 + 9 * size + rng.normal(0, 6), 100 + 6 * size + rng.normal(0, 9)
    return Thorax(float(wide), float(deep), float(142 + 7 * rng.normal()), int(rng.integers(2**32)))


def attenuation_of(
    thorax: Thorax, illness: Illness, view: Projection, u_mm: Field, v_mm: Field, rng: np.random.Generator
) -> Field:
    """Line integrals of attenuation.

    Args:
        thorax, illness, view: what is drawn, and how it is seen.
        u_mm: (columns,) place on the detector from its middle; the patient's left is at the right.
        v_mm: (rows,) downwards.
        rng: for what differs from image to image.

    Returns:
        float32 (rows, columns), without unit.
    """
    u, v = u_mm - np.float32(view.shift_mm[0]), v_mm - np.float32(view.shift_mm[1])
    step = 2 * thorax.deep / _PLANES
    body = np.zeros((len(v), len(u)), dtype=np.float32)
    air, bone = {-1: body.copy(), 1: body.copy()}, body.copy()
    for z in np.linspace(-thorax.deep + step / 2, thorax.deep - step / 2, _PLANES):
        scale = np.float32(view.magnification(thorax, z))
        x, y = u[None, :] / scale, v[:, None] / scale
        body += np.float32(step) * _body(thorax, x, y, z)
        bone += np.float32(step) * _bones(thorax, x, y, z)
        hidden = np.maximum(_heart(thorax, illness, view=view, x=x, y=y, z=z), _mediastinum(x, y, z))
        for side, filled in air.items():
            filled += np.float32(step) * _lung(thorax, illness, view=view, side=side, x=x, y=y, z=z) * (1 - hidden)
    middle = np.float32(view.magnification(thorax, 0))
    x, y = u[None, :] / middle, v[:, None] / middle
    whole = np.float32(_WATER) * body + np.float32(_BONE) * bone
    for side, filled in air.items():
        whole -= _aerated(thorax, illness, view=view, side=side, x=x, y=y, air_mm=filled)
    whole += np.float32(0.22) * _clavicles(thorax, u, v, view)
    whole -= np.float32(0.30) * _windpipe(x, y)
    if rng.random() < 0.6:  # air in the stomach
        bubble = ((x - rng.uniform(45, 80)) / 26) ** 2 + ((y - thorax.tall - rng.uniform(10, 25)) / 15) ** 2
        whole -= np.float32(0.5) * _inside(bubble, 0.5)
    return np.asarray(whole, dtype=np.float32)


def _inside(level: NDArray[Any], edge: float) -> Field:
    """1 where the level is below 1, 0 where it is above, a ramp of that width between."""
    return np.asarray(((1 - level) / np.float32(edge) + np.float32(0.5)).clip(0, 1), dtype=np.float32)


def _body(thorax: Thorax, x: Field, y: Field, z: float) -> Field:
    shoulders = 1 + 0.35 / (1 + np.exp((y + 118) / 10))
    level = np.abs(x / (np.float32(thorax.wide) * shoulders)) ** 2.6 + abs(z / thorax.deep) ** 2.6
    neck = _inside(np.abs(x) / (52 + 8 * np.exp(((y + 192) / 15).clip(-20, 4))), 0.12)
    return _inside(level, 0.08) * neck


def _lung(thorax: Thorax, illness: Illness, view: Projection, side: int, x: Field, y: Field, z: float) -> Field:
    """Where air is, at depth ``z``: above the dome of the diaphragm, and above or before fluid."""
    half, middle = 0.40 * thorax.wide, side * 0.47 * thorax.wide
    level = np.abs((x - np.float32(middle)) / np.float32(half)) ** 2.3 + abs(z / (0.8 * thorax.deep)) ** 2.3
    lung = _inside(level + np.abs((y + 8) / np.float32(thorax.tall)) ** 3, 0.10)
    outwards = (side * (x - np.float32(middle)) / np.float32(half)).clip(-1, 1)
    floor = 0.58 * thorax.tall + (22 if side > 0 else 8) + 24 * view.breath - (16 if view.supine else 0)
    dome = floor + 34 * outwards**2 + 30 * (z / thorax.deep) ** 2
    for where, height in illness.effusions:
        if where == side and not view.supine:  # a meniscus, highest at the chest wall
            dome = dome - height * (0.35 + 0.65 * outwards.clip(0, 1) ** 2) - 0.25 * height
        elif where == side:  # it spreads out behind the lung
            lung = lung * np.float32(z > -0.8 * thorax.deep + 1.1 * height)
    return np.asarray(lung * ((dome - y) / np.float32(6) + np.float32(0.5)).clip(0, 1), dtype=np.float32)


def _heart(thorax: Thorax, illness: Illness, view: Projection, x: Field, y: Field, z: float) -> Field:
    wide = 58 * illness.heart * (1.06 if view.supine else 1.0)
    tilted = y - 0.28 * (x - 22)
    level = ((x - np.float32(16 + 0.12 * wide)) / np.float32(wide)) ** 2
    level = level + ((tilted - (0.36 * thorax.tall - 8 * view.supine)) / np.float32(56 * illness.heart**0.5)) ** 2
    return _inside(level + ((z - 0.3 * thorax.deep) / (0.55 * thorax.deep)) ** 2, 0.25)


def _mediastinum(x: Field, y: Field, z: float) -> Field:
    """Great vessels and oesophagus, with the knob of the aorta on the patient's left."""
    knob = ((x - 20) / 19) ** 2 + ((y + 62) / 22) ** 2 + (z / 45) ** 2
    band = np.abs(x - 3) / (25 + 6 * np.sin(y / 38))
    vessels: Field = np.maximum(_inside(knob, 0.3), _inside(band, 0.35) * np.float32(abs(z) < 60))
    return vessels


def _bones(thorax: Thorax, x: Field, y: Field, z: float) -> Field:
    """Ribs are rings that fall forwards; the spine is a column behind."""
    around = (np.abs(x / np.float32(0.90 * thorax.wide)) ** 2.2 + abs(z / (0.86 * thorax.deep)) ** 2.2) ** 0.45
    shell = np.exp(-(((around - 1) / np.float32(0.085)) ** 2))
    rings = (np.cos((y - 0.55 * z - 0.16 * np.abs(x)) * np.float32(2 * np.pi / 27)) * 2.2 - 0.5).clip(0, 1)
    rings = rings * (np.abs(y + 15) < thorax.tall * 1.05) * np.float32(z < 0.55 * thorax.deep)
    spine = np.exp(-((x / 17) ** 4)) * np.exp(-(((z + 0.58 * thorax.deep) / 22) ** 2))
    return np.asarray(0.62 * shell * rings + 0.30 * spine * (1 + 0.25 * np.cos(y * np.float32(2 * np.pi / 24))))


def _aerated(thorax: Thorax, illness: Illness, view: Projection, side: int, x: Field, y: Field, air_mm: Field) -> Field:
    """By how much less a lung attenuates than the same volume of water."""
    middle, half = np.float32(side * 0.47 * thorax.wide), np.float32(0.40 * thorax.wide)
    gain = np.float32(_WATER - _LUNG) * air_mm
    kept = np.ones_like(air_mm)
    line = np.zeros_like(air_mm)
    if illness.collapse is not None and illness.collapse[0] == side:
        share = illness.collapse[1]
        inner, height = middle - side * half * np.float32(0.75 * share), np.float32(thorax.tall * (1 - 0.45 * share))
        level = ((x - inner) / (half * np.float32(1 - 0.8 * share))) ** 2
        level = level + ((y + 8 - 0.5 * share * thorax.tall) / height) ** 2
        kept = _inside(level, 0.08)
        line = np.exp(-(((level - 1) / np.float32(0.05)) ** 2)) * (air_mm > 25)
    # What has shrunk holds less air, and where it has gone there is hardly anything.
    shrunk = 0.0 if illness.collapse is None or illness.collapse[0] != side else illness.collapse[1]
    gain += np.float32(0.6 * _LUNG) * air_mm * (1 - kept) - np.float32(0.35 * shrunk * _WATER) * air_mm * kept
    lost = np.zeros_like(air_mm)
    for opacity in illness.opacities:
        if opacity.side == side:
            lost = 1 - (1 - lost) * (1 - _opaque(thorax, view, opacity=opacity, x=x, y=y, middle=middle, half=half))
    vessels = _vessels(thorax, illness, side, x, y) * kept * (1 - lost)
    less = gain * (1 - lost * kept) - vessels * (air_mm / 100).clip(0, 1.2) - np.float32(0.10) * line
    return np.asarray(less, dtype=np.float32)


def _opaque(
    thorax: Thorax, view: Projection, opacity: Opacity, x: Field, y: Field, middle: np.float32, half: np.float32
) -> Field:
    """Share of the air along each ray that the opacity takes."""
    at_depth = view.magnification(thorax, 0.6 * thorax.deep * opacity.deep) / view.magnification(thorax, 0)
    across = (middle + opacity.side * half * np.float32(opacity.across)) * np.float32(at_depth)
    down = np.float32((thorax.tall * 0.62 * opacity.down + 5) * at_depth)
    there = np.random.default_rng([thorax.seed, round(1e4 * abs(opacity.across)), round(1e4 * opacity.density)])
    shape = np.broadcast_shapes(x.shape, y.shape)
    fluffy = (1 + np.float32(0.4) * smooth_noise(there, shape, (7, 7))).clip(0.2, 1.8)
    away = ((x - across) ** 2 + (y - down) ** 2) / np.float32(opacity.extent_mm**2)
    return np.asarray((np.float32(opacity.density) * np.exp(-away) * fluffy).clip(0, 0.95), dtype=np.float32)


def _vessels(thorax: Thorax, illness: Illness, side: int, x: Field, y: Field) -> Field:
    """Vessels spread from the hilum and grow thin outwards: level lines of a smooth field wander as they do."""
    there = np.random.default_rng([thorax.seed, side + 1])
    shape = np.broadcast_shapes(x.shape, y.shape)
    hilum = np.hypot(x - side * 38, (y - 2) * np.float32(0.8))
    coarse, fine = smooth_noise(there, shape, (9, 7)), smooth_noise(there, shape, (4, 3))
    lines = np.exp(-((coarse / 0.22) ** 2)) * np.exp(-hilum / 42) * 0.42
    lines += np.exp(-((fine / 0.3) ** 2)) * np.exp(-hilum / 75) * 0.13
    lines += 0.30 * np.exp(-((hilum / 17) ** 2))
    return np.asarray(lines * (1 + 0.9 * illness.congestion), dtype=np.float32)


def _clavicles(thorax: Thorax, u: Field, v: Field, view: Projection) -> Field:
    scale = np.float32(view.magnification(thorax, 0.6 * thorax.deep))
    x, y = u[None, :] / scale, v[:, None] / scale
    line = -0.80 * thorax.tall - 0.20 * (np.abs(x) - 20) - 8 * np.sin(np.abs(x) / 28)
    band = np.exp(-(((y - line) / 6) ** 4)) * (np.abs(x) > 14) * (np.abs(x) < 0.98 * thorax.wide)
    return np.asarray(band, dtype=np.float32)


def _windpipe(x: Field, y: Field) -> Field:
    return np.asarray(np.exp(-(((x + 1) / 8) ** 4)) / (1 + np.exp((y + 48) / 6)), dtype=np.float32)
