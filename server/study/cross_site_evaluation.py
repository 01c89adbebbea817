"""Cross-site evaluation after a study's last round: each hospital's own model beside the federated one on the same
patients, and every hospital's own model at every hospital.

The models come from the arm ``local``, so this exists in simulation only. What leaves a hospital is a release of the
study itself, under its own terms and in its own ledgers. Each answer is stored in the study's folder before the next
order goes out: a hospital keeps only its newest reply, so a resumed study must not ask for an older one again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from conf.schema.study import Study
from server.rounds.evaluation import Evaluated, collect_scores
from server.rounds.exchange import Channel
from server.rounds.ledger_witness import Witness
from server.rounds.state import Roster, StudyState
from server.runtime.local_grid import LocalGrid
from server.study.baselines import Arms
from server.study.document import document_of
from tasks.machine.disk import write_whole
from tasks.metrics.histogram import ScoreHistogram, quantiles, range_edges
from tasks.metrics.interval import Interval
from tasks.metrics.paired import JointHistogram, auc_difference
from tasks.protocol import wire
from tasks.protocol.study import EvaluationTerms
from tasks.protocol.wire import EDGES, OTHER, Arrays, EvaluateOrder, EvaluateReport


@dataclass(frozen=True)
class CrossSiteEvaluation:
    """How other models scored at the hospitals.

    Attributes:
        gains: AUC of the federated model minus that of the hospital's own, on the same patients.
        matrix: by the hospital that trained a model, and the one that scored it.
        epsilon: the last that each hospital reported for its validation patients; ``None`` without noise.
        problems: why a hospital did not answer.
    """

    gains: dict[str, Interval] = field(default_factory=dict)
    matrix: dict[str, dict[str, Evaluated]] = field(default_factory=dict)
    epsilon: dict[str, float | None] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def note(self, evaluated: Mapping[str, Evaluated], failure: str) -> None:
        """Note what each hospital has spent, or that it failed, and why."""
        for hospital, evaluation in evaluated.items():
            if evaluation.problem:
                self.problems[hospital] = f"{failure} ({evaluation.problem})"
            else:
                self.epsilon[hospital] = evaluation.figures.evaluation_epsilon


def evaluate_across_sites(
    study: Study,
    name: str,
    sizes: Mapping[str, int],
    folder: Path,
    grid: LocalGrid,
    state: StudyState,
    arms: Arms,
    peers: Mapping[str, str] | None = None,
) -> CrossSiteEvaluation:
    """Send the orders that the study requests.

    Args:
        name: the study's id.
        sizes: of its document.
        folder: where answers are stored.
        grid: plays the study's own hospitals.
        peers: as in its document.
    """
    roster = Roster(document_of(study, name, sizes, peers=peers), grid.nodes, Witness(state.ledger_heads))
    channel = Channel(grid, study.federation.deadline_s)
    evaluation = CrossSiteEvaluation()
    if roster.document.evaluation.paired:
        orders = _paired_orders(study, roster, state, arms)
        _compare_on_same_patients(channel, roster, orders, folder, evaluation)
    if study.evaluation.matrix:
        for trained_at, weights in arms.own.items():
            edges = _edges_of(arms.local.get(trained_at), roster.document.evaluation)
            order = EvaluateOrder(roster.document, study.federation.rounds, weights, asks="matrix", edges=edges)
            scored = _scored(channel, roster, order, folder / f"model-of-{trained_at}")
            evaluation.matrix[trained_at] = {h: answer for h, answer in scored.items() if not answer.problem}
            evaluation.note(scored, f"did not score the model of {trained_at}")
    return evaluation


def _compare_on_same_patients(
    channel: Channel,
    roster: Roster,
    orders: Mapping[str, EvaluateOrder],
    folder: Path,
    evaluation: CrossSiteEvaluation,
) -> None:
    failure = "did not compare the two models on the same patients"
    for hospital, order in orders.items():
        only = replace(roster, nodes={hospital: roster.nodes[hospital]})
        scored = _scored(channel, only, order, folder / "paired")
        evaluation.note(scored, failure)
        try:
            gain = _gain(scored[hospital])
        except Exception as error:  # whatever is wrong with its histogram, the hospital loses this comparison only
            problem = f"its histogram cannot be processed, {type(error).__name__}"
            evaluation.problems[hospital] = f"{failure} ({problem})"
            continue
        evaluation.gains.update({} if gain is None else {hospital: gain})


def _paired_orders(study: Study, roster: Roster, state: StudyState, arms: Arms) -> dict[str, EvaluateOrder]:
    there = roster.document.evaluation.paired_at or list(arms.own)
    orders = {h: _order_for(study, roster, state, arms, h) for h in arms.own if h in there}
    return {hospital: order for hospital, order in orders.items() if order is not None}


def _order_for(study: Study, roster: Roster, state: StudyState, arms: Arms, hospital: str) -> EvaluateOrder | None:
    """The order to a hospital to compare; ``None`` where its histograms offer no bins."""
    federated, alone, bins = _federated(state, hospital), arms.local.get(hospital), roster.document.evaluation.paired
    if federated is None or alone is None or not alone.scores:
        return None
    try:
        return paired_order(
            roster,
            study.federation.rounds,
            federated=state.model,
            own=arms.own[hospital],
            scores_of_federated=federated,
            scores_of_own=alone.histogram(),
            bins=bins,
        )
    except (ValueError, ArithmeticError, IndexError):
        return None


def _gain(paired: Evaluated) -> Interval | None:
    if paired.problem:
        return None
    return auc_difference(JointHistogram(paired.scores["paired"], paired.figures.evaluation_noise or 0.0))


def paired_order(
    roster: Roster,
    round: int,
    federated: Arrays,
    own: Arrays,
    scores_of_federated: ScoreHistogram,
    scores_of_own: ScoreHistogram,
    bins: int,
) -> EvaluateOrder:
    """The order that compares a hospital's own model with the federated one, in bins that hold about equally many."""
    edges = np.stack([quantiles(scores_of_federated, bins), quantiles(scores_of_own, bins)])
    arrays = {**federated, **{f"{OTHER}{name}": value for name, value in own.items()}, EDGES: edges}
    return EvaluateOrder(roster.document, round, arrays, asks="paired")


def _federated(state: StudyState, hospital: str) -> ScoreHistogram | None:
    figures = state.outcome.hospitals.get(hospital)
    if figures is None or figures.evaluation_noise is None or hospital not in state.scores:
        return None
    edges = state.outcome.edges
    return ScoreHistogram(state.scores[hospital], figures.evaluation_noise, np.array(edges) if edges else None)


def _edges_of(trained: Evaluated | None, terms: EvaluationTerms) -> list[float] | None:
    """Where a hospital's own model puts its own patients: its arm has told that without noise."""
    if terms.edges == "equal":
        return None
    if trained is None or not trained.scores:
        return [float(edge) for edge in range_edges(terms.bins)]
    return [float(edge) for edge in quantiles(trained.histogram(), terms.bins)]


def _scored(channel: Channel, roster: Roster, order: EvaluateOrder, folder: Path) -> dict[str, Evaluated]:
    """Each hospital's answer: the stored one, or a new one, which is stored at once."""
    files = {hospital: folder / f"{hospital}.answer" for hospital in roster.nodes}
    stored = {hospital: report for hospital, file in files.items() if (report := _stored(file)) is not None}
    left = {hospital: node for hospital, node in roster.nodes.items() if hospital not in stored}

    def store(hospital: str, report: EvaluateReport) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(files[hospital], wire.pack(report))

    new = collect_scores(channel, replace(roster, nodes=left), order, store) if left else {}
    return {hospital: Evaluated.of(report, edges=order.edges) for hospital, report in stored.items()} | new


def _stored(file: Path) -> EvaluateReport | None:
    """An answer that was stored; one that cannot be read is requested again."""
    try:
        return wire.unpack(file.read_bytes(), EvaluateReport)
    except (FileNotFoundError, wire.WireError):
        return None
