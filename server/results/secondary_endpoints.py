"""What is told beside a task's own question: further findings, and how structures are outlined."""

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
"""What each hospital has told of each arm's model."""


@dataclass(frozen=True)
class OutlineFigures:
    """How some patients' structures are outlined; ``None`` where there are too few for their noise.

    Attributes:
        with_structure, without_structure: estimated numbers of patients.
        size_noise: standard deviation of each of them; 0 for exact counts.
        dice, distance: means over patients who have it; distances are fractions of the image's diagonal.
        dice_quartiles, distance_quartiles: of the same patients.
        wrongly_marked: of patients without it, the fraction in whom something was marked.
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


def findings(told: ByArm) -> dict[str, dict[str, Arm]]:
    """By further finding and arm: all figures."""
    return _each(told, FINDING, lambda found, name: ScoreHistogram(found.scores[FINDING + name], _noise(found)), arm_of)


def outlines(told: ByArm) -> dict[str, dict[str, OutlineArm]]:
    """By structure and arm: all figures."""

    def read(found: Evaluated, name: str) -> OutlineHistograms:
        return OutlineHistograms(found.scores[DICE + name], found.scores[DISTANCE + name], _noise(found))

    return _each(told, DICE, read, _outline_arm)


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
    told: ByArm, prefix: str, read: Callable[[Evaluated, str], R], arm: Callable[[Mapping[str, R]], A | None]
) -> dict[str, dict[str, A]]:
    """For each name under a prefix and each arm, what the hospitals that told it make together."""
    found: dict[str, dict[str, A]] = {}
    for name in dict.fromkeys(_names(told, prefix)):
        for label, hospitals in told.items():
            made = arm({h: read(each, name) for h, each in hospitals.items() if prefix + name in each.scores})
            if made is not None:
                found.setdefault(name, {})[label] = made
    return found


def _names(told: ByArm, prefix: str) -> Iterator[str]:
    for hospitals in told.values():
        for each in hospitals.values():
            yield from (name.removeprefix(prefix) for name in each.scores if name.startswith(prefix))


def _noise(found: Evaluated) -> float:
    return found.figures.evaluation_noise or 0.0
