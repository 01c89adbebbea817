"""How often an interval holds the truth, how far its point is off, and how often there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from sklearn.metrics import average_precision_score

from tasks.metrics.calibration import brier, calibration_error, calibration_line
from tasks.metrics.histogram import ScoreHistogram, pooled, prevalence, score_histogram
from tasks.metrics.interval import Interval, mean
from tasks.metrics.operating import OperatingPoint, at_threshold, for_specificity, for_youden, optimism
from tasks.metrics.outlining import OutlineHistograms, dice_histogram, distance_histogram
from tasks.metrics.ranking import average_precision, roc_auc
from tests.simulations.world import Release, World, many

FINE = 4096
Told = tuple[Interval | None, float]
"""An interval, and what it should hold."""


@dataclass(frozen=True)
class Cell:
    """One line of a table."""

    figure: str
    patients: int
    world: World
    release: Release
    hospitals: int = 1


@dataclass(frozen=True)
class Measured:
    """What was seen in so many repetitions.

    Attributes:
        coverage, error: how often the interval held the truth, and the Monte-Carlo standard error of that.
        shown: how often there was a point.
        bias: of points that were shown; NaN without any.
        width: the median.
    """

    coverage: float
    error: float
    shown: float
    bias: float
    width: float
    repetitions: int


def measure(cell: Cell, repetitions: int, seed: int = 0) -> Measured:
    """Repeat a cell; cases without an interval do not count."""
    rng, tell = np.random.default_rng([seed, cell.patients, cell.release.bins]), FIGURES[cell.figure]
    told = []
    for _ in range(repetitions):
        hospitals = [cell.world.draw(rng, cell.patients) for _ in range(cell.hospitals)]
        told.append(tell(cell, cell.release.of(rng, hospitals)))
    return summary(told, repetitions)


def summary(told: list[Told], repetitions: int) -> Measured:
    """What many intervals and truths amount to."""
    there = [(interval, truth) for interval, truth in told if interval is not None]
    held = np.array([interval.low <= truth <= interval.high for interval, truth in there])
    points = [interval.value - truth for interval, truth in there if interval.firm]
    coverage = float(held.mean()) if len(held) else float("nan")
    return Measured(
        coverage=coverage,
        error=_standard_error(int(held.sum()), len(held)),
        shown=len(points) / repetitions,
        bias=float(np.mean(points)) if points else float("nan"),
        width=float(np.median([interval.high - interval.low for interval, _ in there])) if there else float("nan"),
        repetitions=repetitions,
    )


def _standard_error(held: int, of: int) -> float:
    """Of a proportion, with two of each added, so that none seen is not none possible (Agresti and Coull, 1998)."""
    share = (held + 2) / (of + 4)
    return float(np.sqrt(share * (1 - share) / (of + 4)))


def _auc(cell: Cell, released: list[ScoreHistogram]) -> Told:
    return roc_auc(pooled(released)), _true_auc(cell.world)


def _mean_auc(cell: Cell, released: list[ScoreHistogram]) -> Told:
    each = [roc_auc(histogram) for histogram in released]
    return mean([auc for auc in each if auc is not None]), _true_auc(cell.world)


@cache
def _true_auc(world: World) -> float:
    found = roc_auc(_everybody(world))
    assert found is not None
    return found.value


@cache
def _everybody(world: World) -> ScoreHistogram:
    """In bins that hold equally many of so many patients that nothing is lost."""
    scores, labels = many(world)
    edges = np.quantile(scores, np.arange(1, FINE) / FINE)
    return ScoreHistogram(score_histogram(scores, labels, FINE, edges), 0.0, edges)


def _precision(cell: Cell, released: list[ScoreHistogram]) -> Told:
    return average_precision(pooled(released), draws=200), _true_precision(cell.world)


@cache
def _true_precision(world: World) -> float:
    scores, labels = many(world)
    return float(average_precision_score(labels, scores))


def _brier(cell: Cell, released: list[ScoreHistogram]) -> Told:
    scores, labels = many(cell.world)
    return brier(pooled(released)), float(np.mean((scores - labels) ** 2))


def _error(cell: Cell, released: list[ScoreHistogram]) -> Told:
    """Of calibrated scores: the truth is 0."""
    return calibration_error(pooled(released)), 0.0


def _slope(cell: Cell, released: list[ScoreHistogram]) -> Told:
    line = calibration_line(pooled(released))
    return (None if line is None else line.slope), 1 / cell.world.squeeze


def _prevalence(cell: Cell, released: list[ScoreHistogram]) -> Told:
    return prevalence(pooled(released)), cell.world.prevalence


def _specific(histogram: ScoreHistogram) -> float:
    return for_specificity(histogram, 0.9)


def _rate(which: str, choose: Callable[[ScoreHistogram], float]) -> Callable[[Cell, list[ScoreHistogram]], Told]:
    """A rate at a threshold that these patients have chosen; the truth is that of the same threshold in all others."""

    def tell(cell: Cell, released: list[ScoreHistogram]) -> Told:
        everybody = pooled(released)
        threshold = choose(everybody)
        point = at_threshold(everybody, threshold, optimism(released, choose)[1])
        real = _real_rates(cell.world, point)
        interval: Interval | None = getattr(point, which)
        return interval, real[which]

    return tell


def _real_rates(world: World, point: OperatingPoint) -> dict[str, float]:
    scores, labels = many(world)
    called = scores >= point.threshold
    return {
        "sensitivity": float(called[labels == 1].mean()),
        "specificity": float(1 - called[labels == 0].mean()),
    }


FIGURES: dict[str, Callable[[Cell, list[ScoreHistogram]], Told]] = {
    "AUC": _auc,
    "mean AUC": _mean_auc,
    "average precision": _precision,
    "Brier": _brier,
    "calibration error": _error,
    "calibration slope": _slope,
    "prevalence": _prevalence,
    "sensitivity at 90 %": _rate("sensitivity", _specific),
    "specificity at 90 %": _rate("specificity", _specific),
    "sensitivity, Youden": _rate("sensitivity", for_youden),
}


@dataclass(frozen=True)
class Outlines:
    """Outlined structures.

    Attributes:
        missed: fraction in which nothing was marked.
        agreement: mean Dice of the others; distances of those that are found follow a gamma distribution around 0.03.
    """

    patients: int
    missed: float
    agreement: float
    bins: int
    noise: float


def measure_outlines(cell: Outlines, repetitions: int, distance: bool) -> Measured:
    """Mean Dice, or mean distance, of structures that are missed or outlined."""
    rng = np.random.default_rng([3, cell.patients, cell.bins])
    found, far = 1 - cell.missed, 0.03
    truth = found * far + cell.missed if distance else found * cell.agreement
    told: list[Told] = []
    for _ in range(repetitions):
        missed = rng.random(cell.patients) < cell.missed
        dice = np.where(missed, 0.0, rng.beta(10 * cell.agreement, 10 * (1 - cell.agreement), cell.patients))
        away = np.where(missed, 1.0, np.minimum(rng.gamma(2, far / 2, cell.patients), 0.99))
        counted = dice_histogram(dice, np.full(cell.patients, np.nan), cell.bins), distance_histogram(away, cell.bins)
        noised = [each + rng.normal(0, cell.noise, each.shape) for each in counted]
        outlines = OutlineHistograms(noised[0], noised[1], cell.noise)
        told.append((outlines.mean_distance() if distance else outlines.mean_dice(), truth))
    return summary(told, repetitions)
