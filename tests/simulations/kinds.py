"""Figures of classes, grades and measurements: how often an interval holds the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from tasks.metrics.classes import ClassTables, rest_histograms, told_classes
from tasks.metrics.grades import GradeTable, told_grades
from tasks.metrics.histogram import range_edges
from tasks.metrics.interval import Interval
from tasks.metrics.measures import MeasureHistograms, measure_cells, told_measures
from tests.simulations.coverage import Measured, Told, summary

Numbers = NDArray[np.float64]
_MANY = 200_000
_CUTS = (-0.3, 0.5, 1.1, 1.7)


@dataclass(frozen=True)
class Kind:
    """One line of the table.

    Attributes:
        figure: one of ``FIGURES``.
        world: one of ``WORLDS`` that the figure is about.
        bins: of a score histogram; from 128 on tables are fine.
        noise: standard deviation on each cell.
    """

    figure: str
    world: str
    patients: int
    bins: int
    noise: float


def _classes(rng: np.random.Generator, patients: int, good: float) -> tuple[Numbers, Numbers]:
    """Probabilities of three classes, a fifth, half and the rest of the patients."""
    mix = np.array([0.2, 0.5, 0.3])
    true = rng.choice(3, patients, p=mix)
    logits = np.log(mix) + good * np.eye(3)[true] + rng.normal(0, 1, (patients, 3))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), true.astype(np.float64)


def _grades(rng: np.random.Generator, patients: int, scatter: float) -> tuple[Numbers, Numbers]:
    """Five grades of a hidden normal quantity, told with an error of so many standard deviations."""
    hidden = rng.normal(size=patients)
    told = np.searchsorted(_CUTS, 0.9 * hidden + rng.normal(0, scatter, patients))
    return told.astype(np.float64), np.searchsorted(_CUTS, hidden).astype(np.float64)


def _ejection(rng: np.random.Generator, patients: int) -> tuple[Numbers, Numbers]:
    """Values crowded in the middle of the range, told too near to their mean."""
    true = np.clip(rng.normal(0.58, 0.12, patients), 0, 1)
    return np.clip(0.56 + 0.8 * (true - 0.58) + rng.normal(0, 0.06, patients), 0, 1), true


def _age(rng: np.random.Generator, patients: int) -> tuple[Numbers, Numbers]:
    """Values all over the range, told well."""
    true = rng.beta(2.5, 2, patients)
    return np.clip(true + rng.normal(0, 0.04, patients), 0, 1), true


def _gross(rng: np.random.Generator, patients: int) -> tuple[Numbers, Numbers]:
    """One in twelve is told anything at all."""
    told, true = _age(rng, patients)
    return np.where(rng.random(patients) < 1 / 12, rng.random(patients), told), true


WORLDS: dict[str, Callable[[np.random.Generator, int], tuple[Numbers, Numbers]]] = {
    "classes, poor": lambda rng, patients: _classes(rng, patients, 0.7),
    "classes, good": lambda rng, patients: _classes(rng, patients, 1.6),
    "grades, poor": lambda rng, patients: _grades(rng, patients, 1.0),
    "grades, good": lambda rng, patients: _grades(rng, patients, 0.4),
    "ejection fraction": _ejection,
    "age": _age,
    "age, gross errors": _gross,
}


def _class_tables(told: Numbers, true: Numbers, bins: int, noise: float, rng: np.random.Generator) -> ClassTables:
    edges = range_edges(bins) if bins < 128 else None
    table, rest = told_classes(told, true), rest_histograms(told, true, bins, edges)
    return ClassTables(table + rng.normal(0, noise, table.shape), rest + rng.normal(0, noise, rest.shape), noise, edges)


def _grade_table(told: Numbers, true: Numbers, bins: int, noise: float, rng: np.random.Generator) -> GradeTable:
    table = told_grades(told, true, len(_CUTS) + 1)
    return GradeTable(table + rng.normal(0, noise, table.shape), noise)


def _histograms(told: Numbers, true: Numbers, bins: int, noise: float, rng: np.random.Generator) -> MeasureHistograms:
    counts = told_measures(true, told, 0, 1, measure_cells(bins))
    return MeasureHistograms(counts + rng.normal(0, noise, counts.shape), noise)


def _macro_auc(told: Numbers, true: Numbers) -> float:
    return float(np.mean([roc_auc_score(true == k, told[:, k]) for k in range(told.shape[1])]))


def _balanced(told: Numbers, true: Numbers) -> float:
    return float(np.mean([(told.argmax(axis=1)[true == k] == k).mean() for k in range(told.shape[1])]))


def _upper_limit(told: Numbers, true: Numbers) -> float:
    return float((told - true).mean() + 1.959964 * (told - true).std())


FIGURES: dict[str, tuple[Callable[..., Interval | None], Callable[[Numbers, Numbers], float]]] = {
    "macro AUC": (lambda *of: _class_tables(*of).macro_auc(), _macro_auc),
    "accuracy": (lambda *of: _class_tables(*of).accuracy(), lambda told, true: float((told.argmax(1) == true).mean())),
    "balanced accuracy": (lambda *of: _class_tables(*of).balanced_accuracy(), _balanced),
    "weighted kappa": (
        lambda *of: _grade_table(*of).kappa(),
        lambda told, true: float(cohen_kappa_score(true, told, weights="quadratic")),
    ),
    "error in grades": (
        lambda *of: _grade_table(*of).mean_error(),
        lambda told, true: float(np.abs(told - true).mean()),
    ),
    "bias": (lambda *of: _histograms(*of).bias(), lambda told, true: float((told - true).mean())),
    "mean absolute error": (
        lambda *of: _histograms(*of).mean_error(),
        lambda told, true: float(np.abs(told - true).mean()),
    ),
    "upper limit of agreement": (lambda *of: (_histograms(*of).limits_of_agreement() or (None, None))[1], _upper_limit),
    "R2": (
        lambda *of: _histograms(*of).r_squared(),
        lambda told, true: float(1 - ((told - true) ** 2).mean() / true.var()),
    ),
    "slope": (
        lambda *of: _histograms(*of).slope(),
        lambda told, true: float(np.cov(told, true)[0, 1] / told.var()),
    ),
}
KINDS = {"classes": tuple(FIGURES)[:3], "grades": tuple(FIGURES)[3:5], "measures": tuple(FIGURES)[5:]}


@cache
def truth(figure: str, world: str) -> float:
    """Of so many patients that it is the truth, from their raw answers."""
    return FIGURES[figure][1](*WORLDS[world](np.random.default_rng(1), _MANY))


def measure_kind(kind: Kind, repetitions: int) -> Measured:
    """Draw a hospital's patients and their noise so often."""
    rng, tell = np.random.default_rng([5, kind.patients, kind.bins]), FIGURES[kind.figure][0]
    told: list[Told] = []
    for _ in range(repetitions):
        drawn = WORLDS[kind.world](rng, kind.patients)
        told.append((tell(*drawn, kind.bins, kind.noise, rng), truth(kind.figure, kind.world)))
    return summary(told, repetitions)
