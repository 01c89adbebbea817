"""The updates of a round: checked, weighted and added to the round's as they arrive, until there are enough.

Tested in ``tests/server/rounds/test_round.py``.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, field

from server.rounds import claimed_privacy
from server.rounds.exchange import Answer, Channel, exchange, plain
from server.rounds.staleness import discounted, scaled
from server.rounds.state import HospitalRound, Roster
from server.strategy import outliers
from server.strategy.admission import unusable
from server.strategy.honest_updates import Honest
from server.strategy.outliers import UpdateLengths
from server.strategy.strategy import Combiner, Strategy, norm
from tasks.protocol import encoding
from tasks.protocol.wire import CONTROL, Arrays, TrainOrder, TrainReport, WireError


@dataclass
class CollectedUpdates:
    """Whose updates the combiner has, and why not those of the others.

    Attributes:
        hospitals: those whose update of this round counts.
        late: those whose update of an earlier round counts, and ``carried``, which round that was.
        dropped: why the others do not count.
        named: whose update of this round needs a look, and why.
    """

    hospitals: dict[str, HospitalRound] = field(default_factory=dict)
    late: dict[str, HospitalRound] = field(default_factory=dict)
    carried: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)

    def on_time_and_late(self) -> dict[str, HospitalRound]:
        """What each hospital did, in this round and in the earlier one whose update arrived late."""
        merged = dict(self.hospitals)
        for hospital, late in self.late.items():
            merged[hospital] = with_late(self.hospitals.get(hospital), late)
        return merged


def collect(
    channel: Channel, invited: Roster, order: TrainOrder, strategy: Strategy, combiner: Combiner, *, wanted: int
) -> CollectedUpdates:
    """Send an order to train, and give the combiner ``wanted`` usable updates, and late ones beside them."""
    collected, honest = CollectedUpdates(), Honest.of(order)
    lengths: dict[str, UpdateLengths] = {}
    with closing(exchange(channel, invited, order, TrainReport)) as answers:
        for answer in answers:
            hospital, round = answer.hospital, answer.round
            try:
                figures, its_lengths = _take(answer, order, strategy, combiner, honest)
            except _Unusable as error:
                late = f"its late update of round {round}: " if round < order.round else ""
                collected.dropped[hospital] = f"train: {late}{error}"
                continue
            finally:
                del answer  # its update is not held while the next one is fetched
            if round < order.round:
                # It may owe several; each is one more update of the same hospital.
                collected.late[hospital] = with_late(collected.late.get(hospital), figures)
                collected.carried[hospital] = round
            else:
                collected.hospitals[hospital] = figures
                lengths[hospital] = its_lengths
                collected.dropped.pop(hospital, None)  # its late update may have been dropped before
            if len(collected.hospitals) == wanted:
                break
    heard = collected.hospitals.keys() | collected.dropped.keys()
    closed = f"train: the round closed once {wanted} had answered"
    collected.dropped |= dict.fromkeys((name for name in invited.nodes if name not in heard), closed)
    collected.named = outliers.conspicuous(lengths)
    return collected


@dataclass(frozen=True)
class _Admitted:
    """An update that may touch the model: whole, shortened where it must be, with its weight."""

    update: Arrays
    weight: float
    lengths: UpdateLengths
    figures: HospitalRound


class _Unusable(ValueError):
    """Why an update must not touch the model."""


def _take(
    answer: Answer[TrainReport], order: TrainOrder, strategy: Strategy, combiner: Combiner, honest: Honest
) -> tuple[HospitalRound, UpdateLengths]:
    """Check an answer's update and give it to the combiner, discounted if it is late. Returns what remains of it.

    Everything that can go wrong goes wrong before anything is added: a sum that holds half an update is lost.

    Raises:
        _Unusable: there is no update, or it must not touch the model.
    """
    if answer.report is None:
        raise _Unusable(answer.problem)
    rounds_late = order.round - answer.round
    # A hospital's update of this round may arrive as well; to the combiner that is another one.
    name = f"{answer.hospital}, round {answer.round}" if rounds_late else answer.hospital
    try:
        admitted = _admitted(answer, answer.report, order, strategy, honest)
        combiner.add(name, discounted(admitted.update, rounds_late), admitted.weight)
    except _Unusable:
        raise
    except Exception as error:
        raise _Unusable(f"its update cannot be processed ({type(error).__name__})") from error
    return admitted.figures, admitted.lengths


def _admitted(
    answer: Answer[TrainReport], report: TrainReport, order: TrainOrder, strategy: Strategy, honest: Honest
) -> _Admitted:
    """An update as it counts.

    Raises:
        _Unusable: it must not touch the model.
    """
    terms, size = order.study.privacy, order.study.sizes.get(answer.hospital)
    if size is None:
        raise _Unusable("the study document has no public size for it")
    if problem := claimed_privacy.unsound(report.noise_multiplier, report, terms.epsilon, terms.delta):
        raise _Unusable(problem)
    update = _whole(report, order)
    length, noise = norm(update), report.noise_multiplier
    longest = honest.longest(size, noise, report.round) if noise else math.inf
    if length > longest:
        raise _Unusable(f"its update has norm {length:.3g}; an honest one has at most {longest:.3g}")
    counted = min(length, honest.counted(size, noise, report.round)) if noise else length
    std = honest.noise_std(size, honest.weighed_noise(noise), report.round) if noise else None
    return _Admitted(
        update=scaled(update, counted / length if length else 1.0),
        weight=strategy.weight(size, std),
        lengths=UpdateLengths(length, honest.noise_length(size, noise, report.round), counted),
        figures=HospitalRound(
            report.epsilon, bytes_down=answer.bytes_down, bytes_up=answer.bytes_up, update_norm=length
        ),
    )


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


def with_late(on_time: HospitalRound | None, late: HospitalRound) -> HospitalRound:
    """What a hospital did that answered two orders in one round."""
    if on_time is None:
        return late
    spent = [figures.epsilon for figures in (on_time, late) if figures.epsilon is not None]
    return HospitalRound(
        epsilon=max(spent, default=None),
        bytes_down=on_time.bytes_down + late.bytes_down,
        bytes_up=on_time.bytes_up + late.bytes_up,
        update_norm=on_time.update_norm,
    )
