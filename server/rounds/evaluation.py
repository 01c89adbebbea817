"""A model scored on every hospital's validation patients. Only histograms of the scores come back.

Tested in ``tests/server/rounds/test_round.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.schema.evaluation import evaluated_every
from conf.schema.study import Study
from server.rounds import claimed_privacy
from server.rounds.exchange import Answer, Channel, exchange
from server.rounds.state import HospitalRound, Roster, RoundRecord
from tasks.metrics.histogram import ScoreHistogram, pooled, quantiles, range_edges, range_quantiles
from tasks.metrics.ranking import roc_auc
from tasks.protocol import wire
from tasks.protocol.wire import RANGE, RANGE_CELLS, Arrays, EvaluateOrder, EvaluateReport

_MOST_PATIENTS = 1e9


@dataclass(frozen=True)
class Evaluated:
    """One hospital's evaluation of a model: figures, histograms by name, what went wrong, if anything did, and the
    edges between the bins of scores, none where they are equally wide."""

    figures: HospitalRound
    scores: Arrays = field(default_factory=dict)
    problem: str = ""
    edges: list[float] = field(default_factory=list)

    @classmethod
    def of(
        cls, report: EvaluateReport, figures: HospitalRound | None = None, edges: Sequence[float] | None = None
    ) -> Evaluated:
        """From a usable report; ``figures`` are those that are known already."""
        figures = replace(figures or HospitalRound(), evaluation_epsilon=report.epsilon, evaluation_noise=report.noise)
        evaluated = cls(figures, report.arrays, edges=list(edges or []))
        return evaluated.with_auc() if "histogram" in report.arrays else evaluated

    def with_auc(self) -> Evaluated:
        """With the AUC of its histogram among its figures."""
        auc = roc_auc(self.histogram())
        if auc is None:
            return self
        return replace(
            self,
            figures=replace(
                self.figures,
                auc=auc.value,
                auc_low=auc.low,
                auc_high=auc.high,
                auc_firm=auc.firm,
                auc_hidden=auc.hidden,
            ),
        )

    def histogram(self) -> ScoreHistogram:
        """The scores of all its validation patients."""
        return self.of_scores(self.scores["histogram"])

    def of_scores(self, counts: NDArray[Any]) -> ScoreHistogram:
        """A histogram of the question's scores, of some of its patients."""
        return ScoreHistogram(
            counts, self.figures.evaluation_noise or 0.0, np.array(self.edges) if self.edges else None
        )

    def of_finding(self, counts: NDArray[Any]) -> ScoreHistogram:
        """A histogram of a secondary finding's scores; nobody has looked where these lie."""
        public = range_edges(counts.shape[-1]) if self.edges else None
        return ScoreHistogram(counts, self.figures.evaluation_noise or 0.0, public)


def evaluates(study: Study, number: int) -> bool:
    """Whether the model is evaluated after this round."""
    rounds = study.federation.rounds
    return number % evaluated_every(study.evaluation, rounds) == 0 or number == rounds


def evaluate(
    channel: Channel, roster: Roster, weights: Arrays, number: int, before: Sequence[RoundRecord] = ()
) -> dict[str, Evaluated]:
    """A model's scores on each hospital's validation patients, in bins whose edges are released before.

    Args:
        before: the earlier rounds of the study; the last of them that was evaluated has the edges.
    """
    if roster.document.evaluation.edges == "equal":
        return collect_scores(channel, roster, EvaluateOrder(roster.document, number, weights))
    edges, looks = next((list(r.next_edges) for r in reversed(before) if r.next_edges), []), {}
    if not edges:
        looks = collect_scores(channel, roster, EvaluateOrder(roster.document, number, weights, asks="range"))
        edges = edges_of(
            [look.scores[RANGE] for look in looks.values() if look.scores], roster.document.evaluation.bins
        )
    evaluated = collect_scores(channel, roster, EvaluateOrder(roster.document, number, weights, edges=edges))
    return {hospital: _with_bytes_of(each, looks.get(hospital)) for hospital, each in evaluated.items()}


def edges_of(looks: Sequence[NDArray[Any]], bins: int) -> list[float]:
    """Edges from what hospitals' first looks have counted. Where none has answered they are quantiles of nobody:
    equally far apart."""
    return range_quantiles(np.sum([np.zeros(RANGE_CELLS), *looks], axis=0), bins)


def next_edges(evaluated: Mapping[str, Evaluated]) -> list[float]:
    """Edges for the next evaluation: quantiles of all patients in this one."""
    histograms = [each.histogram() for each in evaluated.values() if each.scores]
    return [float(edge) for edge in quantiles(pooled(histograms), histograms[0].bins)] if histograms else []


def _with_bytes_of(evaluated: Evaluated, look: Evaluated | None) -> Evaluated:
    if look is None:
        return evaluated
    figures, first = evaluated.figures, look.figures
    down, up = figures.bytes_down + first.bytes_down, figures.bytes_up + first.bytes_up
    return replace(evaluated, figures=replace(figures, bytes_down=down, bytes_up=up))


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
        return Evaluated.of(answer.report, figures, order.edges)
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
