"""A whole round, told once: order, updates, quorum, new model, evaluation, record.

The loop knows a ``Grid`` and hospitals by name; whether the grid is this process or a SuperLink makes no difference.
Each step has a file of its own: which hospitals train (``sampling.py``), what each is sent (``broadcast.py``), how
orders get there and answers back (``exchange.py``), which updates count (``aggregation.py``, and ``staleness.py`` for
late ones), how they become a model (``server/strategy/``), how well it does (``evaluation.py``), and which model is
delivered (``model_selection.py``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flwr.serverapp import Grid

from conf.schema.study import Study
from server.errors import RoundFailed, TrainingDiverged
from server.rounds import model_selection, sampling, shared_steps
from server.rounds.aggregation import CollectedUpdates, collect
from server.rounds.attempts import Attempts
from server.rounds.broadcast import Broadcast
from server.rounds.checkpoint import forget_trained, keep_trained, read_trained
from server.rounds.evaluation import Evaluated, evaluate, evaluates, next_edges, pooled_auc, scores_of
from server.rounds.exchange import Channel
from server.rounds.staleness import OverdueOrders
from server.rounds.state import EVERYBODY, HospitalRound, Roster, RoundRecord, StudyState
from server.strategy import registry
from server.strategy.admission import NOT_FINITE, TOO_FAR
from server.strategy.local_sgd import local_move
from server.strategy.strategy import Strategy, norm, nothing
from tasks.protocol.wire import ErrorCode, TrainOrder

Publish = Callable[[StudyState], None]


def run_rounds(
    study: Study, roster: Roster, grid: Grid, state: StudyState, publish: Publish, checkpoints: Path | None = None
) -> StudyState:
    """Play the rounds that are left. ``publish`` gets the state after each; when it returns, the round is committed.

    Args:
        checkpoints: where a round is kept between its training and its evaluation; ``None`` for nowhere.

    Raises:
        RoundFailed: fewer usable answers than the quorum; the state before the round stands.
        CannotCombine: the strategy cannot make a model of the updates; likewise.
        TooFewHospitals: a hospital would have to train more often than the study document allows; likewise.
        CheckpointDamaged: what was kept is not what was written.
    """
    channel = Channel(
        grid,
        deadline_s=study.federation.deadline_s,
        broadcast=Broadcast(roster.document.wire.down),
        overdue=OverdueOrders(study.federation.late_rounds),
        attempts=Attempts(checkpoints),
    )
    while not model_selection.has_ended(study, state.rounds):
        state = play_round(study, roster, channel, state, checkpoints)
        publish(state)
        if checkpoints is not None:
            forget_trained(checkpoints)
    return state


def play_round(
    study: Study, roster: Roster, channel: Channel, state: StudyState, checkpoints: Path | None = None
) -> StudyState:
    """Play one round, or the rest of one that was trained before a crash. Returns the state after it."""
    trained = read_trained(checkpoints, len(state.rounds)) if checkpoints is not None else None
    if trained is None:
        trained = _train(study, roster, channel, state)
        if not evaluates(study, len(trained.rounds)):
            return model_selection.with_the_best(study, trained)
        if checkpoints is not None:
            keep_trained(checkpoints, trained)
    return _evaluate(study, roster, channel, trained)


def _train(study: Study, roster: Roster, channel: Channel, state: StudyState) -> StudyState:
    """The state after a round's training; its record lacks the evaluation."""
    started = time.perf_counter()
    number = len(state.rounds) + 1

    # 1. The order, and the hospitals whose turn it is. What could not be combined is refused here, before any hospital
    #    is asked: an order spends privacy.
    strategy = _strategy(study, number)
    memory = state.memory if state.rounds else strategy.start(state.weights)
    if roster.document.secure_sum is not None and roster.document.secure_sum.steps:
        return _take_shared_step(study, roster, channel, replace(state, memory=memory), strategy)
    invited = _invited(study, roster, state, strategy, channel.overdue)
    combiner = strategy.combiner(state.weights, len(invited.nodes))
    order = TrainOrder(roster.document, number, state.weights | strategy.sent_along(memory))

    # 2. Send it. Updates are checked and added as they arrive, until there are enough.
    wanted = min(sampling.wanted(study, len(roster.nodes)), len(invited.nodes))
    collected = collect(channel, invited, order, strategy, combiner, wanted=wanted)
    dropped = _dropped(study, strategy, collected)

    # 3. The quorum. Late updates do not count towards it.
    needed = max(1, math.ceil(study.federation.quorum * wanted))
    if len(collected.hospitals) < needed:
        if not collected.hospitals and _diverged(dropped):
            training = study.training
            told = f"training.learning_rate={training.learning_rate:g}, training.optimizer={training.optimizer}"
            raise TrainingDiverged(roster.document.name, number, dropped, told)
        raise RoundFailed(roster.document.name, number, "train", needed, dropped)

    # 4. The new model, rounded as hospitals will receive it: server and hospitals must continue from the same bits.
    update = combiner.combined()
    update_norm, share = norm(update), len(collected.hospitals) / len(roster.nodes)
    weights, memory = strategy.step(state.weights, memory, update, share)
    sent, residual = channel.broadcast.rounded(order.arrays, weights | strategy.sent_along(memory), state.residual)
    weights = {name: sent[name] for name in weights}
    memory = {name: sent.get(name, value) for name, value in memory.items()}
    average = model_selection.averaged(state.average, weights, study.strategy.ema)

    record = RoundRecord(
        number=number,
        seconds=time.perf_counter() - started,
        update_norm=update_norm,
        hospitals=collected.on_time_and_late(),
        dropped=dropped,
        invited=list(invited.nodes),
        carried=collected.carried,
        named=collected.named,
    )
    after = replace(state, weights=weights, memory=memory, residual=residual, average=average)
    return replace(after, rounds=[*state.rounds, record], ledger_heads=roster.witness.seen())


def _take_shared_step(
    study: Study, roster: Roster, channel: Channel, state: StudyState, strategy: Strategy
) -> StudyState:
    """The same where a round is one step of all hospitals, of whose gradients only the sum is seen."""
    started, number = time.perf_counter(), len(state.rounds) + 1
    shared = shared_steps.step(channel, roster, channel.attempts, state.weights, number)
    weights, memory = strategy.step(state.weights, state.memory, shared.update, 1.0)
    record = RoundRecord(
        number=number,
        seconds=time.perf_counter() - started,
        update_norm=norm(shared.update),
        hospitals=shared.hospitals,
        dropped=shared.left_out,
        invited=list(shared.hospitals),
        void=shared.void,
    )
    average = model_selection.averaged(state.average, weights, study.strategy.ema)
    after = replace(state, weights=weights, memory=memory, average=average)
    return replace(after, rounds=[*state.rounds, record], ledger_heads=roster.witness.seen())


def _evaluate(study: Study, roster: Roster, channel: Channel, trained: StudyState) -> StudyState:
    """The state after a round whose model is made."""
    started = time.perf_counter()
    *before, record = trained.rounds

    # 5. Its evaluation at every hospital, also at those that did not train. Where changes travel, the whole of what was
    #    sent is shown, so that hospitals hold what the next order changes.
    sent_along = _strategy(study, record.number).sent_along if channel.broadcast.sends_changes else nothing
    shown = trained.average or trained.weights | sent_along(trained.memory)
    void: list[str] = []
    if roster.document.secure_sum is not None and roster.document.secure_sum.figures:
        evaluated, void = shared_steps.evaluated_together(channel, roster, channel.attempts, shown, record.number)
    else:
        evaluated = evaluate(channel, roster, shown, record.number, before)
    hospitals, dropped = _with_evaluation(record.hospitals, record.dropped, evaluated)

    # 6. The record, and the state that the next round starts from.
    seconds = record.seconds + time.perf_counter() - started
    record = replace(
        record,
        seconds=seconds,
        hospitals=hospitals,
        dropped=dropped,
        pooled_auc=pooled_auc(evaluated),
        edges=next((each.edges for each in evaluated.values() if each.scores), []),
        next_edges=next_edges(evaluated) if roster.document.evaluation.edges == "released" else [],
    )
    record = replace(record, void=[*record.void, *void])
    if roster.document.secure_sum is not None and (harm := harm_done(before, record)):
        record = replace(record, named=record.named | {EVERYBODY: harm})
    after = replace(trained, rounds=[*before, record], ledger_heads=roster.witness.seen())
    after = model_selection.with_the_best(study, after)
    return replace(after, scores=scores_of(evaluated)) if after.outcome is record and evaluated else after


def harm_done(before: Sequence[RoundRecord], record: RoundRecord) -> str:
    """Whether the pooled AUC has fallen by more than its intervals explain since the best evaluation so far; "" if not.
    Of a secure sum nobody sees who has sent what, so harm shows in the figures alone."""
    known = [earlier for earlier in before if earlier.pooled_auc is not None]
    if record.pooled_auc is None or not known:
        return ""
    best = max(known, key=lambda earlier: earlier.pooled_auc[1] if earlier.pooled_auc is not None else 0.0)
    assert best.pooled_auc is not None
    if record.pooled_auc[2] >= best.pooled_auc[1]:
        return ""
    return (
        f"after round {record.number} the AUC on all validation patients is {record.pooled_auc[0]:.2f}, it was "
        f"{best.pooled_auc[0]:.2f} after round {best.number}: training diverges, or some hospital's part does harm, "
        "and nobody can see whose"
    )


def _strategy(study: Study, number: int) -> Strategy:
    return registry.build(study.strategy, local_move(study.training, number, study.federation.rounds))


def _diverged(dropped: Mapping[str, str]) -> bool:
    """Whether the updates of all that have answered are those of a training that has diverged."""
    signs = (f"refused with {ErrorCode.UPDATE_NOT_FINITE}", NOT_FINITE, TOO_FAR)
    return bool(dropped) and all(any(sign in reason for sign in signs) for reason in dropped.values())


def _invited(study: Study, roster: Roster, state: StudyState, strategy: Strategy, overdue: OverdueOrders) -> Roster:
    """The hospitals that train in the next round; one that still works on an earlier order comes last."""
    candidates = strategy.invited(list(roster.nodes), len(state.rounds) + 1)
    busy = [name for name in candidates if overdue.waits_for(name)]
    names = sampling.invited(study, candidates, state.rounds, len(roster.nodes), busy)
    return replace(roster, nodes={name: roster.nodes[name] for name in names})


def _dropped(study: Study, strategy: Strategy, collected: CollectedUpdates) -> dict[str, str]:
    """Why hospitals were dropped, and what that does to a strategy that promises to withstand attackers."""
    left = len(collected.hospitals)
    if strategy.withstands is None or strategy.withstands(left) > 0:
        return dict(collected.dropped)
    weakened = f"; with {left} left, {study.strategy.name} withstands no attacker: the median of each value was taken"
    return {name: reason + weakened for name, reason in collected.dropped.items()}


def _with_evaluation(
    trained: dict[str, HospitalRound], dropped: dict[str, str], evaluated: dict[str, Evaluated]
) -> tuple[dict[str, HospitalRound], dict[str, str]]:
    """What each hospital did in the whole round, and why it was dropped from training, evaluation or both."""
    hospitals, reasons = dict(trained), dict(dropped)
    for name, evaluation in evaluated.items():
        hospitals[name] = _joined(trained.get(name, HospitalRound()), evaluation.figures)
        if evaluation.problem:
            reasons[name] = "; ".join(filter(None, [dropped.get(name), f"evaluate: {evaluation.problem}"]))
    return hospitals, reasons


def _joined(trained: HospitalRound, evaluated: HospitalRound) -> HospitalRound:
    return replace(
        evaluated,
        epsilon=trained.epsilon,
        epsilon_alone=trained.epsilon_alone,
        update_norm=trained.update_norm,
        bytes_down=trained.bytes_down + evaluated.bytes_down,
        bytes_up=trained.bytes_up + evaluated.bytes_up,
    )
