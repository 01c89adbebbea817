"""A whole round, told once: order, answers, quorum, new model, evaluation, record.

The loop knows a ``Grid`` and hospitals by name. Whether the grid is this process or a SuperLink is not its business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from conf import schema
from server.errors import RoundFailed
from server.strategy import choice
from server.strategy.admission import unusable
from server.strategy.local_sgd import noise_std
from server.strategy.strategy import Strategy, norm
from tasks import wire
from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.ranking import roc_auc
from tasks.study import StudyDocument
from tasks.wire import Arrays, EvaluateOrder, EvaluateReport, Refusal, TrainOrder, TrainReport

_POLL_S = 0.05
_MOST_PATIENTS = 1e9


@dataclass(frozen=True)
class HospitalRound:
    """What one hospital did in a round.

    Attributes:
        epsilon: spent by its training patients in this study so far; ``None`` without privacy.
        auc, auc_low, auc_high: on its validation patients, with a 95 % interval; ``None`` where not evaluated, or
            where it has patients of one class only.
        bytes_down, bytes_up: of the messages to and from it.
    """

    epsilon: float | None = None
    evaluation_epsilon: float | None = None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    bytes_down: int = 0
    bytes_up: int = 0


@dataclass(frozen=True)
class RoundRecord:
    """What happened in a round: by hospital, and who was dropped at which stage and why."""

    number: int
    seconds: float
    update_norm: float
    hospitals: dict[str, HospitalRound]
    dropped: dict[str, str] = field(default_factory=dict)

    def mean_auc(self) -> float | None:
        """Unweighted mean over the hospitals that have an AUC."""
        values = [h.auc for h in self.hospitals.values() if h.auc is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class State:
    """A study between two rounds: all that is needed to go on. ``memory`` is what the strategy remembers."""

    weights: Arrays
    rounds: list[RoundRecord] = field(default_factory=list)
    memory: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Roster:
    """The study as the hospitals have approved it, and the grid's node number of each invited hospital by name."""

    document: StudyDocument
    nodes: dict[str, int]


Publish = Callable[[State], None]


def run_rounds(study: schema.Study, roster: Roster, grid: Grid, state: State, publish: Publish) -> State:
    """Play the rounds that are left. ``publish`` sees the state after each; when it returns, the round is committed.

    Raises:
        RoundFailed: fewer usable answers than the quorum; the state before the round stands.
        CannotCombine: the strategy cannot make a model of the answers; likewise.
    """
    while len(state.rounds) < study.federation.rounds:
        state = play_round(study, roster, grid, state)
        publish(state)
    return state


def play_round(study: schema.Study, roster: Roster, grid: Grid, state: State) -> State:
    """One round."""
    started = time.perf_counter()
    number = len(state.rounds) + 1

    # 1. One order for all who are invited. What could not be combined is refused before anyone is asked.
    strategy = choice.build(study.strategy)
    memory = state.memory if state.rounds else strategy.start(state.weights)
    invited = replace(roster, nodes={name: roster.nodes[name] for name in strategy.invited(list(roster.nodes), number)})
    combiner = strategy.combiner(state.weights, len(invited.nodes))
    order = TrainOrder(roster.document, number, state.weights | strategy.told(memory))

    # 2. Updates are checked and folded in as they arrive.
    hospitals: dict[str, HospitalRound] = {}
    dropped: dict[str, str] = {}
    for answer in exchange(grid, invited, order, TrainReport, study.federation.deadline_s):
        problem = answer.problem or _unusable(answer.report, study, state.weights)
        if problem or answer.report is None:
            dropped[answer.hospital] = f"train: {problem}"
            continue
        combiner.add(answer.hospital, answer.report.arrays, _weight(strategy, study, answer.report))
        hospitals[answer.hospital] = HospitalRound(
            epsilon=answer.report.epsilon, bytes_down=answer.bytes_down, bytes_up=answer.bytes_up
        )

    # 3. A round that trained too few is no round.
    needed = math.ceil(study.federation.quorum * len(invited.nodes))
    if len(hospitals) < max(1, needed):
        raise RoundFailed(roster.document.name, number, "train", max(1, needed), dropped)

    # 4. The new model.
    update = combiner.combined()
    update_norm = norm(update)
    weights, memory = strategy.step(state.weights, memory, update, len(hospitals) / len(roster.nodes))

    # 5. Evaluation at every hospital, also at those that did not train.
    if evaluates(study, number):
        for name, (result, problem) in evaluate(study, roster, grid, weights, number).items():
            before = hospitals.get(name, HospitalRound())
            if problem:
                dropped[name] = "; ".join(filter(None, [dropped.get(name), f"evaluate: {problem}"]))
            hospitals[name] = _joined(before, result)

    # 6. The record.
    record = RoundRecord(number, time.perf_counter() - started, update_norm, hospitals, dropped)
    return State(weights, [*state.rounds, record], memory)


def evaluate(
    study: schema.Study, roster: Roster, grid: Grid, weights: Arrays, number: int
) -> dict[str, tuple[HospitalRound, str]]:
    """Each hospital's figures for a model, and what went wrong there, if anything did."""
    order = EvaluateOrder(roster.document, number, weights)
    results = {}
    for answer in exchange(grid, roster, order, EvaluateReport, study.federation.deadline_s):
        problem = answer.problem or _unusable_histogram(answer.report, order)
        figures = HospitalRound(bytes_down=answer.bytes_down, bytes_up=answer.bytes_up)
        if not problem and answer.report is not None:
            auc = roc_auc(ScoreHistogram(answer.report.arrays["histogram"]))
            figures = replace(figures, evaluation_epsilon=answer.report.epsilon)
            if auc is not None:
                figures = replace(figures, auc=auc.value, auc_low=auc.low, auc_high=auc.high)
        results[answer.hospital] = (figures, problem)
    return results


def evaluates(study: schema.Study, number: int) -> bool:
    """Whether the model is evaluated after this round."""
    return number % study.evaluation.every == 0 or number == study.federation.rounds


R = TypeVar("R", TrainReport, EvaluateReport)


@dataclass(frozen=True)
class Answer(Generic[R]):
    """A hospital's report, or why there is none."""

    hospital: str
    report: R | None
    problem: str
    bytes_down: int
    bytes_up: int


def exchange(
    grid: Grid, roster: Roster, order: TrainOrder | EvaluateOrder, kind: type[R], deadline_s: float
) -> Iterator[Answer[R]]:
    """Send one order to all hospitals and give their answers as they come, until all have or the deadline passes."""
    ends = time.monotonic() + deadline_s
    content = wire.encode(order)
    down = wire.size(content)
    action = "train" if isinstance(order, TrainOrder) else "evaluate"
    messages = [grid.create_message(content, action, node, group_id=str(order.round)) for node in roster.nodes.values()]
    waiting = dict(zip(grid.push_messages(messages), roster.nodes, strict=True))
    while waiting and time.monotonic() < ends:
        replies = list(grid.pull_messages(list(waiting)))
        for reply in replies:
            hospital = waiting.pop(reply.metadata.reply_to_message_id)
            report, problem, up = _read(reply, order, kind)
            yield Answer(hospital, report, problem, down, up)
        if not replies:
            time.sleep(_POLL_S)
    for hospital in waiting.values():
        yield Answer(hospital, None, f"no answer within {deadline_s:g} s", down, 0)


def _read(reply: Message, order: TrainOrder | EvaluateOrder, kind: type[R]) -> tuple[R | None, str, int]:
    if reply.has_error():
        return None, f"its client failed (Flower error {reply.error.code})", 0
    up = wire.size(reply.content)
    try:
        report: R | Refusal = wire.decode(reply.content, kind, Refusal)
    except wire.WireError as error:
        return None, str(error), up
    if isinstance(report, Refusal):
        return None, f"refused with {report.code}", up
    if (report.study, report.round) != (order.study.name, order.round):
        return None, f"answered to study {report.study}, round {report.round}", up
    return report, "", up


def _unusable(report: TrainReport | None, study: schema.Study, weights: Arrays) -> str:
    if report is None:
        return "no report"
    if study.privacy.epsilon is not None and not report.noise_multiplier:
        return "it trained without noise, the study is private"
    return unusable(report.arrays, weights)


def _weight(strategy: Strategy, study: schema.Study, report: TrainReport) -> float:
    std = noise_std(study.training, study.privacy, report.noise_multiplier, report.public_size)
    return strategy.weight(report.public_size, std)


def _unusable_histogram(report: EvaluateReport | None, order: EvaluateOrder) -> str:
    if report is None:
        return "no report"
    histogram, bins = report.arrays.get("histogram"), order.study.evaluation.bins
    if histogram is None or len(report.arrays) > 1:
        return "one array is due, the histogram"
    if histogram.shape != (2, bins) or histogram.dtype != np.float64:
        return f"the histogram is {histogram.dtype} {histogram.shape}, not float64 (2, {bins})"
    if not (np.abs(histogram) <= _MOST_PATIENTS).all():
        return f"the histogram must hold numbers up to {_MOST_PATIENTS:g}"
    return ""


def _joined(trained: HospitalRound, evaluated: HospitalRound) -> HospitalRound:
    return replace(
        evaluated,
        epsilon=trained.epsilon,
        bytes_down=trained.bytes_down + evaluated.bytes_down,
        bytes_up=trained.bytes_up + evaluated.bytes_up,
    )
