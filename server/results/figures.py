"""All figures that score histograms allow: of one hospital, of all patients, of subgroups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.rounds.evaluation import Evaluated
from tasks.metrics.calibration import Group, brier, expected_calibration_error, reliability
from tasks.metrics.histogram import ScoreHistogram, pooled, prevalence
from tasks.metrics.interval import Interval
from tasks.metrics.operating import OperatingPoint, at_threshold, for_specificity, for_youden
from tasks.metrics.ranking import average_precision, prevalence_only, roc_auc
from tasks.protocol.subgroups import LEAST, LEVELS
from tasks.protocol.wire import Arrays

SPECIFICITY = 0.9
"""Of one operating point; the other one is Youden's."""


@dataclass(frozen=True)
class Thresholds:
    """Where scores become yes or no, chosen once on all validation patients pooled."""

    specific: float
    youden: float


@dataclass(frozen=True)
class Figures:
    """A model's figures on some patients; ``None`` where there are too few of them for the noise.

    Attributes:
        negatives, positives: estimated numbers.
        size_noise: standard deviation of each of them; 0 for exact counts.
        specific, youden: the two operating points.
    """

    negatives: float
    positives: float
    size_noise: float
    prevalence: Interval | None
    auc: Interval | None
    average_precision: Interval | None
    brier: Interval | None
    calibration_error: Interval | None
    specific: OperatingPoint
    youden: OperatingPoint
    reliability: list[Group] = field(default_factory=list)


def thresholds(histogram: ScoreHistogram) -> Thresholds:
    """The operating points of some patients."""
    return Thresholds(for_specificity(histogram, SPECIFICITY), for_youden(histogram))


def figures_of(histogram: ScoreHistogram, chosen: Thresholds) -> Figures:
    """All figures of some patients."""
    return Figures(
        negatives=histogram.size(0),
        positives=histogram.size(1),
        size_noise=histogram.size_noise,
        prevalence=prevalence(histogram),
        auc=roc_auc(histogram),
        average_precision=average_precision(histogram),
        brier=brier(histogram),
        calibration_error=expected_calibration_error(histogram),
        specific=at_threshold(histogram, chosen.specific),
        youden=at_threshold(histogram, chosen.youden),
        reliability=reliability(histogram),
    )


@dataclass(frozen=True)
class Arm:
    """One model or set of models at every hospital.

    Attributes:
        hospitals: each hospital's own validation patients.
        everybody: all patients as if they were one hospital's.
    """

    hospitals: dict[str, Figures]
    everybody: Figures


def arm_of(histograms: Mapping[str, ScoreHistogram]) -> Arm | None:
    """The figures of an arm; ``None`` if it was not evaluated at any hospital."""
    if not histograms:
        return None
    everybody = pooled(list(histograms.values()))
    chosen = thresholds(everybody)
    return Arm({name: figures_of(h, chosen) for name, h in histograms.items()}, figures_of(everybody, chosen))


def histograms_of(evaluated: Mapping[str, Evaluated]) -> dict[str, ScoreHistogram]:
    """Of the hospitals that were evaluated."""
    return {name: evaluation.histogram() for name, evaluation in evaluated.items() if evaluation.scores}


def knowing_the_hospital(histograms: Mapping[str, ScoreHistogram]) -> Interval | None:
    """Pooled AUC of a model that looks at no image; see ``prevalence_only``."""
    return prevalence_only(list(histograms.values()))


@dataclass(frozen=True)
class Subgroup:
    """Patients of all hospitals with one level of an attribute.

    Attributes:
        share: of all patients, the estimated fraction that is in this level.
        figures: ``None`` where there are fewer than ``LEAST`` of a class, as far as the noise allows to tell.
    """

    attribute: str
    level: str
    share: float
    figures: Figures | None


def subgroups(scores: Arrays, noise: Mapping[str, float], chosen: Thresholds) -> list[Subgroup]:
    """Every level of every attribute that hospitals reported.

    Args:
        scores: as ``StudyState.scores``; the attributes' histograms have shape (levels, 2, bins).
        noise: of each hospital's cells.
    """
    groups = []
    for attribute, levels in LEVELS.items():
        by_hospital = {
            name.rpartition(".")[0]: counts for name, counts in scores.items() if name.endswith(f".{attribute}")
        }
        total = max(1.0, float(sum(counts.sum() for counts in by_hospital.values())))
        for number, level in enumerate(levels if by_hospital else ()):
            everybody = pooled([ScoreHistogram(counts[number], noise[h]) for h, counts in by_hospital.items()])
            least = min(everybody.size(0), everybody.size(1)) - 2 * everybody.size_noise
            share = float(everybody.cells.sum()) / total
            groups.append(Subgroup(attribute, level, share, figures_of(everybody, chosen) if least >= LEAST else None))
    return groups
