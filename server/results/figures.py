"""All figures that score histograms allow: of one hospital, of all patients, of subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from server.rounds.evaluation import Evaluated
from tasks.metrics import measures
from tasks.metrics.calibration import (
    CalibrationLine,
    Group,
    above_constant,
    brier,
    calibration_error,
    calibration_line,
    reliability,
)
from tasks.metrics.histogram import ScoreHistogram, coarsened, pooled, prevalence, quantiles, range_edges
from tasks.metrics.interval import Interval
from tasks.metrics.measures import measure_cells
from tasks.metrics.operating import (
    OperatingPoint,
    Optimism,
    at_threshold,
    for_specificity,
    for_youden,
    optimism,
    roc_curve,
)
from tasks.metrics.ranking import HospitalAlone, average_precision, hospital_alone, roc_auc
from tasks.protocol.subgroups import LEAST, LEVELS
from tasks.protocol.wire import FINDING, REST, TOLD, Arrays

SPECIFICITY = 0.9
"""Of one operating point; the other one is Youden's."""


@dataclass(frozen=True)
class Thresholds:
    """Where scores become yes or no, chosen once on all validation patients pooled."""

    specific: float
    youden: float


@dataclass(frozen=True)
class Figures:
    """A model's figures on some patients; ``None`` where they have no class that it needs. Where noise hides a class,
    intervals have no point.

    Attributes:
        negatives, positives: estimated numbers.
        size_noise: standard deviation of each of them; 0 for exact counts.
        above_constant: the Brier score less that of the same number, the prevalence, for each patient.
        specific, youden: the two operating points, without the optimism of having been chosen on these patients.
        calibration: slope and intercept; ``None`` where noise hides a class or scores separate the classes.
        roc: false alarms (1 - specificity) and sensitivity at every edge between bins, from everybody called to nobody;
            empty where there is no AUC, or no point of it.
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
    calibration: CalibrationLine | None = None
    above_constant: Interval | None = None
    reliability: list[Group] = field(default_factory=list)
    roc: list[tuple[float, float]] = field(default_factory=list)


def thresholds(histogram: ScoreHistogram) -> Thresholds:
    """The operating points of some patients."""
    return Thresholds(for_specificity(histogram, SPECIFICITY), for_youden(histogram))


@dataclass(frozen=True)
class Chosen:
    """By how much the two thresholds look better in the patients that have chosen them."""

    specific: Optimism = field(default_factory=Optimism)
    youden: Optimism = field(default_factory=Optimism)


def figures_of(histogram: ScoreHistogram, chosen: Thresholds, lost: Chosen | None = None) -> Figures:
    """All figures of some patients.

    Args:
        lost: what is taken off at thresholds that they have chosen; ``None`` for thresholds of others.
    """
    lost = lost or Chosen()
    return Figures(
        negatives=histogram.size(0),
        positives=histogram.size(1),
        size_noise=histogram.size_noise,
        prevalence=prevalence(histogram),
        auc=roc_auc(histogram),
        average_precision=average_precision(histogram),
        brier=brier(histogram),
        calibration_error=calibration_error(histogram),
        specific=at_threshold(histogram, chosen.specific, lost.specific),
        youden=at_threshold(histogram, chosen.youden, lost.youden),
        calibration=calibration_line(histogram),
        above_constant=above_constant(histogram),
        reliability=reliability(histogram),
        roc=_roc(histogram),
    )


def _roc(histogram: ScoreHistogram) -> list[tuple[float, float]]:
    auc = roc_auc(histogram)
    if auc is None or not auc.firm:
        return []
    sensitivity, specificity = roc_curve(histogram)
    return [(float(1 - spared), float(found)) for found, spared in zip(sensitivity, specificity, strict=True)]


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
    each = list(histograms.values())
    everybody = pooled(each)
    chosen = thresholds(everybody)
    at_specificity, of_all = optimism(each, partial(for_specificity, wanted=SPECIFICITY))
    at_youden, youden_of_all = optimism(each, for_youden)
    lost = [Chosen(*both) for both in zip(at_specificity, at_youden, strict=True)]
    return Arm(
        {name: figures_of(h, chosen, own) for (name, h), own in zip(histograms.items(), lost, strict=True)},
        figures_of(everybody, chosen, Chosen(of_all, youden_of_all)),
    )


def in_bins_of(federated: Mapping[str, Evaluated], arm: Mapping[str, Evaluated]) -> dict[str, Evaluated]:
    """An arm's exact histograms counted again in as many bins as the federated model's, placed by the same rule, so
    that both are measured alike: quantiles of its own scores at all hospitals together, or equally wide bins."""
    known = [each for each in federated.values() if each.scores]
    exact = [each.histogram() for each in arm.values() if each.scores]
    if not known or not exact or exact[0].noise or exact[0].bins <= known[0].histogram().bins:
        return dict(arm)
    bins, looked = known[0].histogram().bins, bool(known[0].edges)
    equal = np.linspace(0, 1, bins + 1)[1:-1]
    edges = quantiles(pooled(exact), bins) if looked else equal
    return {name: _recounted(each, edges, range_edges(bins) if looked else equal) for name, each in arm.items()}


def _recounted(evaluated: Evaluated, edges: NDArray[np.float64], of_findings: NDArray[np.float64]) -> Evaluated:
    if not evaluated.scores:
        return evaluated
    histogram = coarsened(evaluated.histogram(), edges)
    more: Arrays = {}
    for name, counts in evaluated.scores.items():
        if name.startswith(FINDING):
            more[name] = coarsened(ScoreHistogram(counts), of_findings).cells
        elif name.startswith(REST):
            more[name] = np.stack([coarsened(ScoreHistogram(each), of_findings).cells for each in counts])
        elif name.startswith(TOLD) and counts.shape == (3, measure_cells(evaluated.histogram().bins)):
            more[name] = measures.coarsened(counts, measure_cells(histogram.bins))
    scores = {**evaluated.scores, **more, "histogram": histogram.cells}
    return replace(evaluated, scores=scores, edges=[float(edge) for edge in histogram.limits[1:-1]]).with_auc()


def histograms_of(evaluated: Mapping[str, Evaluated]) -> dict[str, ScoreHistogram]:
    """Of the hospitals that were evaluated."""
    return {name: evaluation.histogram() for name, evaluation in evaluated.items() if evaluation.scores}


def knowing_the_hospital(histograms: Mapping[str, ScoreHistogram]) -> HospitalAlone | None:
    """How far the hospital by itself predicts the finding."""
    return hospital_alone(list(histograms.values()))


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


def subgroups(
    scores: Arrays, noise: Mapping[str, float], chosen: Thresholds, edges: Sequence[float] = ()
) -> list[Subgroup]:
    """Every level of every attribute that hospitals reported.

    Args:
        scores: as ``StudyState.scores``; the attributes' histograms have shape (levels, 2, bins).
        noise: of each hospital's cells.
        edges: between the bins; none where they are equally wide.
    """
    groups, between = [], np.array(edges) if edges else None
    for attribute, levels in LEVELS.items():
        by_hospital = {
            name.rpartition(".")[0]: counts for name, counts in scores.items() if name.endswith(f".{attribute}")
        }
        total = max(1.0, float(sum(counts.sum() for counts in by_hospital.values())))
        for number, level in enumerate(levels if by_hospital else ()):
            everybody = pooled([ScoreHistogram(counts[number], noise[h], between) for h, counts in by_hospital.items()])
            least = min(everybody.size(0), everybody.size(1)) - 2 * everybody.size_noise
            share = float(everybody.cells.sum()) / total
            groups.append(Subgroup(attribute, level, share, figures_of(everybody, chosen) if least >= LEAST else None))
    return groups
