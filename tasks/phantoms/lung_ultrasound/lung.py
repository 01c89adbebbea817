"""The lung of a phantom patient as ultrasound sees it: its surface, and the artefacts of the air behind it.

Air reflects all sound. What an image shows below the pleural line is therefore no anatomy but artefacts, until fluid
takes the air's place: A-lines are echoes between probe and pleura, at multiples of the pleura's depth; B-lines are
streaks from small fluid-filled spaces at the surface down to the lower edge, which wipe out A-lines; a consolidation is
tissue-like where no air is left, with air in its bronchi and a ragged lower border; an effusion is an echo-free layer
between chest wall and lung (Volpicelli et al., Intensive Care Medicine 38:577, 2012).

Tested in ``tests/tasks/phantoms/lung_ultrasound/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.phantoms.fields import Field, smooth_noise

FINDINGS = ("b_lines", "consolidation", "effusion", "a_lines", "pleural_irregularity")
"""What readers note of a view."""
_MANY = 3  # up to two B-lines in a view are normal
_SEEN_DB = 8.0
_UNEVEN_MM = 0.55
_FLUID_DB = -46.0
_SEPARATION = 3.2  # between the mean severity of healthy and of diseased lungs, in standard deviations


@dataclass(frozen=True)
class Lung:
    """A patient's lungs; each view of them is drawn by ``view_of``.

    Attributes:
        b_lines: expected number in a view.
        roughness_mm: by how much the pleural line is uneven.
        a_lines_db: strength of the first A-line above the haze of the air.
        consolidation: probability that a view shows one.
        effusion: likewise.
        sliding_mm: how far the lung moves along the chest wall with a breath, from the middle to either side.
    """

    b_lines: float
    roughness_mm: float
    a_lines_db: float
    consolidation: float
    effusion: float
    sliding_mm: float


@dataclass(frozen=True)
class ScanPlane:
    """One place of the chest; lengths in millimetres along the pleura from its middle, or below it.

    Attributes:
        b_lines: (position, width, strength in decibels) of each.
        roughness_mm, a_lines_db, sliding_mm: as in ``Lung``.
        consolidation: its middle, half its width and its depth, or ``None``.
        effusion: thickness of the fluid at either end of the view, 0 where it is dry; ``None`` without one.
    """

    b_lines: tuple[tuple[float, float, float], ...]
    roughness_mm: float
    a_lines_db: float
    sliding_mm: float
    consolidation: tuple[float, float, float] | None
    effusion: tuple[float, float] | None

    def findings(self) -> tuple[int, ...]:
        """What a careful reader notes, in the order of ``FINDINGS``."""
        many = len(self.b_lines) >= _MANY
        dry = self.effusion is None
        return (
            int(many),
            int(self.consolidation is not None),
            int(not dry),
            int(self.a_lines_db > _SEEN_DB and not many and dry),  # B-lines wipe them out, fluid lets no air echo
            int(self.roughness_mm > _UNEVEN_MM),
        )


def lung_of(rng: np.random.Generator, diseased: bool) -> Lung:
    """A patient's lungs.

    One hidden severity drives all signs, each adds its own chance, and healthy and diseased ones overlap: some healthy
    lungs have a few B-lines, and a pneumonia that does not reach the surface cannot be seen.
    """
    severity = rng.normal(_SEPARATION / 2 if diseased else -_SEPARATION / 2)

    def sign(healthy: float, ill: float, own: float = 0.8) -> float:
        share = 1 / (1 + np.exp(-1.3 * (severity + own * rng.standard_normal())))
        return float(healthy + (ill - healthy) * share)

    return Lung(
        b_lines=sign(0.3, 5.5),
        roughness_mm=sign(0.1, 1.0),
        a_lines_db=sign(18, 4, own=1.2),
        consolidation=sign(0.0, 0.55),
        effusion=sign(0.0, 0.35, own=1.2),
        sliding_mm=sign(6.0, 2.5, own=1.5),
    )


def view_of(lung: Lung, rng: np.random.Generator, width_mm: float) -> ScanPlane:
    """One place of these lungs. Disease is patchy: some views of an ill patient look healthy.

    Args:
        width_mm: of what the probe sees of the pleura.
    """
    spared = rng.random() < 0.2
    count = int(rng.poisson(0.2 if spared else lung.b_lines * width_mm / 60))
    b_lines = tuple(
        (float(rng.uniform(-0.5, 0.5) * width_mm), float(np.exp(rng.normal(0.3, 0.35))), float(rng.normal(16, 3)))
        for _ in range(count)
    )
    consolidation = None
    if not spared and rng.random() < lung.consolidation:
        half, depth = float(rng.uniform(0.1, 0.3) * width_mm), float(np.exp(rng.normal(2.5, 0.4)))
        consolidation = (float(rng.uniform(-0.3, 0.3) * width_mm), half, depth)
    effusion = None
    if not spared and rng.random() < lung.effusion:
        effusion = float(rng.uniform(3, 18)), float(rng.uniform(-8, 18))
        effusion = effusion if rng.random() < 0.5 else effusion[::-1]
    return ScanPlane(
        b_lines=b_lines,
        roughness_mm=lung.roughness_mm * (0.5 if spared else 1.0),
        a_lines_db=lung.a_lines_db + float(rng.normal(0, 3)),
        sliding_mm=lung.sliding_mm,
        consolidation=consolidation,
        effusion=effusion,
    )


def echo_of(
    view: ScanPlane, rng: np.random.Generator, x_mm: Field, below_mm: Field, pleura_mm: Field, line_mm: Field
) -> Field:
    """The echo of the lung in decibels, and of the artefacts behind its surface.

    Args:
        view: what to draw.
        rng: for what is uneven in it; the same numbers draw the same place again.
        x_mm: (beams,) along the pleura, moved with the breath.
        below_mm: float32 (samples, beams), depth below the pleural line; negative above it.
        pleura_mm: (beams,) depth of the pleura below the skin, without its unevenness: the sound that makes A-lines has
            been reflected by a wide part of it.
        line_mm: (beams,) the same with it; what ``below_mm`` is measured from.

    Returns:
        float32 (samples, beams); meaningless above the pleural line.
    """
    fluid_mm = _fluid(view, x_mm)
    below_mm = below_mm - fluid_mm  # of the lung's own surface, which fluid pushes away from the chest wall
    haze = np.asarray(-31 - 0.16 * below_mm + 3.0 * smooth_noise(rng, below_mm.shape, (24, 10)), dtype=np.float32)
    echo = haze.copy()
    for order in (1, 2, 3):
        away = (below_mm + fluid_mm + line_mm - (order + 1) * pleura_mm) / np.float32(0.8 + 0.2 * order)
        echo += np.float32(max(0.0, view.a_lines_db - 5.0 * (order - 1))) * np.exp(-(away**2)) * (fluid_mm == 0)
    for position, width, strength in view.b_lines:
        beam = np.exp(-(((x_mm - np.float32(position)) / (np.float32(width) + 0.012 * below_mm.clip(0, None))) ** 2))
        ripple = 2.0 * np.sin(below_mm * np.float32(2 * np.pi / 7))  # the ring of the resonating fluid
        echo += beam * (haze + np.float32(strength) + ripple + 0.1 * below_mm - echo)
    if view.consolidation is not None:
        _consolidate(echo, view.consolidation, rng, x_mm, below_mm)
    if view.effusion is not None:
        surface = np.exp(-((below_mm / np.float32(1.0)) ** 2)) * (fluid_mm > 0)
        echo = np.where(below_mm < 0, np.float32(_FLUID_DB), echo + surface * (-9 - echo)).astype(np.float32)
    return echo


def _fluid(view: ScanPlane, x_mm: Field) -> Field:
    """Thickness of the effusion along the pleura, (beams,), from one end of the view to the other."""
    if view.effusion is None:
        return np.zeros_like(x_mm)
    at = (x_mm - x_mm.min()) / max(float(np.ptp(x_mm)), 1e-6)
    return np.asarray((view.effusion[0] + at * (view.effusion[1] - view.effusion[0])).clip(0, None), dtype=np.float32)


def _consolidate(
    echo: Field, consolidation: tuple[float, float, float], rng: np.random.Generator, x_mm: Field, below_mm: Field
) -> None:
    """Tissue below the pleura, specks of air in it, a ragged bright border, and haze instead of A-lines behind."""
    middle, half, depth = consolidation
    ragged = 1 + 0.3 * smooth_noise(rng, below_mm.shape, (12, 6))
    floor = np.float32(depth) * np.sqrt((1 - ((x_mm - np.float32(middle)) / np.float32(half)) ** 2).clip(0, 1)) * ragged
    inside = 1 / (1 + np.exp(((below_mm - floor) / np.float32(0.8)).clip(-30, 30))) * (floor > 0.5)
    bronchi = smooth_noise(rng, below_mm.shape, (5, 4)) > 1.6
    border = np.exp(-(((below_mm - floor) / np.float32(1.2)) ** 2)) * (floor > 0.5)
    echo += (inside * (-25 + 11 * bronchi - echo) + 9 * border).astype(np.float32)
