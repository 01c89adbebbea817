"""What a phantom patient's chest has, and what a reader would note of it.

COVID-19 pneumonia shows as hazy opacities in both lungs, at their edges and rather below (Wong et al., Radiology
296:E72, 2020). None of that is specific to it: the patients without it have lobar pneumonia, heart failure,
effusions, collapsed lungs, or nothing. Severities overlap, and some of either kind cannot be seen.

Tested in ``tests/tasks/phantoms/chest_xray/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FINDINGS = ("consolidation", "effusion", "cardiomegaly", "pneumothorax")
"""What readers note of an image, in this order."""
_SOLID = 0.6
"""From which density on an opacity hides the vessels in it."""
_LARGE_HEART = 1.22
_OTHERS = ("nothing", "lobar", "failure", "pneumothorax", "effusion")
_SHARES = (0.40, 0.24, 0.16, 0.10, 0.10)


@dataclass(frozen=True)
class Opacity:
    """A region of a lung with fluid instead of air.

    Attributes:
        side: -1 the patient's right, which is on the left of the image, or 1.
        across, down, deep: place in that lung, each from -1 to 1: outwards, downwards, forwards.
        extent_mm: distance over which it fades.
        density: share of the air that is gone, in its middle.
    """

    side: int
    across: float
    down: float
    deep: float
    extent_mm: float
    density: float


@dataclass(frozen=True)
class Illness:
    """All that is wrong with a chest.

    Attributes:
        opacities: in the lungs.
        effusions: side and height in millimetres of fluid around a lung, when the patient stands.
        collapse: side and share of a lung that has shrunk, or ``None``.
        heart: width of the heart, 1 is usual.
        congestion: how much wider than usual the vessels are.
    """

    opacities: tuple[Opacity, ...] = ()
    effusions: tuple[tuple[int, float], ...] = ()
    collapse: tuple[int, float] | None = None
    heart: float = 1.0
    congestion: float = 0.0

    def findings(self) -> tuple[int, ...]:
        """Of each of ``FINDINGS``, 0 or 1."""
        return (
            int(any(one.density > _SOLID for one in self.opacities)),
            int(bool(self.effusions)),
            int(self.heart > _LARGE_HEART),
            int(self.collapse is not None),
        )

    @property
    def burden(self) -> float:
        """How ill the patient is, about 0 to 1: who is very ill is X-rayed in bed."""
        load = sum(one.density * one.extent_mm for one in self.opacities) / 120
        return float(min(1.0, load + 0.3 * len(self.effusions) + 0.4 * (self.collapse is not None)))


def illness_of(rng: np.random.Generator, covid: bool) -> Illness:
    """A patient's chest."""
    heart = float(np.exp(rng.normal(0.0, 0.09)))
    if covid:
        severity = float(np.exp(rng.normal(0.0, 0.5)))
        opacities = [_peripheral(rng, severity) for _ in range(2 + int(rng.poisson(3.5 * min(severity, 2.0))))]
        effusions = _effusions(rng, both=False) if rng.random() < 0.1 else ()
        return Illness(tuple(opacities), effusions, None, heart)
    kind = str(rng.choice(_OTHERS, p=_SHARES))
    if kind == "lobar":
        opacities = [_lobar(rng) for _ in range(1 + int(rng.random() < 0.3))]
        return Illness(tuple(opacities), _effusions(rng, both=False) if rng.random() < 0.35 else (), None, heart)
    if kind == "failure":
        wet = tuple(_central(rng) for _ in range(int(rng.integers(0, 5))))
        effusions = _effusions(rng, both=True) if rng.random() < 0.6 else ()
        return Illness(wet, effusions, None, heart * float(rng.uniform(1.15, 1.5)), float(rng.uniform(0.3, 1.0)))
    if kind == "pneumothorax":
        return Illness((), (), (_side(rng), float(rng.uniform(0.08, 0.35))), heart)
    if kind == "effusion":
        return Illness((), _effusions(rng, both=rng.random() < 0.3), None, heart)
    return Illness(heart=heart)


def _side(rng: np.random.Generator) -> int:
    return -1 if rng.random() < 0.5 else 1


def _peripheral(rng: np.random.Generator, severity: float) -> Opacity:
    density = float(np.exp(rng.normal(-0.85, 0.35)) * severity**0.6)
    across, down = float(rng.uniform(0.3, 0.95)), float(rng.normal(0.25, 0.4))
    return Opacity(
        _side(rng),
        across,
        down=down,
        deep=float(rng.uniform(-0.8, 0.3)),
        extent_mm=float(rng.uniform(22, 46)),
        density=min(density, 0.9),
    )


def _lobar(rng: np.random.Generator) -> Opacity:
    density = float(rng.uniform(0.4, 1.0))
    place = float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.6, 0.7)), float(rng.uniform(-0.6, 0.6))
    return Opacity(_side(rng), *place, float(rng.uniform(22, 48)), density)


def _central(rng: np.random.Generator) -> Opacity:
    place = float(rng.uniform(-0.9, -0.2)), float(rng.normal(0.1, 0.3)), float(rng.uniform(-0.4, 0.4))
    return Opacity(_side(rng), *place, float(rng.uniform(20, 40)), float(rng.uniform(0.1, 0.4)))


def _effusions(rng: np.random.Generator, both: bool) -> tuple[tuple[int, float], ...]:
    sides = (-1, 1) if both else (_side(rng),)
    return tuple((side, float(np.exp(rng.normal(3.4, 0.5)))) for side in sides)
