"""The answers of a round: checked, weighed and folded in as they arrive, until there are as many as are wanted."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, field, replace

from flwr.serverapp import Grid

from conf import schema
from server.rounds import claimed_privacy
from server.rounds.broadcast import Broadcast
from server.rounds.exchange import Answer, exchange, plain
from server.rounds.staleness import OverdueOrders, discounted, scaled
from server.rounds.state import HospitalRound, Roster
from server.strategy import outliers
from server.strategy.admission import unusable
from server.strategy.honest_updates import Honest
from server.strategy.outliers import Sent
from server.strategy.strategy import Combiner, Strategy, norm
from tasks.protocol import encoding
from tasks.protocol.wire import CONTROL, Arrays, TrainOrder, TrainReport, WireError


@dataclass
class Folded:
    """What the combiner has taken of a round, and why not the rest.

    Attributes:
        late: what hospitals did whose update of an earlier round, ``carried``, is among it.
        named: whose update of this round deserves a look, and why.
    """

    hospitals: dict[str, HospitalRound] = field(default_factory=dict)
    late: dict[str, HospitalRound] = field(default_factory=dict)
    carried: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)


def collect(
    study: schema.Study,
    invited: Roster,
    grid: Grid,
    order: TrainOrder,
    strategy: Strategy,
    combiner: Combiner,
    wanted: int,
    post: Broadcast,
    late: OverdueOrders,
) -> Folded:
    """Fold in so many usable updates, and late ones beside them."""
    folded, honest, sent = Folded(), Honest.of(order), dict[str, Sent]()
    deadline_s = study.federation.deadline_s
    with closing(exchange(grid, invited, order, TrainReport, deadline_s, post, late)) as answers:
        for answer in answers:
            figures, told = _fold(answer, order, strategy, combiner, honest)
            overdue = answer.round < order.round
            if figures is None or isinstance(told, str):
                about = f"train: its late update of round {answer.round}: " if overdue else "train: "
                folded.dropped[answer.hospital] = f"{about}{told}"
            elif overdue:
                folded.late[answer.hospital] = together(folded.late.get(answer.hospital), figures)
                folded.carried[answer.hospital] = answer.round
            else:
                folded.hospitals[answer.hospital], sent[answer.hospital] = figures, told
                folded.dropped.pop(answer.hospital, None)
            if len(folded.hospitals) == wanted:
                break
    heard = folded.hospitals.keys() | folded.dropped.keys()
    not_waited_for = f"train: not waited for once {wanted} had answered"
    folded.dropped |= dict.fromkeys((name for name in invited.nodes if name not in heard), not_waited_for)
    folded.named = outliers.named(sent)
    return folded


@dataclass(frozen=True)
class _Usable:
    """An update that may touch the model: whole, shortened where that is due, with its weight."""

    update: Arrays
    weight: float
    sent: Sent


class _Unusable(ValueError):
    """Why an update must not touch the model."""


def _fold(
    answer: Answer[TrainReport], order: TrainOrder, strategy: Strategy, combiner: Combiner, honest: Honest
) -> tuple[HospitalRound | None, Sent | str]:
    """What the hospital did and sent, if its update is in the combiner now, or why it is not.

    Whatever a report provokes, it provokes before anything is added: no sum is ever left half made.
    """
    report = answer.report
    if report is None:
        return None, answer.problem
    behind = order.round - answer.round
    # Its update of this round may come as well, and is another one.
    name = f"{answer.hospital}, round {answer.round}" if behind else answer.hospital
    try:
        usable = _usable(report, answer.hospital, order, strategy, honest)
        combiner.add(name, discounted(usable.update, behind), usable.weight)
    except _Unusable as error:
        return None, str(error)
    except Exception as error:
        return None, f"nothing can be made of its update ({type(error).__name__})"
    figures = HospitalRound(report.epsilon, bytes_down=answer.bytes_down, bytes_up=answer.bytes_up)
    return replace(figures, update_norm=usable.sent.norm), usable.sent


def _usable(report: TrainReport, hospital: str, order: TrainOrder, strategy: Strategy, honest: Honest) -> _Usable:
    """The update as it counts.

    Raises:
        _Unusable: it must not touch the model.
    """
    terms, size = order.study.privacy, order.study.sizes.get(hospital)
    if size is None:
        raise _Unusable("the study's document names no public size of it")
    if problem := claimed_privacy.unsound(report.noise_multiplier, report, terms.epsilon, terms.delta):
        raise _Unusable(problem)
    update = _whole(report, order)
    length, noise = norm(update), report.noise_multiplier
    longest = honest.longest(size, noise, report.round) if noise else math.inf
    if length > longest:
        raise _Unusable(f"its update is {length:.3g} long, and no honest one is longer than {longest:.3g}")
    counted = min(length, honest.counted(size, noise, report.round)) if noise else length
    std = honest.noise_std(size, honest.weighed_noise(noise), report.round) if noise else None
    sent = Sent(length, honest.noise_length(size, noise, report.round), counted)
    return _Usable(scaled(update, counted / length if length else 1.0), strategy.weight(size, std), sent)


def _whole(report: TrainReport, order: TrainOrder) -> Arrays:
    """The update in the model's form.

    Raises:
        _Unusable: it has another form or values that no model survives.
    """
    weights = {name: value for name, value in order.arrays.items() if not name.startswith(CONTROL)}
    try:
        update = encoding.restore(report.arrays, order.study.wire.up, weights)
    except WireError as error:
        raise _Unusable(plain(str(error))) from error
    if problem := unusable(update, weights):
        raise _Unusable(problem)
    return update


def together(one: HospitalRound | None, other: HospitalRound) -> HospitalRound:
    """What a hospital did that answered two orders in one round."""
    if one is None:
        return other
    spent = [e for e in (one.epsilon, other.epsilon) if e is not None]
    down, up = one.bytes_down + other.bytes_down, one.bytes_up + other.bytes_up
    return HospitalRound(max(spent, default=None), bytes_down=down, bytes_up=up, update_norm=one.update_norm)
