"""What the deployed grid adds to Flower's: orders wait for those who are away, and nobody's order is without an id."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.rounds.round import run_rounds
from server.rounds.state import Roster, StudyState
from server.runtime import superlink_grid
from server.runtime.flower_private import Run, claim_identity
from server.runtime.superlink_grid import SuperlinkGrid
from server.study.document import document_of
from tests.server import scripted
from tests.server.link_state import LinkStateGrid

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
    grid = SuperlinkGrid(inner, wait_for_nodes_s=60, deadline_s=30)
    assert list(grid.push_messages(orders(grid, 1, 2))) == ["id 1", "id 2"]
    assert inner.looked == 3


def test_who_was_waited_for_in_vain_is_not_waited_for_again_until_seen() -> None:
    inner = Scripted([{1}])
    grid = SuperlinkGrid(inner, wait_for_nodes_s=0.05, deadline_s=30)
    grid.push_messages(orders(grid, 1, 2))
    grid._wait_for_nodes_s, before = 60, inner.looked
    grid.push_messages(orders(grid, 1, 2))
    assert inner.looked == before + 1
    inner.online, inner.looked = [{1, 2}, {1}, {1, 2}], 0
    grid.push_messages(orders(grid, 1, 2))  # seen again
    grid.push_messages(orders(grid, 1, 2))  # away again: waited for
    assert inner.looked == 3


def test_an_order_that_nobody_takes_has_an_id_and_an_answer() -> None:
    grid = SuperlinkGrid(Scripted([{1, 9}]), wait_for_nodes_s=0, deadline_s=30)
    names = list(grid.push_messages(orders(grid, 9, 1)))
    assert len(set(names)) == 2
    assert names[1] == "id 1"
    (answer,) = grid.pull_messages(names)
    assert answer.metadata.reply_to_message_id == names[0]
    assert answer.error.code == NODE_UNAVAILABLE
    assert list(grid.pull_messages(names)) == []


def test_nobody_answers_long_after_the_deadline() -> None:
    grid = SuperlinkGrid(Scripted([{1}]), wait_for_nodes_s=0, deadline_s=30)
    (order,) = orders(grid, 1)
    assert 30 < order.metadata.ttl <= 40


def play(folder: Path, until: int, late_rounds: int, rounds: int = 3) -> tuple[StudyState, LinkStateGrid]:
    """Two of three hospitals close a round; elm is slow with round 1."""
    asked = scripted.study(
        "federation.participation=0.67",
        "federation.over_selection=0.5",
        "federation.deadline_s=20",
        "evaluation.every=9",
        f"federation.late_rounds={late_rounds}",
        f"federation.rounds={rounds}",
    )
    sites = scripted.sites(folder, ash="well", birch="well", elm="well")
    inner = LinkStateGrid(sites, "elm", until)
    roster = Roster(document_of(asked, "scripted-1", dict.fromkeys(inner.nodes, scripted.SIZE)), inner.nodes)
    state = run_rounds(asked, roster, SuperlinkGrid(inner, 0, 20), StudyState(scripted.WEIGHTS), lambda state: None)
    return state, inner


def test_flowers_store_keeps_a_late_reply_until_it_is_taken(tmp_path: Path) -> None:
    state, _ = play(tmp_path, until=2, late_rounds=1)
    assert [record.carried for record in state.rounds] == [{}, {"elm": 1}, {}]
    assert [len(record.invited) for record in state.rounds] == [3, 2, 3]


def test_flowers_store_lets_go_of_replies_that_nobody_wants(tmp_path: Path) -> None:
    """A late reply is a model long, and would lie there until the run ends."""
    state, inner = play(tmp_path, until=2, late_rounds=0)
    assert [record.carried for record in state.rounds] == [{}] * 3
    left = {order.metadata.group_id for order in inner.store.message_ins_store.values()}
    assert left <= {"3"}, "what was late in rounds 1 and 2 is gone"
    assert {reply.metadata.group_id for reply in inner.store.message_res_store.values()} <= {"3"}


def test_nobody_waits_for_who_may_no_longer_take_part() -> None:
    inner = Scripted([{1}])
    grid = SuperlinkGrid(inner, wait_for_nodes_s=60, deadline_s=30, admitted=lambda: {1})
    grid.push_messages(orders(grid, 1, 2))
    assert inner.looked == 1


def test_the_superlink_is_asked_less_often_the_longer_a_study_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(superlink_grid, "_POLL_S", 0.2)
    monkeypatch.setattr(superlink_grid.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(superlink_grid.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    grid = SuperlinkGrid(Scripted([{1}]), wait_for_nodes_s=0, deadline_s=30)
    names = list(grid.push_messages(orders(grid, 1)))
    looked = []
    while clock[0] < 60:
        list(grid.pull_messages(names))
        looked.append(clock[0])
    pauses = [round(late - early, 6) for early, late in itertools.pairwise(looked)]
    assert pauses[:10] == pytest.approx([0.2] * 10)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(1.0)
    assert 70 < len(looked) < 110, "60 s at five a second would be 300"
