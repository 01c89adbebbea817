"""The answers of a round: checked, weighed and folded in as they arrive, until there are as many as are wanted."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from conf import schema
from server.exchange import Answer, exchange
from server.late import Late, discounted
from server.post import Post
from server.record import HospitalRound, Roster
from server.strategy.admission import unusable
from server.strategy.local_sgd import noise_std
from server.strategy.strategy import Combiner, Strategy
from tasks import lean
from tasks.wire import CONTROL, Arrays, TrainOrder, TrainReport, WireError


@dataclass
class Folded:
    """What the combiner has taken of a round, and why not the rest.

    Attributes:
        late: what hospitals did whose update of an earlier round, ``carried``, is among it.
    """

    hospitals: dict[str, HospitalRound] = field(default_factory=dict)
    late: dict[str, HospitalRound] = field(default_factory=dict)
    carried: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


def collect(
    study: schema.Study,
    invited: Roster,
    grid: Grid,
    order: TrainOrder,
    strategy: Strategy,
    combiner: Combiner,
    wanted: int,
    post: Post,
    late: Late,
) -> Folded:
    """Fold in so many usable updates, and late ones beside them."""
    folded = Folded()
    deadline_s = study.federation.deadline_s
    with closing(exchange(grid, invited, order, TrainReport, deadline_s, post, late)) as answers:
        for answer in answers:
            figures, problem = _fold(answer, invited, study, order, strategy, combiner)
            overdue = answer.round < order.round
            if figures is None:
                about = f"train: its late update of round {answer.round}: " if overdue else "train: "
                folded.dropped[answer.hospital] = about + problem
            elif overdue:
                folded.late[answer.hospital] = together(folded.late.get(answer.hospital), figures)
                folded.carried[answer.hospital] = answer.round
            else:
                folded.hospitals[answer.hospital] = figures
                folded.dropped.pop(answer.hospital, None)
            if len(folded.hospitals) == wanted:
                break
    heard = folded.hospitals.keys() | folded.dropped.keys()
    not_waited_for = f"train: not waited for once {wanted} had answered"
    folded.dropped |= dict.fromkeys((name for name in invited.nodes if name not in heard), not_waited_for)
    return folded


def _fold(
    answer: Answer[TrainReport],
    invited: Roster,
    study: schema.Study,
    order: TrainOrder,
    strategy: Strategy,
    combiner: Combiner,
) -> tuple[HospitalRound | None, str]:
    """What the hospital did, if its update is in the combiner now, or why it is not."""
    report = answer.report
    if report is None:
        return None, answer.problem
    update, problem = _update_of(report, invited, study, order)
    if problem:
        return None, problem
    behind = order.round - answer.round
    # Its update of this round may come as well, and is another one.
    name = f"{answer.hospital}, round {answer.round}" if behind else answer.hospital
    combiner.add(name, discounted(update, behind), _weight(strategy, study, report))
    return HospitalRound(report.epsilon, bytes_down=answer.bytes_down, bytes_up=answer.bytes_up), ""


def _update_of(report: TrainReport, roster: Roster, study: schema.Study, order: TrainOrder) -> tuple[Arrays, str]:
    """The update whole, or why it must not touch the model."""
    if study.privacy.epsilon is not None and not report.noise_multiplier:
        return {}, "it trained without noise, the study is private"
    weights = {name: value for name, value in order.arrays.items() if not name.startswith(CONTROL)}
    try:
        update = lean.restore(report.arrays, roster.document.wire.up, weights)
    except WireError as error:
        return {}, str(error)
    return update, unusable(update, weights)


def _weight(strategy: Strategy, study: schema.Study, report: TrainReport) -> float:
    std = noise_std(study.training, study.privacy, report.noise_multiplier, report.public_size)
    return strategy.weight(report.public_size, std)


def together(one: HospitalRound | None, other: HospitalRound) -> HospitalRound:
    """What a hospital did that answered two orders in one round."""
    if one is None:
        return other
    spent = [e for e in (one.epsilon, other.epsilon) if e is not None]
    down, up = one.bytes_down + other.bytes_down, one.bytes_up + other.bytes_up
    return HospitalRound(max(spent, default=None), bytes_down=down, bytes_up=up)
