"""One order to many hospitals, and their answers as they arrive: checked, or with the reason why there is none.

Answers to orders of earlier rounds arrive in between where the study accepts them (``staleness.py``).

A hospital can lose its own answer here and nothing else. Whatever goes wrong while its reply is read, up to a panic in
a library, becomes the reason why there is no report, in words of ours.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, runtime_checkable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.rounds.attempts import Attempts
from server.rounds.broadcast import Broadcast
from server.rounds.ledger_witness import Witness
from server.rounds.staleness import OverdueOrders
from server.rounds.state import Roster
from tasks.protocol import wire
from tasks.protocol.survey import SurveyDocument
from tasks.protocol.wire import (
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

_POLL_S = 0.05
_LONGEST_TEXT = 400
_MARKUP = re.compile(r"[^\w\s.,:;()'=/+*-]", re.ASCII)
"""What a terminal, a page or a model card could take for markup."""
_NOT_HELD = f"refused with {ErrorCode.NOT_HELD}"


@runtime_checkable
class Withdrawing(Protocol):
    """A grid that can take orders back."""

    def withdraw(self, message_ids: Iterable[str]) -> set[str]:
        """Withdraw those that no hospital has started. Returns the others: their replies can still be pulled."""

    def forget(self, message_ids: Iterable[str]) -> None:
        """The replies to these are no longer needed; they are discarded when they arrive."""


R = TypeVar("R", TrainReport, EvaluateReport, KeyReport, SurveyReport)
AnyOrder = TrainOrder | EvaluateOrder | KeyOrder | SurveyOrder
_ACTIONS: dict[type[AnyOrder], str] = {
    TrainOrder: "train",
    EvaluateOrder: "evaluate",
    KeyOrder: "query",
    SurveyOrder: "query.survey",
}


@dataclass(frozen=True)
class SurveyRoster:
    """Whom a survey asks: as ``Roster``."""

    document: SurveyDocument
    nodes: dict[str, int]
    witness: Witness = field(default_factory=Witness)


AnyRoster = Roster | SurveyRoster


@dataclass(frozen=True)
class Answer(Generic[R]):
    """A hospital's report on the order of a round, or why there is none."""

    hospital: str
    round: int
    report: R | None
    problem: str
    bytes_down: int
    bytes_up: int


@dataclass(frozen=True)
class Channel:
    """The way to the hospitals and back, through all rounds of a study.

    Attributes:
        deadline_s: how long an answer is waited for.
        broadcast: which model each hospital holds.
        overdue: orders to train whose answers may still arrive; with none, late answers are not accepted.
        attempts: keys and attempts of secure sums.
    """

    grid: Grid
    deadline_s: float
    broadcast: Broadcast = field(default_factory=Broadcast)
    overdue: OverdueOrders = field(default_factory=OverdueOrders)
    attempts: Attempts = field(default_factory=Attempts)


def exchange(channel: Channel, roster: AnyRoster, order: AnyOrder, kind: type[R]) -> Generator[Answer[R], None, None]:
    """Send one order to all hospitals and yield their answers as they arrive, until all have or the deadline passes.

    Only replies to the messages of this very call are accepted, and in training late ones to overdue orders; the latter
    are not waited for. Close the generator to stop waiting; orders that no hospital has started are withdrawn where the
    grid can.
    """
    ends = time.monotonic() + channel.deadline_s
    orders = _OrdersOut(channel, roster, order, kind)
    orders.send(list(roster.nodes))
    try:
        while orders.waiting and time.monotonic() < ends:
            orders.fetch()
            while orders.unread:
                # A reply has left both lists before its answer is yielded. The caller may close this generator at the
                # yield, and ``close`` keeps what is still listed for a later round: an update that was yielded and
                # still listed would be added to two models.
                answer = orders.read_next()
                if answer is not None:
                    yield answer
                del answer  # or a model of its size would be held while the next one is fetched
        yield from orders.unanswered()
    finally:
        orders.close()


class _OrdersOut(Generic[R]):
    """The messages of one order: who has not answered yet, and which replies have arrived and were not read.

    Attributes:
        waiting: hospital by message.
        unread: replies, those to earlier orders first.
    """

    def __init__(self, channel: Channel, roster: AnyRoster, order: AnyOrder, kind: type[R]) -> None:
        self._grid, self._broadcast, self._deadline_s = channel.grid, channel.broadcast, channel.deadline_s
        self._roster, self._order = roster, order
        self._kind: type[R] = kind
        # A late evaluation is of no use: the model that it is about is not the study's any more.
        self._overdue = channel.overdue if isinstance(order, TrainOrder) else OverdueOrders()
        self._bytes_down: Counter[str] = Counter()
        self._sent_again: set[str] = set()
        self.waiting: dict[str, str] = {}
        self.unread = self._overdue.unread()

    def send(self, hospitals: list[str]) -> None:
        """Send the order to these hospitals, to each what it lacks of the model."""
        contents = _addressed(self._broadcast, self._order, self._roster, hospitals)
        action = _ACTIONS[type(self._order)]
        # An order whose late answer would still count must not expire with its round.
        ttl = self._overdue.lives_s(self._deadline_s) if self._overdue.carries else None
        nodes, group = self._roster.nodes, str(self._order.round)
        self._bytes_down.update({hospital: wire.size(contents[hospital]) for hospital in hospitals})
        messages = [self._grid.create_message(contents[h], action, nodes[h], group, ttl) for h in hospitals]
        self.waiting |= zip(self._grid.push_messages(messages), hospitals, strict=True)

    def fetch(self) -> None:
        """Pull what has arrived; wait a moment if nothing has."""
        # Late ones first: the caller closes the round with its last update, and a late one would be left unread.
        self.unread += self._grid.pull_messages([*self._overdue.messages(), *self.waiting])
        self.unread.sort(key=lambda reply: reply.metadata.reply_to_message_id in self.waiting)
        if not self.unread:
            time.sleep(_POLL_S)

    def read_next(self) -> Answer[R] | None:
        """The answer in the next unread reply; ``None`` where the reply is no answer, or the order was sent again."""
        reply = self.unread.pop(0)
        message = reply.metadata.reply_to_message_id
        if (earlier := self._overdue.take(message)) is not None:
            report, problem, bytes_up = _read(reply, self._roster, earlier.hospital, earlier.round, self._kind)
            return Answer(earlier.hospital, earlier.round, report, problem, bytes_down=0, bytes_up=bytes_up)
        if message not in self.waiting:
            return None  # a second answer to one order, or one to an order that is not ours
        hospital = self.waiting.pop(message)
        report, problem, bytes_up = _read(reply, self._roster, hospital, self._order.round, self._kind)
        if problem == _NOT_HELD and hospital not in self._sent_again:
            self._send_whole(hospital)
            return None
        if report is not None and isinstance(self._order, TrainOrder | EvaluateOrder):
            self._broadcast.confirmed(hospital, self._order)
        return self._answer(hospital, report, problem, bytes_up)

    def _send_whole(self, hospital: str) -> None:
        """Send the whole model, once: a hospital that claims to lack that as well is asked no third time."""
        self._sent_again.add(hospital)
        self._broadcast.forget(hospital)
        self.send([hospital])

    def unanswered(self) -> Iterator[Answer[R]]:
        """One answer without a report for each hospital that let the deadline pass."""
        for hospital in self.waiting.values():
            yield self._answer(hospital, None, f"no answer within {self._deadline_s:g} s", 0)

    def _answer(self, hospital: str, report: R | None, problem: str, bytes_up: int) -> Answer[R]:
        bytes_down = self._bytes_down[hospital]
        return Answer(hospital, self._order.round, report, problem, bytes_down=bytes_down, bytes_up=bytes_up)

    def close(self) -> None:
        """End the round: withdraw orders, and remember those whose late answers will count."""
        arrived = {reply.metadata.reply_to_message_id for reply in self.unread}
        unanswered = self.waiting.keys() - arrived
        started = self._grid.withdraw(unanswered) if isinstance(self._grid, Withdrawing) else unanswered
        if self._overdue.carries:
            open_orders = {name: self.waiting[name] for name in started | (arrived & self.waiting.keys())}
            self._overdue.keep(open_orders, self._order.round, self.unread)
            started = set(self._overdue.too_old_for(self._order.round + 1))
        if isinstance(self._grid, Withdrawing):
            self._grid.forget(started)


def _addressed(broadcast: Broadcast, order: AnyOrder, roster: AnyRoster, hospitals: list[str]) -> dict[str, RecordDict]:
    """The order for each hospital, with the last ledger hash seen of it where patients are concerned."""
    if isinstance(order, KeyOrder):
        return dict.fromkeys(hospitals, wire.encode(order))
    if isinstance(order, SurveyOrder):
        contents = dict.fromkeys(hospitals, wire.encode(order))
    else:
        contents = broadcast.contents(order, hospitals)
    heads = {hospital: roster.witness.head(hospital) for hospital in hospitals}
    return {hospital: wire.addressed(content, heads[hospital]) if heads[hospital] else content
            for hospital, content in contents.items()}  # fmt: skip


def _read(reply: Message, roster: AnyRoster, hospital: str, round: int, kind: type[R]) -> tuple[R | None, str, int]:
    """The report on the order of a round, or why there is none, and how many bytes arrived."""
    try:
        report, problem, up = _report_in(reply, roster.document.name, round, kind)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in a library that is written in Rust is no Exception
        return None, f"its answer cannot be read ({type(error).__name__})", 0
    finally:
        if reply.has_content():
            wire.give_up(reply.content)
    if report is not None:  # whatever becomes of its figures
        roster.witness.saw(hospital, report.ledger_head)
    return report, problem, up


def _report_in(reply: Message, study: str, round: int, kind: type[R]) -> tuple[R | None, str, int]:
    if reply.has_error():
        return None, f"its client failed (Flower error {int(reply.error.code)})", 0
    up = wire.size(reply.content)
    try:
        report: R | Refusal = wire.decode(reply.content, kind, Refusal)
    except wire.WireError as error:
        return None, plain(str(error)), up
    if isinstance(report, Refusal):
        return None, f"refused with {report.code}{_REMEDIES.get(report.code, '')}", up
    if (report.study, report.round) != (study, round):
        return None, f"answered for study {plain(report.study)}, round {report.round}", up
    return report, "", up


def plain(text: str) -> str:
    """A text that others may have influenced: short, and with nothing that could be markup."""
    return _MARKUP.sub("?", text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} and more")


_REMEDIES = {
    ErrorCode.LEDGER_BEHIND: (
        ": its ledger lacks an entry that this server has seen, so an older copy was restored there. The hospital must "
        "restore the newer ledger and audit log, or be admitted again"
    )
}
