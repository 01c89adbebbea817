"""One order and its answers, message by message, with hospitals that the embedded grid plays."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from conf.schema.study import Study
from server.rounds.aggregation import collect
from server.rounds.broadcast import Broadcast
from server.rounds.exchange import Answer, Channel, Withdrawing, exchange, plain
from server.rounds.staleness import OverdueOrders
from server.rounds.state import Roster
from server.runtime.local_grid import LocalGrid
from server.strategy import registry
from tasks.protocol import wire
from tasks.protocol.wire import TrainOrder, TrainReport
from tests.server import scripted

LEAN = ("wire.down=float16",)


class Recording(LocalGrid):
    """Notes what is asked of the grid; all replies that are wanted come at once, in the order of the question."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.sent: list[tuple[str, int]] = []
        self.withdrawn: list[set[str]] = []
        self.forgotten: list[set[str]] = []
        self.silent: set[str] = set()
        self.answered: dict[str, Message] = {}

    def name_of(self, message: Message) -> str:
        return next(name for name, node in self.nodes.items() if node == message.metadata.dst_node_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        together = list(messages)
        self.sent += [(self.name_of(message), wire.size(message.content)) for message in together]
        return super().push_messages(together)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        silent = {self.nodes[name] for name in self.silent}
        heard = [m for m in message_ids if m in self._waiting and self._waiting[m].metadata.dst_node_id not in silent]
        return [reply for message in heard for reply in LocalGrid.pull_messages(self, [message])]

    def withdraw(self, message_ids: Iterable[str]) -> set[str]:
        self.withdrawn.append(set(message_ids))
        return self.withdrawn[-1]

    def forget(self, message_ids: Iterable[str]) -> None:
        self.forgotten.append(set(message_ids))


class Plain(Recording):
    """A grid as Flower has it: it can take nothing back."""

    withdraw = forget = None  # type: ignore[assignment]


def order_of(study: Study, grid: LocalGrid, round: int = 1) -> tuple[Roster, TrainOrder]:
    roster = scripted.roster(study, grid)
    return roster, TrainOrder(roster.document, round, scripted.WEIGHTS)


@pytest.fixture(autouse=True)
def arrays_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seven numbers of these tests stand for a model, and travel as a large one does."""
    monkeypatch.setattr(wire, "_SMALL", 0)


def by_name(answers: list[Answer[TrainReport]]) -> dict[str, Answer[TrainReport]]:
    assert len({answer.hospital for answer in answers}) == len(answers)
    return {answer.hospital: answer for answer in answers}


def test_who_lacks_the_model_is_sent_the_whole_once_and_both_orders_are_counted(tmp_path: Path) -> None:
    sites = scripted.sites(tmp_path, ash="well", elm={"train": "not held"})
    with Recording(sites, scripted.load_app) as grid:
        roster, order = order_of(scripted.study(*LEAN), grid)
        broadcast = Broadcast("float16")
        for name in sites:
            broadcast.confirmed(name, order)  # both are believed to hold it: it is not sent
        answers = by_name(list(exchange(Channel(grid, 20, broadcast), roster, order, TrainReport)))
    names = [name for name, _ in grid.sent]
    assert sorted(names) == ["ash", "elm", "elm"]
    sizes = {name: [size for sent, size in grid.sent if sent == name] for name in sites}
    first, again = sizes["elm"]
    assert again > first == sizes["ash"][0]
    assert answers["elm"].bytes_down == first + again
    assert answers["ash"].bytes_down == first
    assert (answers["elm"].report, answers["elm"].problem) == (None, "refused with NOT_HELD")
    assert answers["ash"].report is not None
    assert answers["ash"].bytes_up == wire.size(wire.encode(answers["ash"].report))


def test_only_who_has_reported_is_believed_to_hold_the_model(tmp_path: Path) -> None:
    sites = scripted.sites(tmp_path, ash="well", elm={"train": {"1": "refuse", "2": "well"}}, oak="well")
    with Recording(sites, scripted.load_app) as grid:
        roster, order = order_of(scripted.study(*LEAN), grid)
        channel = Channel(grid, 20, Broadcast("float16"))
        list(exchange(channel, roster, order, TrainReport))
        assert {size for _, size in grid.sent} == {wire.size(wire.encode(order))}
        grid.sent.clear()
        again = replace(order, round=2)
        answers = by_name(list(exchange(channel, roster, again, TrainReport)))
    sizes = dict(grid.sent)
    assert sizes["ash"] == sizes["oak"] < sizes["elm"] == wire.size(wire.encode(again))
    assert answers["elm"].report is not None  # the whole model needs no second try


def test_an_update_of_an_earlier_round_is_read_before_those_of_this_one(tmp_path: Path) -> None:
    """The caller closes a round with its last punctual update; a late one behind it would wait another round."""
    sites = scripted.sites(tmp_path, ash="well", elm="well", oak="well")
    with Recording(sites, scripted.load_app) as grid:
        roster, order = order_of(scripted.study(), grid)
        channel = Channel(grid, 0.2, overdue=OverdueOrders(1))
        grid.silent = {"elm"}
        first = by_name(list(exchange(channel, roster, order, TrainReport)))
        assert first["elm"].problem == "no answer within 0.2 s"
        assert (first["elm"].bytes_up, first["elm"].bytes_down) == (0, first["ash"].bytes_down)
        grid.silent = set()
        others = replace(roster, nodes={name: roster.nodes[name] for name in ("ash", "oak")})
        second = list(exchange(replace(channel, deadline_s=20), others, replace(order, round=2), TrainReport))
    late, *punctual = second
    assert (late.hospital, late.round) == ("elm", 1)
    assert {(answer.hospital, answer.round) for answer in punctual} == {("ash", 2), ("oak", 2)}
    assert late.report is not None
    assert late.bytes_down == 0  # its order was counted in its own round
    assert late.bytes_up == wire.size(wire.encode(late.report))
    assert grid.forgotten == [set(), set()]


def test_what_a_closed_round_no_longer_wants_is_withdrawn_and_forgotten(tmp_path: Path) -> None:
    sites = scripted.sites(tmp_path, ash="well", elm="well", oak="well")
    with Recording(sites, scripted.load_app) as grid:
        roster, order = order_of(scripted.study(), grid)
        grid.silent = {"elm", "oak"}
        answers = exchange(Channel(grid, 20), roster, order, TrainReport)
        assert next(answers).hospital == "ash"
        answers.close()
        (withdrawn,) = grid.withdrawn
        assert len(withdrawn) == 2
        assert grid.forgotten == [withdrawn]


def test_flowers_own_grid_can_take_nothing_back_and_serves_as_well(tmp_path: Path) -> None:
    sites = scripted.sites(tmp_path, ash="well", elm={"train": "raise"})
    with Plain(sites, scripted.load_app) as grid:
        assert not isinstance(grid, Withdrawing)
        roster, order = order_of(scripted.study(), grid)
        answers = by_name(list(exchange(Channel(grid, 20), roster, order, TrainReport)))
    assert answers["ash"].report is not None
    assert answers["elm"].bytes_up == 0
    assert grid.forgotten == grid.withdrawn == []


def test_a_second_answer_to_an_order_is_none(tmp_path: Path) -> None:
    class Twice(Recording):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            replies = list(super().pull_messages(message_ids))
            return [*replies, *replies]

    with Twice(scripted.sites(tmp_path, ash="well", elm="well"), scripted.load_app) as grid:
        roster, order = order_of(scripted.study(), grid)
        answers = list(exchange(Channel(grid, 20), roster, order, TrainReport))
    assert sorted(answer.hospital for answer in answers) == ["ash", "elm"]


@pytest.mark.parametrize(("length", "cut"), [(399, False), (400, False), (401, True)])
def test_a_text_of_others_is_cut_at_four_hundred_characters(length: int, cut: bool) -> None:
    assert plain("a" * length) == "a" * min(length, 400) + (" and more" if cut else "")


class Looking(LocalGrid):
    """One reply at a time; looks which arrays of earlier ones are still held."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.read: list[weakref.ref[Any]] = []
        self.held: list[int] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.held.append(sum(reference() is not None for reference in self.read))
        return LocalGrid.pull_messages(self, message_ids)


def test_nothing_of_a_reply_is_held_while_the_next_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update is as large as a model, and Python's collection of circles may come late."""
    sites = scripted.sites(tmp_path, **dict.fromkeys(("ash", "birch", "elm", "oak"), "well"))
    decode = wire.decode

    def decoded(records: RecordDict, *kinds: Any) -> Any:
        message = decode(records, *kinds)
        if isinstance(message, TrainReport):
            sent = [array for record in records.array_records.values() for array in record.values()]
            grid.read += [weakref.ref(value) for value in [*message.arrays.values(), *sent]]
        return message

    monkeypatch.setattr(wire, "decode", decoded)
    gc.disable()
    try:
        with Looking(sites, scripted.load_app) as grid:
            study = scripted.study()
            roster, order = order_of(study, grid)
            strategy = registry.build(study.strategy)
            collected = collect(
                Channel(grid, 20), roster, order, strategy, strategy.combiner(scripted.WEIGHTS, 4), wanted=4
            )
    finally:
        gc.enable()
    assert len(collected.hospitals) == 4
    assert len(grid.read) == 4 * 2 * len(scripted.WEIGHTS)
    assert grid.held == [0] * 4
