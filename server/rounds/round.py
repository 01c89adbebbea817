"""A whole round, told once: order, answers, quorum, new model, evaluation, record.

The loop knows a ``Grid`` and hospitals by name. Whether the grid is this process or a SuperLink is not its business.
Stories of their own stand elsewhere: who is asked (``participation.py``), how an order gets there and back
(``exchange.py``, ``post.py``), which answers are folded in (``collection.py``, ``late.py``), how updates become a model
(``strategy/``), which model is handed over and when it is enough (``delivery.py``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from flwr.serverapp import Grid

from conf import schema
from server.errors import RoundFailed
from server.rounds import model_selection, sampling
from server.rounds.aggregation import Folded, collect, together
from server.rounds.broadcast import Broadcast
from server.rounds.evaluation import Evaluated, evaluate, evaluates, pooled_auc, scores_of
from server.rounds.staleness import OverdueOrders
from server.rounds.state import HospitalRound, Roster, RoundRecord, StudyState
from server.strategy import registry
from server.strategy.local_sgd import local_move
from server.strategy.strategy import Strategy, norm
from tasks.protocol.wire import TrainOrder

Publish = Callable[[StudyState], None]


def run_rounds(study: schema.Study, roster: Roster, grid: Grid, state: StudyState, publish: Publish) -> StudyState:
    """Play the rounds that are left. ``publish`` sees the state after each; when it returns, the round is committed.

    Raises:
        RoundFailed: fewer usable answers than the quorum; the state before the round stands.
        CannotCombine: the strategy cannot make a model of the answers; likewise.
        TooFewHospitals: somebody would have to train more often than the study's document says; likewise.
    """
    post, late = Broadcast(roster.document.wire.down), OverdueOrders(study.federation.late_rounds)
    while not model_selection.has_ended(study, state.rounds):
        state = play_round(study, roster, grid, state, post, late)
        publish(state)
    return state


def play_round(
    study: schema.Study, roster: Roster, grid: Grid, state: StudyState, post: Broadcast, late: OverdueOrders
) -> StudyState:
    """One round."""
    started = time.perf_counter()
    number = len(state.rounds) + 1

    # 1. One order for all whose turn it is. What could not be combined is refused before anyone is asked.
    strategy = registry.build(study.strategy, local_move(study.training, number, study.federation.rounds))
    memory = state.memory if state.rounds else strategy.start(state.weights)
    would = strategy.invited(list(roster.nodes), number)
    turn = sampling.invited(study, would, state.rounds, len(roster.nodes), list(filter(late.waits_for, would)))
    invited = replace(roster, nodes={name: roster.nodes[name] for name in turn})
    combiner = strategy.combiner(state.weights, len(invited.nodes))
    order = TrainOrder(roster.document, number, state.weights | strategy.told(memory))

    # 2. Updates are checked and folded in as they arrive, until there are as many as are wanted.
    wanted = min(sampling.wanted(study, len(roster.nodes)), len(invited.nodes))
    folded = collect(study, invited, grid, order, strategy, combiner, wanted, post, late)
    hospitals, dropped = folded.hospitals, _weakening(study, strategy, folded)

    # 3. A round that trained too few is no round.
    needed = max(1, math.ceil(study.federation.quorum * wanted))
    if len(hospitals) < needed:
        raise RoundFailed(roster.document.name, number, "train", needed, dropped)

    # 4. The new model, as hospitals will be told of it.
    update = combiner.combined()
    update_norm = norm(update)
    weights, memory = strategy.step(state.weights, memory, update, len(hospitals) / len(roster.nodes))
    for name, figures in folded.late.items():
        hospitals[name] = together(hospitals.get(name), figures)
    told, lost = post.told(order.arrays, weights | strategy.told(memory), state.lost)
    weights = {name: told[name] for name in weights}
    memory = {name: told.get(name, value) for name, value in memory.items()}
    average = model_selection.averaged(state.average, weights, study.strategy.ema)

    # 5. Evaluation at every hospital, also at those that did not train.
    evaluated: dict[str, Evaluated] = {}
    if evaluates(study, number):
        shown = average or (told if post.changes else weights)
        evaluated = evaluate(study, roster, grid, shown, number, post)
        for name, found in evaluated.items():
            before = hospitals.get(name, HospitalRound())
            if found.problem:
                dropped[name] = "; ".join(filter(None, [dropped.get(name), f"evaluate: {found.problem}"]))
            hospitals[name] = _joined(before, found.figures)

    # 6. The record.
    seconds, asked, auc = time.perf_counter() - started, list(invited.nodes), pooled_auc(evaluated)
    record = RoundRecord(number, seconds, update_norm, hospitals, dropped, asked, auc, folded.carried, folded.named)
    after = replace(state, weights=weights, rounds=[*state.rounds, record], memory=memory, lost=lost, average=average)
    after = replace(after, ledger_heads=roster.witness.seen())
    after = model_selection.with_the_best(study, after)
    return replace(after, scores=scores_of(evaluated)) if after.outcome is record and evaluated else after


def _weakening(study: schema.Study, strategy: Strategy, folded: Folded) -> dict[str, str]:
    """Who was dropped and why, and what that does to a strategy that promises to withstand attackers."""
    left = len(folded.hospitals)
    if strategy.withstands is None or strategy.withstands(left) > 0:
        return folded.dropped
    told = f"; with {left} left {study.strategy.name} withstands nobody, and the median of each value was taken"
    return {name: why + told for name, why in folded.dropped.items()}


def _joined(trained: HospitalRound, evaluated: HospitalRound) -> HospitalRound:
    return replace(
        evaluated,
        epsilon=trained.epsilon,
        update_norm=trained.update_norm,
        bytes_down=trained.bytes_down + evaluated.bytes_down,
        bytes_up=trained.bytes_up + evaluated.bytes_up,
    )
