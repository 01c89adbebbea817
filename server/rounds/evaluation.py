"""A model scored on every hospital's validation patients. Only histograms of the scores come back.

Tested in ``tests/server/rounds/test_round.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from conf.schema.study import Study
from server.rounds import claimed_privacy
from server.rounds.exchange import Answer, Channel, exchange
from server.rounds.state import HospitalRound, Roster
from tasks.metrics.histogram import ScoreHistogram, pooled
from tasks.metrics.ranking import roc_auc
from tasks.protocol import wire
from tasks.protocol.wire import Arrays, EvaluateOrder, EvaluateReport

_MOST_PATIENTS = 1e9


@dataclass(frozen=True)
class Evaluated:
    """One hospital's evaluation of a model: figures, histograms by name, and what went wrong, if anything did."""

    figures: HospitalRound
    scores: Arrays = field(default_factory=dict)
    problem: str = ""

    @classmethod
    def of(cls, report: EvaluateReport, figures: HospitalRound | None = None) -> Evaluated:
        """From a usable report; ``figures`` are those that are known already."""
        figures = replace(figures or HospitalRound(), evaluation_epsilon=report.epsilon, evaluation_noise=report.noise)
        counts = report.arrays.get("histogram")
        auc = None if counts is None else roc_auc(ScoreHistogram(counts, report.noise))
        if auc is not None:
            figures = replace(figures, auc=auc.value, auc_low=auc.low, auc_high=auc.high)
        return cls(figures, report.arrays)

    def histogram(self) -> ScoreHistogram:
        """The scores of all its validation patients."""
        return ScoreHistogram(self.scores["histogram"], self.figures.evaluation_noise or 0.0)


def evaluates(study: Study, number: int) -> bool:
    """Whether the model is evaluated after this round."""
    return number % study.evaluation.every == 0 or number == study.federation.rounds


def evaluate(channel: Channel, roster: Roster, weights: Arrays, number: int) -> dict[str, Evaluated]:
    """A model's scores on each hospital's validation patients."""
    return collect_scores(channel, roster, EvaluateOrder(roster.document, number, weights))


def collect_scores(
    channel: Channel,
    roster: Roster,
    order: EvaluateOrder,
    on_report: Callable[[str, EvaluateReport], None] | None = None,
) -> dict[str, Evaluated]:
    """Send an order to evaluate, and read each hospital's answer. ``on_report`` is given every usable report as it
    arrives."""
    results: dict[str, Evaluated] = {}
    for answer in exchange(channel, roster, order, EvaluateReport):
        evaluated = _read(answer, order)
        results[answer.hospital] = evaluated
        if on_report is not None and answer.report is not None and not evaluated.problem:
            on_report(answer.hospital, answer.report)
    return results


def _read(answer: Answer[EvaluateReport], order: EvaluateOrder) -> Evaluated:
    """The figures in an answer, or why it has none: a report that causes an error costs its hospital that report
    alone."""
    figures = HospitalRound(bytes_down=answer.bytes_down, bytes_up=answer.bytes_up)
    try:
        problem = answer.problem or _unusable(answer.report, order)
        if problem or answer.report is None:
            return Evaluated(figures, problem=problem)
        return Evaluated.of(answer.report, figures)
    except Exception as error:
        return Evaluated(figures, problem=f"its histograms cannot be processed ({type(error).__name__})")


def scores_of(evaluated: Mapping[str, Evaluated]) -> Arrays:
    """All histograms by name: the hospital's own name, and ``hospital.name`` for secondary ones."""
    named = {
        hospital if name == "histogram" else f"{hospital}.{name}": counts
        for hospital, evaluation in evaluated.items()
        for name, counts in evaluation.scores.items()
    }
    return dict(sorted(named.items()))


def pooled_auc(evaluated: Mapping[str, Evaluated]) -> tuple[float, float, float] | None:
    """AUC of all validation patients as if they were one hospital's, with its interval."""
    histograms = [evaluation.histogram() for evaluation in evaluated.values() if evaluation.scores]
    auc = roc_auc(pooled(histograms)) if histograms else None
    return None if auc is None else (auc.value, auc.low, auc.high)


def _unusable(report: EvaluateReport | None, order: EvaluateOrder) -> str:
    if report is None:
        return "no report"
    due = wire.due(order)
    if report.arrays.keys() != due.keys():
        return f"it must bring exactly {', '.join(due)}"
    for name, shape in due.items():
        counts = report.arrays[name]
        if counts.shape != shape or counts.dtype != np.float64:
            return f"{name} is {counts.dtype} {counts.shape}, not float64 {shape}"
        if not (np.abs(counts) <= _MOST_PATIENTS).all():
            return f"{name} has values that are not finite or beyond {_MOST_PATIENTS:g}"
    return claimed_privacy.unsound(report.noise, report, order.study.evaluation.epsilon, order.study.privacy.delta)
