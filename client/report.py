"""The only exit: every byte that leaves the hospital is built here.

What each number is:

    study, round, code      repeat the order, or come from a fixed list
    ledger_head             hash of the ledger's last row, made with the hospital's key: opaque to everybody else
    epsilon, delta          follow from noise, sampling rate and number of steps, never from patients
    noise_multiplier        was planned from the study's terms, the hospital's caps and what studies had spent. The
                            number of patients has no influence: the sampling rate is the order's. It can be computed
                            from epsilon, rate and steps, so it reveals nothing more
    update arrays           a release of the training cohort, entered in the ledger; encodings with fewer bits are
                            computed after its noise
    histograms              releases of the validation cohort, entered in the ledger; also those of where scores lie,
                            of two models' scores, of secondary findings, of Dice and of distances. The edges of bins
                            are the order's, so they tell nothing
    tables                  releases of both cohorts at once, entered in the ledger for each: the counts of a survey
    words                   of a secure sum: either of the above with this hospital's share of the noise and with pads,
                            uniform random numbers to whoever lacks the pads of one other honest hospital
    sum key                 random, with the signatures of this hospital's enrolled key

Whether a report leaves, and its kind, names, shapes and size, follow from the order: once a cohort is open, the values
of images, labels and weights affect only the numbers that noise is added to. (The length of an 8-bit update follows
from the released numbers.) A simulated hospital may release without noise; then epsilon is absent.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from client.cohort import subgroups
from client.errors import SiteError
from client.ledger.audit_log import Receipt, norm_of, tensors_of
from client.ledger.links import Head
from client.secure_sum.pads import Pads
from client.training.noise import noised
from client.training.scoring import OutlineScores
from tasks import tables
from tasks.answers import Answer
from tasks.metrics.histogram import range_edges, range_histogram, score_histogram
from tasks.metrics.outlining import dice_histogram, distance_histogram
from tasks.metrics.paired import joint_histogram
from tasks.protocol import encoding, wire
from tasks.protocol.secure_sum import WORDS, Grid, encode
from tasks.protocol.sum_key import SumKey
from tasks.protocol.wire import (
    Arrays,
    ErrorCode,
    EvaluateOrder,
    EvaluateReport,
    KeyOrder,
    KeyReport,
    Refusal,
    SurveyOrder,
    SurveyReport,
    TrainOrder,
    TrainReport,
)

Report = TrainReport | EvaluateReport | SurveyReport
"""What leaves about patients."""


@dataclass(frozen=True)
class Spent:
    """What the study has cost the patients of a cohort so far, at ``delta``, and the noise of what leaves now."""

    epsilon: float
    delta: float
    noise_multiplier: float
    epsilon_alone: float | None = None
    """Of a secure sum: if all other hospitals conspire with the coordinator."""


@dataclass(frozen=True)
class MaskedPart:
    """How this hospital's part of a secure sum leaves.

    Attributes:
        share: noise multiplier of what is added here.
        grid: on which all write.
        pads: what hides it.
    """

    share: float
    grid: Grid
    pads: Pads

    def words(self, noised: NDArray[np.float64]) -> Arrays:
        """Values with their noise, masked; once."""
        return {WORDS: self.pads.mask(encode(noised, self.grid), self.grid)}


def key_report(order: KeyOrder, key: SumKey, ledger_head: Head) -> KeyReport:
    """What leaves before secure sums: this hospital's public key for them."""
    return KeyReport(order.study.name, order.round, key, ledger_head.hash)


def summed_train_report(
    order: TrainOrder, noised: NDArray[np.float64], spent: Spent, ledger_head: Head, part: MaskedPart
) -> TrainReport:
    """What leaves after a step of a secure sum; ``noised`` has this hospital's share of the noise."""
    values = sum(array.size for array in order.arrays.values())
    if noised.shape != (values,):
        raise ValueError(f"the sum has shape {noised.shape}, the order's model {values} values")
    return replace(train_report(order, part.words(noised), spent, ledger_head), epsilon_alone=_alone(spent))


def summed_evaluate_report(
    order: EvaluateOrder, counts: Arrays, spent: Spent, ledger_head: Head, part: MaskedPart, generator: torch.Generator
) -> EvaluateReport:
    """What leaves after scoring for a secure sum: all counts, in order of their names, with this hospital's share of
    the noise.

    Raises:
        ValueError: as ``evaluate_report``.
    """
    _require_due(order, counts)
    row = np.concatenate([counts[name].reshape(-1).astype(np.float64) for name in sorted(counts)])
    words = part.words(noised(torch.from_numpy(row), part.share, generator).numpy())
    cost = (_finite(spent.epsilon), spent.delta, spent.noise_multiplier)
    return EvaluateReport(order.study.name, order.round, *cost, ledger_head.hash, words, epsilon_alone=_alone(spent))


def _alone(spent: Spent) -> float | None:
    return None if spent.epsilon_alone is None else _finite(spent.epsilon_alone)


def train_report(order: TrainOrder, update: Arrays, spent: Spent, ledger_head: Head) -> TrainReport:
    """What leaves after training."""
    cost = (_finite(spent.epsilon), spent.delta, spent.noise_multiplier)
    return TrainReport(order.study.name, order.round, *cost, ledger_head.hash, update)


@dataclass(frozen=True)
class SecondScores:
    """A second model's scores of the same patients, float64 of shape (patients,), and the edges of both models' bins,
    float64 of shape (2, bins - 1), as the order brought them."""

    scores: NDArray[np.float64]
    edges: NDArray[np.float64]


@dataclass(frozen=True)
class ToldAnswers:
    """What a model tells of one question, float64 of shape (patients, ``Answer.told_numbers``), and the truths, shape
    (patients,), NaN for patients of whom nobody knows."""

    answer: Answer
    told: NDArray[np.float64]
    truths: NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Validation patients with their scores.

    Attributes:
        scores: float64 of shape (patients,) in [0, 1].
        labels: 0 or 1, shape (patients,).
        levels: for each attribute that the study asks for, int64 of shape (patients,): the patient's level.
        pair: where two models are compared; then the joint histogram alone leaves.
        findings: for each secondary finding that the study asks for, float64 of shape (2, patients): scores, and labels
            with NaN for patients of whom nobody knows.
        outlines: for each structure that the study asks for.
        answers: for each question with another answer than yes or no that the study asks for.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.float32]
    levels: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    pair: SecondScores | None = None
    findings: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    outlines: dict[str, OutlineScores] = field(default_factory=dict)
    answers: dict[str, ToldAnswers] = field(default_factory=dict)


def counted(order: EvaluateOrder, scored: Scored) -> Arrays:
    """The patients in histograms: in each at most one count for each patient, in one cell. None of it leaves as it is.

    Adding or removing a patient changes one cell of each histogram by one, so the L2 sensitivity of each is 1, also of
    one that tells the levels of an attribute apart; the ledger has counted them.
    """
    bins, edges = order.study.evaluation.bins, None if order.edges is None else np.array(order.edges)
    if order.asks == "range":
        return {wire.RANGE: range_histogram(scored.scores, wire.RANGE_CELLS)}
    if scored.pair is not None:
        both = joint_histogram(scored.scores, scored.pair.scores, scored.labels, scored.pair.edges)
        arrays = {"paired": both}
    else:
        arrays = {"histogram": score_histogram(scored.scores, scored.labels, bins, edges)}
    public = None if edges is None else range_edges(bins)  # nobody has looked where other scores lie
    for name, each in scored.answers.items():
        arrays |= tables.counted(name, each.answer, each.truths, each.told, bins=bins, edges=public)
    for name, (scores, labels) in scored.findings.items():
        known = ~np.isnan(labels)
        arrays[wire.FINDING + name] = score_histogram(scores[known], labels[known], bins, public)
    for name, outlined in scored.outlines.items():
        arrays[wire.DICE + name] = dice_histogram(outlined.dice, outlined.wrongly, bins)
        arrays[wire.DISTANCE + name] = distance_histogram(outlined.distance, bins)
    for attribute, levels in scored.levels.items():
        arrays[attribute] = subgroups.histograms(
            attribute, levels, scores=scored.scores, labels=scored.labels, bins=bins, edges=edges
        )
    return arrays


def nobody_counted(order: EvaluateOrder) -> Arrays:
    """Empty histograms: with noise added, they leave when scoring has failed."""
    return {name: np.zeros(shape) for name, shape in wire.due(order).items()}


def evaluate_report(
    order: EvaluateOrder, counts: Arrays, spent: Spent, ledger_head: Head, generator: torch.Generator
) -> EvaluateReport:
    """What leaves after scoring: ``counts`` with noise on every cell; names and shapes follow from the order alone.

    Raises:
        ValueError: the counts have other names or shapes.
    """
    _require_due(order, counts)
    noise = spent.noise_multiplier
    if noise > 0:
        arrays = {name: noised(torch.from_numpy(cells), noise, generator).numpy() for name, cells in counts.items()}
    else:
        few = order.study.evaluation.subgroups
        arrays = {name: subgroups.suppressed(cells) if name in few else cells for name, cells in counts.items()}
    cost = (_finite(spent.epsilon), spent.delta, noise)
    return EvaluateReport(order.study.name, order.round, *cost, ledger_head.hash, arrays)


def _require_due(order: EvaluateOrder, counts: Arrays) -> None:
    shapes = {name: value.shape for name, value in counts.items()}
    if shapes != wire.due(order):
        raise ValueError(f"counts have shapes {shapes}, the order expects {wire.due(order)}")


def nobody_in_survey(order: SurveyOrder) -> Arrays:
    """Empty tables: with noise added, they leave when counting has failed."""
    return {name: np.zeros(shape) for name, shape in order.study.shapes().items()}


def survey_report(
    order: SurveyOrder, tables: Arrays, spent: Spent, ledger_head: Head, generator: torch.Generator
) -> SurveyReport:
    """What leaves after a survey: ``tables`` with noise on every cell; names and shapes follow from the order alone.

    Raises:
        ValueError: the tables have other names or shapes, or there is no noise to add.
    """
    shapes = {name: table.shape for name, table in tables.items()}
    if shapes != order.study.shapes():
        raise ValueError(f"tables have shapes {shapes}, the order expects {order.study.shapes()}")
    noise = spent.noise_multiplier
    if noise <= 0:
        raise ValueError("a survey is never answered without noise")
    arrays = {
        name: noised(torch.from_numpy(table.astype(np.float64)), noise, generator).numpy()
        for name, table in tables.items()
    }
    cost = (spent.epsilon, spent.delta, noise)
    return SurveyReport(order.study.name, order.round, *cost, ledger_head.hash, arrays)


def refusal(study: str, round: int, error: BaseException) -> Refusal:
    """What leaves after an error: a code. The error's text may name patients and paths, so it stays here."""
    code = error.code if isinstance(error, SiteError) else ErrorCode.INTERNAL
    return Refusal(study, round, code)


@dataclass(frozen=True)
class Spending:
    """What a reply cost the patients of a cohort (of a survey: of each of two), and the ledger's last row when it was
    final."""

    cohort: str
    epsilon_before: float
    epsilon_after: float
    ledger: Head
    repeated: bool


def receipt(reply: Report, packed: bytes, spending: Spending) -> Receipt:
    """The hospital's own record of what leaves."""
    return Receipt(
        study=reply.study,
        round=reply.round,
        message=type(reply).__name__,
        cohort=spending.cohort,
        bytes=len(packed),
        sha256=hashlib.sha256(packed).hexdigest(),
        tensors=tensors_of(reply.arrays),
        update_norm=_norm(reply),
        epsilon_before=spending.epsilon_before,
        epsilon_after=spending.epsilon_after,
        ledger=spending.ledger,
        repeated=spending.repeated,
    )


def _norm(reply: Report) -> float | None:
    """L2 norm of what leaves; masked words have none that means anything."""
    if WORDS in reply.arrays:
        return None
    return encoding.norm_of(reply.arrays) if isinstance(reply, TrainReport) else norm_of(reply.arrays)


def receipt_without_patients(reply: Refusal | KeyReport, ledger: Head) -> Receipt:
    """The record of a refusal, of which only the code leaves, or of a public key."""
    packed = wire.pack(reply)
    return Receipt(
        study=reply.study,
        round=reply.round,
        message=f"Refusal {reply.code}" if isinstance(reply, Refusal) else type(reply).__name__,
        cohort=None,
        bytes=len(packed),
        sha256=hashlib.sha256(packed).hexdigest(),
        tensors={},
        update_norm=None,
        epsilon_before=None,
        epsilon_after=None,
        ledger=ledger,
    )


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None
