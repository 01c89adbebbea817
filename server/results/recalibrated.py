"""The federated model's scores as probabilities: which line it is delivered with, and what that is worth.

The line is fitted on the very histograms that the report is made of, so figures of it on the same patients would be too
good. Each hospital's patients are therefore judged by the line of all the others'. Where there is no other hospital, or
all patients are one secure sum, nobody is left to judge it, and there are no figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.metrics.calibration import (
    CalibrationLine,
    Group,
    above_constant,
    brier,
    calibration_error,
    calibration_line,
    reliability,
)
from tasks.metrics.histogram import ScoreHistogram, pooled
from tasks.metrics.interval import Interval
from tasks.metrics.recalibration import Recalibration, all_together, by_others, recalibration

_FEWEST = 2


@dataclass(frozen=True)
class ProbabilityFigures:
    """How well probabilities fit some patients; fields as in ``server.results.figures.Figures``."""

    brier: Interval | None
    above_constant: Interval | None
    calibration_error: Interval | None
    calibration: CalibrationLine | None
    reliability: list[Group] = field(default_factory=list)


@dataclass(frozen=True)
class Recalibrated:
    """Scores made into probabilities.

    Attributes:
        line: fitted on all validation patients; the model's file carries it.
        prevalence: among these patients, as far as noise allows to tell.
        hospitals: each one's patients by the line of all other hospitals'; empty where there is only one.
        everybody: all patients, each hospital's by its line; ``None`` likewise.
    """

    line: Recalibration
    prevalence: float
    hospitals: dict[str, ProbabilityFigures] = field(default_factory=dict)
    everybody: ProbabilityFigures | None = None


def recalibrated(histograms: Mapping[str, ScoreHistogram]) -> Recalibrated | None:
    """From the federated model's histograms; ``None`` where no patient, or no patient of a class, was scored."""
    each = list(histograms.values())
    if not each or not (together := pooled(each)).has_both_classes():
        return None
    line = recalibration(together)
    prevalence = min(max(together.size(1) / max(float(together.cells.sum()), 1.0), 0.0), 1.0)
    if len(each) < _FEWEST:
        return Recalibrated(line, prevalence)
    lines = zip(histograms.items(), by_others(each), strict=True)
    hospitals = {name: _figures(own.of(histogram)) for (name, histogram), own in lines}
    return Recalibrated(line, prevalence, hospitals, _figures(all_together(each)))


def _figures(histogram: ScoreHistogram) -> ProbabilityFigures:
    return ProbabilityFigures(
        brier=brier(histogram),
        above_constant=above_constant(histogram),
        calibration_error=calibration_error(histogram),
        calibration=calibration_line(histogram),
        reliability=reliability(histogram),
    )
