"""Secondary endpoints beside a task's own question: secondary findings, and outlines of structures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from server.results.figures import Arm, arm_of
from server.rounds.evaluation import Evaluated
from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.interval import Interval
from tasks.metrics.outlining import OutlineHistograms, pooled
from tasks.protocol.wire import DICE, DISTANCE, FINDING

ByArm = Mapping[str, Mapping[str, Evaluated]]
"""Each arm's model at each hospital, by arm."""


@dataclass(frozen=True)
class OutlineFigures:
    """How well a structure is outlined in some patients; ``None`` where there are too few for the noise.

    Attributes:
        with_structure, without_structure: estimated numbers of patients.
        size_noise: standard deviation of each of them; 0 for exact counts.
        dice, distance: means over patients who have it; distances are fractions of the image's diagonal.
        dice_quartiles, distance_quartiles: of the same patients.
        wrongly_marked: of patients without it, the fraction in whom something was outlined.
    """

    with_structure: float
    without_structure: float
    size_noise: float
    dice: Interval | None
    distance: Interval | None
    dice_quartiles: tuple[float, float, float] | None
    distance_quartiles: tuple[float, float, float] | None
    wrongly_marked: Interval | None


@dataclass(frozen=True)
class OutlineArm:
    """One model or set of models at every hospital, and all patients as if they were one hospital's."""

    hospitals: dict[str, OutlineFigures]
    everybody: OutlineFigures


def findings(by_arm: ByArm) -> dict[str, dict[str, Arm]]:
    """By secondary finding and arm: all figures."""

    def read(evaluated: Evaluated, name: str) -> ScoreHistogram:
        return evaluated.of_finding(evaluated.scores[FINDING + name])

    return _each(by_arm, FINDING, read, arm_of)


def outlines(by_arm: ByArm) -> dict[str, dict[str, OutlineArm]]:
    """By structure and arm: all figures."""

    def read(evaluated: Evaluated, name: str) -> OutlineHistograms:
        return OutlineHistograms(evaluated.scores[DICE + name], evaluated.scores[DISTANCE + name], _noise(evaluated))

    return _each(by_arm, DICE, read, _outline_arm)


def _outline_arm(hospitals: Mapping[str, OutlineHistograms]) -> OutlineArm | None:
    if not hospitals:
        return None
    return OutlineArm({h: _figures(o) for h, o in hospitals.items()}, _figures(pooled(list(hospitals.values()))))


def _figures(outlines: OutlineHistograms) -> OutlineFigures:
    return OutlineFigures(
        with_structure=outlines.with_structure(),
        without_structure=outlines.without_structure(),
        size_noise=outlines.size_noise,
        dice=outlines.mean_dice(),
        distance=outlines.mean_distance(),
        dice_quartiles=outlines.dice_quartiles(),
        distance_quartiles=outlines.distance_quartiles(),
        wrongly_marked=outlines.wrongly_marked(),
    )


R = TypeVar("R")
A = TypeVar("A")


def _each(
    by_arm: ByArm, prefix: str, read: Callable[[Evaluated, str], R], arm: Callable[[Mapping[str, R]], A | None]
) -> dict[str, dict[str, A]]:
    """For each name under a prefix and each arm, the figures of the hospitals that reported it."""
    by_name: dict[str, dict[str, A]] = {}
    for name in dict.fromkeys(_names(by_arm, prefix)):
        for label, hospitals in by_arm.items():
            figures = arm({h: read(e, name) for h, e in hospitals.items() if prefix + name in e.scores})
            if figures is not None:
                by_name.setdefault(name, {})[label] = figures
    return by_name


def _names(by_arm: ByArm, prefix: str) -> Iterator[str]:
    for hospitals in by_arm.values():
        for evaluated in hospitals.values():
            yield from (name.removeprefix(prefix) for name in evaluated.scores if name.startswith(prefix))


def _noise(evaluated: Evaluated) -> float:
    return evaluated.figures.evaluation_noise or 0.0
