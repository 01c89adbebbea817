"""Questions with other answers than yes or no: how well classes, grades and measurements are told, in every arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from server.results.secondary_endpoints import ByArm
from server.rounds.evaluation import Evaluated
from server.rounds.state import EVERYBODY
from tasks.answers import Answer, Classes, Grade, Measure
from tasks.metrics import classes, grades, measures
from tasks.metrics.classes import ClassTables
from tasks.metrics.grades import GradeTable
from tasks.metrics.histogram import range_edges
from tasks.metrics.interval import Interval, scaled
from tasks.metrics.measures import MeasureHistograms
from tasks.protocol.wire import REST, TOLD


@dataclass(frozen=True)
class ClassFigures:
    """How well classes are told apart in some patients; ``None`` where too few have them.

    Attributes:
        names: of the classes, in their order in every list.
        sizes: estimated patients of each; their standard deviation is ``size_noise``, 0 for exact counts.
        aucs: of each class against all others.
        shares: by the reader's class, which fraction of its patients is told each class.
    """

    names: list[str]
    sizes: list[float]
    size_noise: float
    accuracy: Interval | None
    balanced_accuracy: Interval | None
    macro_auc: Interval | None
    aucs: list[Interval | None]
    sensitivities: list[Interval | None]
    shares: list[list[Interval | None]]
    kind: Literal["classes"] = "classes"


@dataclass(frozen=True)
class GradeFigures:
    """How well grades are told in some patients.

    Attributes:
        names: of the grades, from lowest to highest.
        sizes, size_noise: as in ``ClassFigures``.
        kappa: with quadratic weights.
        mean_error: in grades.
        shares: by the reader's grade, which fraction of its patients is told each grade.
    """

    names: list[str]
    sizes: list[float]
    size_noise: float
    kappa: Interval | None
    mean_error: Interval | None
    accuracy: Interval | None
    shares: list[list[Interval | None]]
    kind: Literal["grade"] = "grade"


@dataclass(frozen=True)
class MeasureFigures:
    """How well a value is measured in some patients; in ``unit``, but for R2 and slope.

    Attributes:
        unit: UCUM.
        patients: estimated number; its standard deviation is ``size_noise``.
        bias: mean of the model's value less the reader's.
        below, above: Bland and Altman's limits of agreement.
        r_squared: what the model explains of the variance of the readers' values.
        slope: of the reader's value on the model's.
        differences: estimated patients by difference, between ``limits`` in the unit, one more.
    """

    unit: str
    patients: float
    size_noise: float
    bias: Interval | None
    mean_error: Interval | None
    below: Interval | None
    above: Interval | None
    r_squared: Interval | None
    slope: Interval | None
    differences: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    kind: Literal["measure"] = "measure"


AnswerFigures = ClassFigures | GradeFigures | MeasureFigures


@dataclass(frozen=True)
class AnswerArm:
    """One model or set of models at every hospital, none where tables leave as secure sums, and all patients as if they
    were one hospital's."""

    hospitals: dict[str, AnswerFigures]
    everybody: AnswerFigures


def answers(by_arm: ByArm, questions: Mapping[str, Answer]) -> dict[str, dict[str, AnswerArm]]:
    """By question and arm: all figures, of the questions whose tables hospitals have sent.

    Args:
        questions: ``Task.questions``.
    """
    found: dict[str, dict[str, AnswerArm]] = {}
    for name, answer in questions.items():
        for arm, hospitals in by_arm.items():
            told = {h: each for h, each in hospitals.items() if TOLD + name in each.scores}
            if told and (figures := _arm(told, name, answer)) is not None:
                own = {h: each for h, each in figures.hospitals.items() if h != EVERYBODY}
                found.setdefault(name, {})[arm] = replace(figures, hospitals=own)
    return found


def _arm(told: Mapping[str, Evaluated], name: str, answer: Answer) -> AnswerArm | None:
    if isinstance(answer, Classes):
        tables = {h: _class_tables(each, name) for h, each in told.items() if REST + name in each.scores}
        if not tables:
            return None
        names = list(answer.names)
        together = classes.pooled(list(tables.values()))
        return AnswerArm({h: _of_classes(each, names) for h, each in tables.items()}, _of_classes(together, names))
    if isinstance(answer, Grade):
        graded = {h: GradeTable(each.scores[TOLD + name], _noise(each)) for h, each in told.items()}
        names, whole = list(answer.names), grades.pooled(list(graded.values()))
        return AnswerArm({h: _of_grades(each, names) for h, each in graded.items()}, _of_grades(whole, names))
    if isinstance(answer, Measure):
        measured = {h: MeasureHistograms(each.scores[TOLD + name], _noise(each)) for h, each in told.items()}
        all_of = measures.pooled(list(measured.values()))
        return AnswerArm({h: _of_measures(m, answer) for h, m in measured.items()}, _of_measures(all_of, answer))
    return None


def _class_tables(evaluated: Evaluated, name: str) -> ClassTables:
    rest = evaluated.scores[REST + name]
    edges = range_edges(rest.shape[-1]) if evaluated.edges else None  # nobody has looked where these lie
    return ClassTables(evaluated.scores[TOLD + name], rest, _noise(evaluated), edges)


def _of_classes(tables: ClassTables, names: list[str]) -> ClassFigures:
    return ClassFigures(
        names=names,
        sizes=tables.sizes,
        size_noise=tables.size_noise,
        accuracy=tables.accuracy(),
        balanced_accuracy=tables.balanced_accuracy(),
        macro_auc=tables.macro_auc(),
        aucs=tables.aucs(),
        sensitivities=tables.sensitivities(),
        shares=tables.shares(),
    )


def _of_grades(table: GradeTable, names: list[str]) -> GradeFigures:
    return GradeFigures(
        names=names,
        sizes=table.sizes,
        size_noise=table.size_noise,
        kappa=table.kappa(),
        mean_error=table.mean_error(),
        accuracy=table.accuracy(),
        shares=table.shares(),
    )


def _of_measures(histograms: MeasureHistograms, measure: Measure) -> MeasureFigures:
    span = measure.high - measure.low
    below, above = histograms.limits_of_agreement() or (None, None)

    def in_unit(figure: Interval | None) -> Interval | None:
        return None if figure is None else scaled(figure, span)

    counts: NDArray[np.float64] = histograms.counts[2]
    return MeasureFigures(
        unit=measure.unit.value,
        patients=histograms.patients,
        size_noise=histograms.size_noise,
        bias=in_unit(histograms.bias()),
        mean_error=in_unit(histograms.mean_error()),
        below=in_unit(below),
        above=in_unit(above),
        r_squared=histograms.r_squared(),
        slope=histograms.slope(),
        differences=[float(each) for each in counts],
        limits=[float(each) * span for each in measures.difference_limits(len(counts))],
    )


FIGURES: dict[str, tuple[str, ...]] = {
    "classes": ("macro_auc", "accuracy", "balanced_accuracy"),
    "grade": ("kappa", "mean_error", "accuracy"),
    "measure": ("mean_error", "bias", "below", "above", "r_squared", "slope"),
}
"""By kind, the figures that every list of a model's figures has, first the one that sums it up."""


def told_figures(figures: AnswerFigures) -> dict[str, Interval | None]:
    """The figures of ``FIGURES`` by name; of classes also each one's AUC and sensitivity."""
    named: dict[str, Interval | None] = {name: getattr(figures, name) for name in FIGURES[figures.kind]}
    if isinstance(figures, ClassFigures):
        named |= {f"auc_{name}": auc for name, auc in zip(figures.names, figures.aucs, strict=True)}
        named |= {f"sensitivity_{name}": s for name, s in zip(figures.names, figures.sensitivities, strict=True)}
    return named


def _noise(evaluated: Evaluated) -> float:
    return evaluated.figures.evaluation_noise or 0.0
