"""The embedded grid: the same bytes however many processes play, and a process that dies fails alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from server.errors import RoundFailed
from server.rounds.round import run_rounds
from server.rounds.state import StudyState
from server.runtime.local_grid import LocalGrid
from tests.server import scripted


def played(folder: Path, workers: int, rounds: int = 2, **behaviours: object) -> StudyState:
    asked = scripted.study(f"federation.rounds={rounds}", "federation.quorum=0.3", "federation.deadline_s=60")
    with LocalGrid(scripted.sites(folder, **behaviours), scripted.load_app, workers) as grid:
        return run_rounds(asked, scripted.roster(asked, grid), grid, StudyState(scripted.WEIGHTS), lambda state: None)


def test_processes_give_the_same_bytes_as_one(tmp_path: Path) -> None:
    alone, apart = (played(tmp_path, workers, ash="well", elm="well", oak="well") for workers in (0, 2))
    for key, value in alone.weights.items():
        np.testing.assert_allclose(value, apart.weights[key], rtol=0, atol=1e-7)  # sums in another order
    for one, other in zip(alone.rounds, apart.rounds, strict=True):
        assert one.hospitals == other.hospitals
        assert one.dropped == other.dropped == {}


def test_a_process_that_dies_fails_its_own_hospital_only_and_is_replaced(tmp_path: Path) -> None:
    """Three hospitals on two workers; at last everybody dies, which is a failed round and no hang."""
    birch = {"train": {"1": "die", "3": "die"}, "evaluate": {"2": "die"}}
    dies = {"train": {"3": "die"}}
    asked = scripted.study("federation.rounds=3", "federation.quorum=0.3", "federation.deadline_s=60")
    committed: list[StudyState] = []
    sites = scripted.sites(tmp_path, ash=dies, birch=birch, elm=dies)
    with LocalGrid(sites, scripted.load_app, 2) as grid:
        roster = scripted.roster(asked, grid)
        with pytest.raises(RoundFailed) as caught:
            run_rounds(asked, roster, grid, StudyState(scripted.WEIGHTS), committed.append)
    first, second = committed[-1].rounds
    assert first.dropped.keys() == second.dropped.keys() == {"birch"}
    assert first.dropped["birch"].startswith("train: its client failed")
    assert second.dropped["birch"].startswith("evaluate: its client failed")
    assert second.hospitals["birch"].epsilon == 1.0
    assert caught.value.dropped.keys() == {"ash", "birch", "elm"}
    assert caught.value.round == 3


def test_an_app_that_cannot_be_loaded_is_a_failed_round_and_no_hang(tmp_path: Path) -> None:
    asked = scripted.study("federation.deadline_s=60")
    with LocalGrid(scripted.sites(tmp_path, ash="well"), scripted.load_nothing, 1) as grid:
        roster = scripted.roster(asked, grid)
        with pytest.raises(RoundFailed, match="ash: train: its client failed"):
            run_rounds(asked, roster, grid, StudyState(scripted.WEIGHTS), lambda state: None)


def test_a_late_reply_neither_blocks_a_worker_nor_answers_another_order(tmp_path: Path) -> None:
    asked = scripted.study("federation.rounds=2", "federation.quorum=0.3", "federation.deadline_s=1.5")
    sites = scripted.sites(tmp_path, ash={"train": {"1": "sleep"}})
    with LocalGrid(sites, scripted.load_app, 1) as grid:
        first = grid.send_and_receive(_orders(asked, grid, "train", 1), timeout=0.5)
        assert list(first) == []
        second = grid.send_and_receive(_orders(asked, grid, "train", 2), timeout=20)
        assert [reply.has_error() for reply in second] == [False]


def _orders(asked, grid: LocalGrid, action: str, number: int):  # type: ignore[no-untyped-def]
    from tasks.protocol import wire

    content = wire.encode(wire.TrainOrder(scripted.roster(asked, grid).document, number, scripted.WEIGHTS))
    return [grid.create_message(content, action, node, group_id="1") for node in grid.get_node_ids()]


def test_every_message_goes_through_flowers_codec_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from server.runtime import local_grid

    seen: list[str] = []
    original = local_grid.deflate_all

    def watched(messages):  # type: ignore[no-untyped-def]
        together = list(messages)
        seen.extend(message.metadata.reply_to_message_id or "order" for message in together)
        return original(together)

    monkeypatch.setattr(local_grid, "deflate_all", watched)
    monkeypatch.setattr(local_grid, "deflate", lambda message: watched([message])[0])
    played(tmp_path, 0, rounds=1, ash="well", elm="well")
    assert len(seen) == 8  # two hospitals, train and evaluate, there and back
    assert seen.count("order") == 4


def test_the_grid_knows_hospitals_by_number_and_no_run(tmp_path: Path) -> None:
    with LocalGrid(scripted.sites(tmp_path, ash="well", elm="well"), scripted.load_app) as grid:
        assert grid.nodes == {"ash": 1, "elm": 2}
        assert list(grid.get_node_ids()) == [1, 2]
        with pytest.raises(NotImplementedError, match="no SuperLink"):
            _ = grid.run
        message = grid.create_message(RecordDict({"c": ConfigRecord()}), "train", 1, "1")
        assert message.metadata.dst_node_id == 1


PROGRAM = """
import sys
from pathlib import Path
from server.runtime.local_grid import LocalGrid
from server.rounds.round import run_rounds
from server.rounds.state import StudyState
from tests.server import scripted

if __name__ == "__main__":
    asked = scripted.study("federation.deadline_s=60")
    with LocalGrid({"ash": Path(sys.argv[1])}, scripted.load_app, 1) as grid:
        print("started", flush=True)
        run_rounds(asked, scripted.roster(asked, grid), grid, StudyState(scripted.WEIGHTS), lambda state: None)
"""


def test_a_parent_that_is_killed_takes_its_workers_along(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = scripted.sites(tmp_path, ash="sleep")["ash"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen([sys.executable, str(program), str(path)], stdout=subprocess.PIPE, env=environment)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        children = _until(lambda: _children_of(parent.pid))
        assert children
        time.sleep(0.5)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
    assert _until(lambda: not [pid for pid in children if _lives(pid)], 20)


def _until(condition, seconds: float = 30.0):  # type: ignore[no-untyped-def]
    ends = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < ends:
        time.sleep(0.1)
    return found


def _children_of(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False
