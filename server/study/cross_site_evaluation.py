"""Other models at the hospitals of a study that has ended: each hospital's own beside the federated one on the same
patients, and every hospital's own at every hospital.

The models come from the arm ``local``, so this exists in simulation only. What leaves is a release of the study itself,
under its own terms and in its own ledgers. Each answer is kept in the study's folder before the next order goes out: a
hospital keeps the newest reply only, so a study that is resumed must not ask for an older one again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from conf import schema
from server.rounds.evaluation import Evaluated, asked
from server.rounds.ledger_witness import Witness
from server.rounds.state import Roster, StudyState
from server.runtime.local_grid import LocalGrid
from server.study.baselines import Arms
from server.study.document import document_of
from tasks.machine.disk import write_whole
from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.interval import Interval
from tasks.metrics.paired import JointHistogram, auc_difference, quantiles
from tasks.protocol import wire
from tasks.protocol.wire import EDGES, OTHER, Arrays, EvaluateOrder, EvaluateReport

_PAYS = 0.03
"""A noised joint histogram is asked for where noise * hypot(1 / negatives, 1 / positives) is at most so much. In
simulation (4 bins a model, noise 3, models of correlation 0.6) the paired interval is as wide as the other one at 200
and 100 patients, a quarter narrower at 2000 and 1000, and twice as wide at 60 and 40."""


@dataclass(frozen=True)
class CrossSiteEvaluation:
    """What other models' scores told.

    Attributes:
        gains: AUC of the federated model less that of the hospital's own, on the same patients.
        matrix: by the hospital that has trained a model, and the one that has scored it.
        epsilon: the last that each hospital has told of its validation patients; ``None`` without noise.
        problems: why a hospital did not answer.
    """

    gains: dict[str, Interval] = field(default_factory=dict)
    matrix: dict[str, dict[str, Evaluated]] = field(default_factory=dict)
    epsilon: dict[str, float | None] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def evaluate_across_sites(
    study: schema.Study,
    name: str,
    sizes: Mapping[str, int],
    folder: Path,
    grid: LocalGrid,
    state: StudyState,
    arms: Arms,
) -> CrossSiteEvaluation:
    """Ask for what the study wants of it.

    Args:
        name: the study's id.
        sizes: of its document.
        folder: where answers are kept.
        grid: plays the study's own hospitals.
    """
    roster = Roster(document_of(study, name, sizes), grid.nodes, Witness(state.ledger_heads))
    found = CrossSiteEvaluation()
    if schema.paired_bins(study.evaluation):
        _pairs(study, roster, folder, grid, state, arms, found)
    if study.evaluation.matrix:
        for trained_at, weights in arms.own.items():
            order = EvaluateOrder(roster.document, study.federation.rounds, weights, asks="matrix")
            told = _told(study, roster, grid, order, folder / f"model-of-{trained_at}")
            found.matrix[trained_at] = {hospital: each for hospital, each in told.items() if not each.problem}
            _note(found, told, f"did not score the model of {trained_at}")
    return found


def _pairs(
    study: schema.Study,
    roster: Roster,
    folder: Path,
    grid: LocalGrid,
    state: StudyState,
    arms: Arms,
    found: CrossSiteEvaluation,
) -> None:
    what = "did not compare the two models on the same patients"
    for hospital, weights in arms.own.items():
        order = _order_for(study, roster, state, arms, hospital, weights)
        if order is None:
            continue
        only = replace(roster, nodes={hospital: roster.nodes[hospital]})
        told = _told(study, only, grid, order, folder / "paired")
        _note(found, told, what)
        try:
            gain = _gain(told[hospital])
        except Exception as error:  # whatever its histogram provokes costs the hospital its comparison alone
            found.problems[hospital] = f"{what} (nothing can be made of its histogram, {type(error).__name__})"
            continue
        found.gains.update({} if gain is None else {hospital: gain})


def _order_for(
    study: schema.Study, roster: Roster, state: StudyState, arms: Arms, hospital: str, own: Arrays
) -> EvaluateOrder | None:
    """The order to a hospital to compare; ``None`` where its histograms have no bins to choose, or it would not pay."""
    federated, alone, bins = _federated(state, hospital), arms.local.get(hospital), schema.paired_bins(study.evaluation)
    if federated is None or alone is None or not alone.scores or not pays(federated):
        return None
    try:
        return paired_order(roster, study.federation.rounds, state.model, own, federated, alone.histogram(), bins)
    except (ValueError, ArithmeticError, IndexError):
        return None


def _gain(each: Evaluated) -> Interval | None:
    if each.problem:
        return None
    return auc_difference(JointHistogram(each.scores["paired"], each.figures.evaluation_noise or 0.0))


def pays(released: ScoreHistogram) -> bool:
    """Whether a joint histogram tells more of a difference than two histograms apart, from what was released before: so
    neither the interval nor the choice between them depends on the difference."""
    sizes = released.size(0), released.size(1)
    if not released.has_both_classes():
        return False
    return released.noise * math.hypot(1 / sizes[0], 1 / sizes[1]) <= _PAYS


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
    return ScoreHistogram(state.scores[hospital], figures.evaluation_noise)


def _told(
    study: schema.Study, roster: Roster, grid: LocalGrid, order: EvaluateOrder, folder: Path
) -> dict[str, Evaluated]:
    """Each hospital's answer: the one that is kept, or a new one, which is kept at once."""
    files = {hospital: folder / f"{hospital}.answer" for hospital in roster.nodes}
    kept = {hospital: report for hospital, file in files.items() if (report := _kept(file)) is not None}
    left = {hospital: node for hospital, node in roster.nodes.items() if hospital not in kept}

    def keep(hospital: str, report: EvaluateReport) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(files[hospital], wire.pack(report))

    new = asked(study, replace(roster, nodes=left), grid, order, told=keep) if left else {}
    return {hospital: Evaluated.of(report) for hospital, report in kept.items()} | new


def _kept(file: Path) -> EvaluateReport | None:
    """An answer that was kept; one that cannot be read is asked for again."""
    try:
        return wire.unpack(file.read_bytes(), EvaluateReport)
    except (FileNotFoundError, wire.WireError):
        return None


def _note(found: CrossSiteEvaluation, told: Mapping[str, Evaluated], what: str) -> None:
    for hospital, each in told.items():
        if each.problem:
            found.problems[hospital] = f"{what} ({each.problem})"
        else:
            found.epsilon[hospital] = each.figures.evaluation_epsilon
