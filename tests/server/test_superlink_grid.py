"""What the deployed grid adds to Flower's: orders wait for those who are away, and nobody's order is without an id."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server import superlink_grid
from server.flower_private import Run, claim_identity
from server.superlink_grid import SuperlinkGrid

NODE_UNAVAILABLE = 5


class Scripted(Grid):
    """Flower's grid, with nodes that come when the script says so. It takes no message for node 9."""

    def __init__(self, online: list[set[int]]) -> None:
        self.online, self.looked, self.sent = online, 0, list[Message]()

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    def create_message(self, *_: object, **__: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        self.looked += 1
        return self.online[min(self.looked, len(self.online)) - 1]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        orders = list(messages)
        self.sent += orders
        return [None if o.metadata.dst_node_id == 9 else f"id {o.metadata.dst_node_id}" for o in orders]  # type: ignore[misc]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    claim_identity()
    monkeypatch.setattr(superlink_grid, "_LOOK_S", 0.0)
    monkeypatch.setattr(superlink_grid, "_POLL_S", 0.0)


def orders(grid: SuperlinkGrid, *nodes: int) -> list[Message]:
    return [grid.create_message(RecordDict(), "train", node, group_id="1") for node in nodes]


def test_an_order_waits_for_who_is_away() -> None:
    inner = Scripted([set(), {1}, {1, 2}])
    grid = SuperlinkGrid(inner, patience_s=60, deadline_s=30)
    assert list(grid.push_messages(orders(grid, 1, 2))) == ["id 1", "id 2"]
    assert inner.looked == 3


def test_who_was_waited_for_in_vain_is_not_waited_for_again_until_seen() -> None:
    inner = Scripted([{1}])
    grid = SuperlinkGrid(inner, patience_s=0.05, deadline_s=30)
    grid.push_messages(orders(grid, 1, 2))
    grid._patience_s, before = 60, inner.looked
    grid.push_messages(orders(grid, 1, 2))
    assert inner.looked == before + 1
    inner.online, inner.looked = [{1, 2}, {1}, {1, 2}], 0
    grid.push_messages(orders(grid, 1, 2))  # seen again
    grid.push_messages(orders(grid, 1, 2))  # away again: waited for
    assert inner.looked == 3


def test_an_order_that_nobody_takes_has_an_id_and_an_answer() -> None:
    grid = SuperlinkGrid(Scripted([{1, 9}]), patience_s=0, deadline_s=30)
    names = list(grid.push_messages(orders(grid, 9, 1)))
    assert len(set(names)) == 2
    assert names[1] == "id 1"
    (answer,) = grid.pull_messages(names)
    assert answer.metadata.reply_to_message_id == names[0]
    assert answer.error.code == NODE_UNAVAILABLE
    assert list(grid.pull_messages(names)) == []


def test_nobody_answers_long_after_the_deadline() -> None:
    grid = SuperlinkGrid(Scripted([{1}]), patience_s=0, deadline_s=30)
    (order,) = orders(grid, 1)
    assert 30 < order.metadata.ttl <= 40
