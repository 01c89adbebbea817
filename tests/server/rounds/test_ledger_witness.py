"""What was seen of hospitals' books goes back to them, in every order, and outlives study and process."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import RoundFailed
from server.rounds import ledger_witness
from server.rounds.broadcast import Broadcast
from server.rounds.checkpoint import read_state, write_state
from server.rounds.exchange import _addressed
from server.rounds.ledger_witness import Witness
from server.rounds.round import run_rounds
from server.rounds.state import Roster, StudyState
from server.runtime.local_grid import LocalGrid
from server.study.document import document_of
from tasks.protocol import wire
from tasks.protocol.wire import EvaluateOrder, TrainOrder
from tests.server import scripted
from tests.server.scripted_app import BOOKS

OTHER = "c" * 64


def test_the_newest_head_is_told_and_a_server_s_own_counts_more(tmp_path: Path) -> None:
    found = Witness({"ash": BOOKS}, tmp_path / "witness")
    assert (found.head("ash"), found.head("elm")) == (BOOKS, None)
    found.saw("ash", OTHER)
    assert Witness({"ash": BOOKS}, tmp_path / "witness").head("ash") == OTHER, "another study's process"
    assert Witness({"ash": BOOKS}).head("ash") == BOOKS
    ledger_witness.forget(tmp_path / "witness", "ash")
    assert Witness({}, tmp_path / "witness").head("ash") is None
    assert found.seen() == {"ash": OTHER}


@pytest.mark.parametrize("content", [b"", b"\xff", b"x" * 64, b"C" * 64])
def test_a_file_that_holds_no_hash_is_not_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ash").write_bytes(content)
    assert Witness({}, tmp_path).head("ash") is None


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_every_order_brings_each_hospital_its_own_head_and_shares_the_model(form: str) -> None:
    document = document_of(scripted.study(f"wire.down={form}"), "scripted-1", {"ash": 1, "elm": 1, "oak": 1})
    roster = Roster(document, {"ash": 1, "elm": 2, "oak": 3}, Witness({"ash": BOOKS, "elm": OTHER}))
    for order in (TrainOrder(document, 1, scripted.WEIGHTS), EvaluateOrder(document, 1, scripted.WEIGHTS)):
        contents = _addressed(Broadcast(document.wire.down), order, roster, ["ash", "elm", "oak"])
        told = {name: wire.decode(content, type(order)) for name, content in contents.items()}
        assert {name: one.ledger_head for name, one in told.items()} == {"ash": BOOKS, "elm": OTHER, "oak": None}
        assert len({wire.digest(one) for one in told.values()}) == 1, "it is no part of what is asked"
        packed = {content.config_records["head"]["arrays"] for content in contents.values()}
        assert len(packed) == 1, "the model is the same for all"


def test_a_study_remembers_what_it_saw_across_a_restart(tmp_path: Path) -> None:
    asked = scripted.study("federation.rounds=1", "federation.deadline_s=20", "federation.quorum=0.3")
    with LocalGrid(scripted.sites(tmp_path, ash="well", birch="raise", elm="nan"), scripted.load_app) as grid:
        ended = run_rounds(asked, scripted.roster(asked, grid), grid, StudyState(scripted.WEIGHTS), lambda state: None)
    assert ended.ledger_heads == dict.fromkeys(("ash", "birch", "elm"), BOOKS), "birch answers the evaluation"
    write_state(tmp_path / "state", ended)
    resumed = read_state(tmp_path / "state")
    assert resumed is not None
    assert resumed.ledger_heads == ended.ledger_heads


def test_who_lacks_rows_that_were_seen_is_left_out_by_name_and_told_what_to_do(tmp_path: Path) -> None:
    asked = scripted.study("federation.rounds=1", "federation.deadline_s=20", "federation.quorum=1")
    behaviours = {"ash": "well", "birch": "books behind"}
    why = pytest.raises(
        RoundFailed,
        match="birch: train: refused with LEDGER_BEHIND: its ledger lacks an entry that this server has seen",
    )
    with LocalGrid(scripted.sites(tmp_path, **behaviours), scripted.load_app) as grid, why:
        run_rounds(asked, scripted.roster(asked, grid), grid, StudyState(scripted.WEIGHTS), lambda state: None)
