"""One order to many hospitals, and their answers as they come: checked, or with the reason why there is none.

Answers to earlier orders come in between where the study takes them (``late.py``).

A hospital can lose its own answer here and nothing else: whatever its reply provokes while it is read, up to a panic in
a library, is the reason why there is no report, told in words of ours.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.rounds.broadcast import Broadcast
from server.rounds.staleness import OverdueOrders
from server.rounds.state import Roster
from tasks.protocol import wire
from tasks.protocol.wire import ErrorCode, EvaluateOrder, EvaluateReport, Refusal, TrainOrder, TrainReport

_POLL_S = 0.05
_MOST_TOLD = 400
_MARKUP = re.compile(r"[^\w\s.,:;()'=/+*-]", re.ASCII)
"""What could mean something to a terminal, a page or a model card."""


@runtime_checkable
class Withdrawing(Protocol):
    """A grid that can take orders back."""

    def withdraw(self, message_ids: Iterable[str]) -> set[str]:
        """Take back those that nobody has begun. Returns the others: their replies may come and can be pulled."""

    def forget(self, message_ids: Iterable[str]) -> None:
        """Nobody wants the replies to these; they are thrown away when they come."""


R = TypeVar("R", TrainReport, EvaluateReport)


@dataclass(frozen=True)
class Answer(Generic[R]):
    """A hospital's report on the order of a round, or why there is none."""

    hospital: str
    round: int
    report: R | None
    problem: str
    bytes_down: int
    bytes_up: int


def exchange(
    grid: Grid,
    roster: Roster,
    order: TrainOrder | EvaluateOrder,
    kind: type[R],
    deadline_s: float,
    post: Broadcast,
    late: OverdueOrders | None = None,
) -> Generator[Answer[R], None, None]:
    """Send one order to all hospitals and give their answers as they come, until all have or the deadline passes.

    Only replies to the messages of this very call are ever taken, and late ones to those that ``late`` knows; nobody
    waits for the latter. Close it to stop waiting; orders that nobody has begun are withdrawn where the grid can.
    """
    overdue: OverdueOrders = late or OverdueOrders()
    ends = time.monotonic() + deadline_s
    contents = _addressed(post, order, roster, list(roster.nodes))
    down = {name: wire.size(content) for name, content in contents.items()}
    action = "train" if isinstance(order, TrainOrder) else "evaluate"
    ttl = overdue.lives_s(deadline_s) if overdue.carries else None

    def send(hospitals: list[str]) -> dict[str, str]:
        group = str(order.round)
        messages = [grid.create_message(contents[h], action, roster.nodes[h], group, ttl) for h in hospitals]
        return dict(zip(grid.push_messages(messages), hospitals, strict=True))

    waiting: dict[str, str] = send(list(roster.nodes))
    again: set[str] = set()
    arrived: list[Message] = overdue.unread()
    try:
        while waiting and time.monotonic() < ends:
            arrived += grid.pull_messages([*waiting, *overdue.messages()])
            arrived.sort(key=lambda reply: reply.metadata.reply_to_message_id in waiting)  # late ones first
            if not arrived:
                time.sleep(_POLL_S)
            while arrived:
                reply = arrived.pop(0)
                name = reply.metadata.reply_to_message_id
                if was := overdue.take(name):
                    report, problem, up = _read(reply, roster, was.hospital, was.round, kind)
                    yield Answer(was.hospital, was.round, report, problem, 0, up)
                    continue
                if name not in waiting:
                    continue  # a second answer to one order, or one to an order that is not ours
                hospital = waiting.pop(name)
                report, problem, up = _read(reply, roster, hospital, order.round, kind)
                if problem == _NOT_HELD and hospital not in again:
                    again.add(hospital)
                    post.forget(hospital)
                    contents |= _addressed(post, order, roster, [hospital])
                    down[hospital] += wire.size(contents[hospital])
                    waiting |= send([hospital])
                    continue
                if report is not None:
                    post.arrived(hospital, order)
                yield Answer(hospital, order.round, report, problem, down[hospital], up)
        for hospital in waiting.values():
            yield Answer(hospital, order.round, None, f"no answer within {deadline_s:g} s", down[hospital], 0)
    finally:
        _close(grid, waiting, arrived, order.round, overdue)


def _close(grid: Grid, waiting: dict[str, str], arrived: list[Message], round: int, late: OverdueOrders) -> None:
    """The round is over: orders are taken back, and answers that may yet come are waited for in later rounds or not."""
    there = {reply.metadata.reply_to_message_id for reply in arrived}
    open_ones = waiting.keys() - there
    begun = grid.withdraw(open_ones) if isinstance(grid, Withdrawing) else open_ones
    if late.carries:
        late.keep({name: waiting[name] for name in begun | (there & waiting.keys())}, round, arrived)
        _forget(grid, late.too_old_for(round + 1))
    else:
        _forget(grid, begun)


def _forget(grid: Grid, messages: Iterable[str]) -> None:
    if isinstance(grid, Withdrawing):
        grid.forget(messages)


_NOT_HELD = f"refused with {ErrorCode.NOT_HELD}"


def _addressed(
    post: Broadcast, order: TrainOrder | EvaluateOrder, roster: Roster, hospitals: list[str]
) -> dict[str, RecordDict]:
    """The order for each hospital, with the head of its ledger that was seen last."""
    contents = post.contents(order, hospitals)
    heads = {hospital: roster.witness.head(hospital) for hospital in hospitals}
    return {hospital: wire.addressed(content, heads[hospital]) if heads[hospital] else content
            for hospital, content in contents.items()}  # fmt: skip


def _read(reply: Message, roster: Roster, hospital: str, round: int, kind: type[R]) -> tuple[R | None, str, int]:
    """The report on the order of a round, or why there is none, and how many bytes came."""
    try:
        report, problem, up = _report_in(reply, roster.document.name, round, kind)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in a library that is written in Rust is no Exception
        return None, f"its answer cannot be read ({type(error).__name__})", 0
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
        return None, f"answered to study {plain(report.study)}, round {report.round}", up
    return report, "", up


def plain(text: str) -> str:
    """A text in which others may have had a say, as text: short, and with nothing that could be markup."""
    return _MARKUP.sub("?", text if len(text) <= _MOST_TOLD else f"{text[:_MOST_TOLD]} and more")


_REMEDIES = {
    ErrorCode.LEDGER_BEHIND: (
        ": its ledger lacks what this server has seen of it, so an older copy was put back. Its own people know more; "
        "they have to bring the newer books back, or it has to be admitted anew"
    )
}
