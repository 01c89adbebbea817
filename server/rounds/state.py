"""A study between two rounds: what each hospital did in each round, and all that is needed to continue.

Tested in ``tests/server/rounds/test_checkpoint.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from server.rounds.ledger_witness import Witness
from tasks.metrics.interval import Interval
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import Arrays

EVERYBODY = "all hospitals"
"""Stands for one hospital where there are figures of all patients only: no hospital's name has a space."""


@dataclass(frozen=True)
class HospitalRound:
    """What one hospital did in a round.

    Attributes:
        epsilon: spent by its training patients in this study so far; ``None`` without privacy.
        evaluation_epsilon: spent by its validation patients so far; ``None`` without privacy.
        evaluation_noise: standard deviation of the noise on each cell of its score histograms; 0 for exact ones.
        auc, auc_low, auc_high: on its validation patients, with a 95 % interval; ``None`` where not evaluated, or
            where it has patients of one class only.
        auc_firm, auc_hidden: as in ``tasks.metrics.interval.Interval``.
        bytes_down, bytes_up: of the messages to and from it.
        update_norm: L2 norm of its update as it arrived; ``None`` where it did not train, or nobody saw its part.
        epsilon_alone, evaluation_epsilon_alone: of secure sums: spent if all other hospitals conspired with this
            server.
    """

    epsilon: float | None = None
    evaluation_epsilon: float | None = None
    evaluation_noise: float | None = None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    auc_firm: bool = True
    auc_hidden: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    update_norm: float | None = None
    epsilon_alone: float | None = None
    evaluation_epsilon_alone: float | None = None

    @property
    def auc_interval(self) -> Interval | None:
        """The AUC with its limits."""
        if self.auc is None or self.auc_low is None or self.auc_high is None:
            return None
        return Interval(self.auc, self.auc_low, self.auc_high, self.auc_firm, self.auc_hidden)

    @property
    def shown_auc(self) -> float | None:
        """The AUC where noise leaves a point."""
        return self.auc if self.auc_firm else None


@dataclass(frozen=True)
class RoundRecord:
    """What happened in a round: by hospital, which were asked to train, and which were dropped at which stage and why.

    Attributes:
        pooled_auc: of all validation patients as if they were one hospital's, with its interval.
        carried: hospitals whose late update is in this round's model, and the round in which they were asked.
        named: hospitals whose update counts but needs a look, and why: an outlier, close to zero, or shortened. Under
            ``EVERYBODY`` that a secure sum did harm.
        void: what ended attempts at this round's secure sums.
        edges: between the bins of this round's score histograms; empty for equally wide ones.
        next_edges: quantiles of these histograms, for the next evaluation; empty where bins are equally wide.
    """

    number: int
    seconds: float
    update_norm: float
    hospitals: dict[str, HospitalRound]
    dropped: dict[str, str] = field(default_factory=dict)
    invited: list[str] = field(default_factory=list)
    pooled_auc: tuple[float, float, float] | None = None
    carried: dict[str, int] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    edges: list[float] = field(default_factory=list)
    next_edges: list[float] = field(default_factory=list)
    void: list[str] = field(default_factory=list)

    def mean_auc(self) -> float | None:
        """Unweighted mean over the hospitals that have patients of both classes. ``None`` where noise leaves one of
        them without a point: which hospitals have one is chance, and so a mean of those would be."""
        figures = [h for h in self.hospitals.values() if h.auc is not None]
        values = [h.auc for h in figures if h.auc is not None and h.auc_firm]
        return float(np.mean(values)) if values and len(values) == len(figures) else None


def how_often(rounds: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """For each hospital, in how many rounds something was noted about it, and the last note."""
    notes: dict[str, list[str]] = {}
    for record in rounds:
        for hospital, reason in record.items():
            notes.setdefault(hospital, []).append(reason)
    total = len(rounds)
    return {hospital: f"{len(texts)} of {total} rounds, last: {texts[-1]}" for hospital, texts in notes.items()}


@dataclass(frozen=True)
class StudyState:
    """A study between two rounds: all that is needed to go on.

    Attributes:
        weights: the model that training continues from.
        memory: what the strategy remembers.
        residual: the rounding error of the model as hospitals hold it; it is added to the next change.
        average: the moving average of the models, if the study has one.
        scores: histograms from the evaluation of the model that would be delivered now: by hospital, and by
            ``hospital.name`` where more was asked: subgroups, secondary findings, outlines.
        best: the best model so far, if it is to be delivered, and ``chosen`` its round; 0 is the last one.
        ledger_heads: the last ledger hash seen of each hospital, see ``server/rounds/ledger_witness.py``.
    """

    weights: Arrays
    rounds: list[RoundRecord] = field(default_factory=list)
    memory: Arrays = field(default_factory=dict)
    residual: Arrays = field(default_factory=dict)
    average: Arrays = field(default_factory=dict)
    best: Arrays = field(default_factory=dict)
    chosen: int = 0
    scores: Arrays = field(default_factory=dict)
    ledger_heads: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Arrays:
        """What the study delivers."""
        return self.best or self.average or self.weights

    @property
    def outcome(self) -> RoundRecord:
        """The round that has evaluated that model."""
        return self.rounds[self.chosen - 1]


@dataclass(frozen=True)
class Roster:
    """The study as the hospitals have approved it, the grid's node number of each invited hospital by name, and what
    was seen of their ledgers."""

    document: StudyDocument
    nodes: dict[str, int]
    witness: Witness = field(default_factory=Witness)
