"""A model tried on every hospital's validation patients, of whom nothing comes back but histograms of scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.serverapp import Grid

from conf import schema
from server.rounds import claimed_privacy
from server.rounds.broadcast import Broadcast
from server.rounds.exchange import Answer, exchange
from server.rounds.state import HospitalRound, Roster
from tasks.metrics.histogram import ScoreHistogram, pooled
from tasks.metrics.ranking import roc_auc
from tasks.protocol import wire
from tasks.protocol.wire import Arrays, EvaluateOrder, EvaluateReport

_MOST_PATIENTS = 1e9


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation told of a hospital: figures, histograms by name, and what went wrong, if anything did."""

    figures: HospitalRound
    scores: Arrays = field(default_factory=dict)
    problem: str = ""

    @classmethod
    def of(cls, report: EvaluateReport, figures: HospitalRound | None = None) -> Evaluated:
        """What a usable report tells; ``figures`` are those that are known beside it."""
        told = replace(figures or HospitalRound(), evaluation_epsilon=report.epsilon, evaluation_noise=report.noise)
        counts = report.arrays.get("histogram")
        auc = None if counts is None else roc_auc(ScoreHistogram(counts, report.noise))
        if auc is not None:
            told = replace(told, auc=auc.value, auc_low=auc.low, auc_high=auc.high)
        return cls(told, report.arrays)

    def histogram(self) -> ScoreHistogram:
        """All its validation patients."""
        return ScoreHistogram(self.scores["histogram"], self.figures.evaluation_noise or 0.0)


def evaluates(study: schema.Study, number: int) -> bool:
    """Whether the model is evaluated after this round."""
    return number % study.evaluation.every == 0 or number == study.federation.rounds


def evaluate(
    study: schema.Study, roster: Roster, grid: Grid, weights: Arrays, number: int, post: Broadcast | None = None
) -> dict[str, Evaluated]:
    """What each hospital's validation patients say of a model."""
    return asked(study, roster, grid, EvaluateOrder(roster.document, number, weights), post)


def asked(
    study: schema.Study,
    roster: Roster,
    grid: Grid,
    order: EvaluateOrder,
    post: Broadcast | None = None,
    told: Callable[[str, EvaluateReport], None] | None = None,
) -> dict[str, Evaluated]:
    """What each hospital answers to an order to evaluate; ``told`` hears of every usable report as it comes."""
    results = {}
    for answer in exchange(grid, roster, order, EvaluateReport, study.federation.deadline_s, post or Broadcast()):
        figures = HospitalRound(bytes_down=answer.bytes_down, bytes_up=answer.bytes_up)
        results[answer.hospital] = found = _judged(answer, order, figures)
        if told is not None and answer.report is not None and not found.problem:
            told(answer.hospital, answer.report)
    return results


def _judged(answer: Answer[EvaluateReport], order: EvaluateOrder, figures: HospitalRound) -> Evaluated:
    """What an answer tells, or why it tells nothing: what a report provokes costs the hospital that report alone."""
    try:
        problem = answer.problem or _unusable(answer.report, order)
        if problem or answer.report is None:
            return Evaluated(figures, problem=problem)
        return Evaluated.of(answer.report, figures)
    except Exception as error:
        return Evaluated(figures, problem=f"nothing can be made of its histograms ({type(error).__name__})")


def scores_of(evaluated: Mapping[str, Evaluated]) -> Arrays:
    """All histograms under one name each: the hospital's, and ``hospital.name`` for all that is told beside it."""
    named = {
        hospital if name == "histogram" else f"{hospital}.{name}": counts
        for hospital, found in evaluated.items()
        for name, counts in found.scores.items()
    }
    return dict(sorted(named.items()))


def pooled_auc(evaluated: Mapping[str, Evaluated]) -> tuple[float, float, float] | None:
    """AUC of all validation patients as if they were one hospital's, with its interval."""
    histograms = [found.histogram() for found in evaluated.values() if found.scores]
    auc = roc_auc(pooled(histograms)) if histograms else None
    return None if auc is None else (auc.value, auc.low, auc.high)


def _unusable(report: EvaluateReport | None, order: EvaluateOrder) -> str:
    if report is None:
        return "no report"
    due = wire.due(order)
    if report.arrays.keys() != due.keys():
        return f"due are {', '.join(due)} and nothing else"
    for name, shape in due.items():
        counts = report.arrays[name]
        if counts.shape != shape or counts.dtype != np.float64:
            return f"{name} is {counts.dtype} {counts.shape}, not float64 {shape}"
        if not (np.abs(counts) <= _MOST_PATIENTS).all():
            return f"{name} must hold numbers up to {_MOST_PATIENTS:g}"
    return claimed_privacy.unsound(report.noise, report, order.study.evaluation.epsilon, order.study.privacy.delta)
