"""One order to many hospitals, and their answers as they come: checked, or with the reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from flwr.app import Message
from flwr.serverapp import Grid

from server.post import Post
from server.record import Roster
from tasks import wire
from tasks.wire import ErrorCode, EvaluateOrder, EvaluateReport, Refusal, TrainOrder, TrainReport

_POLL_S = 0.05


@runtime_checkable
class Withdrawing(Protocol):
    """A grid that can take orders back."""

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Nobody waits for the replies to these any more."""


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
    grid: Grid, roster: Roster, order: TrainOrder | EvaluateOrder, kind: type[R], deadline_s: float, post: Post
) -> Generator[Answer[R], None, None]:
    """Send one order to all hospitals and give their answers as they come, until all have or the deadline passes.

    Only replies to the messages of this very call are ever taken. Whoever answers an earlier round, or this one after
    its end, is not heard. Close it to stop waiting; orders that nobody has begun are withdrawn where the grid can.
    """
    ends = time.monotonic() + deadline_s
    contents = post.contents(order, list(roster.nodes))
    down = {name: wire.size(content) for name, content in contents.items()}
    action = "train" if isinstance(order, TrainOrder) else "evaluate"

    def send(hospitals: list[str]) -> dict[str, str]:
        group = str(order.round)
        messages = [grid.create_message(contents[h], action, roster.nodes[h], group_id=group) for h in hospitals]
        return dict(zip(grid.push_messages(messages), hospitals, strict=True))

    waiting = send(list(roster.nodes))
    again: set[str] = set()
    try:
        while waiting and time.monotonic() < ends:
            replies = list(grid.pull_messages(list(waiting)))
            for reply in replies:
                hospital = waiting.pop(reply.metadata.reply_to_message_id)
                report, problem, up = _read(reply, order, kind)
                if problem == _NOT_HELD and hospital not in again:
                    again.add(hospital)
                    post.forget(hospital)
                    contents |= post.contents(order, [hospital])
                    down[hospital] += wire.size(contents[hospital])
                    waiting |= send([hospital])
                    continue
                if report is not None:
                    post.arrived(hospital, order)
                yield Answer(hospital, report, problem, down[hospital], up)
            if not replies:
                time.sleep(_POLL_S)
        for hospital in waiting.values():
            yield Answer(hospital, None, f"no answer within {deadline_s:g} s", down[hospital], 0)
    finally:
        if isinstance(grid, Withdrawing):
            grid.withdraw(waiting)


_NOT_HELD = f"refused with {ErrorCode.NOT_HELD}"


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
