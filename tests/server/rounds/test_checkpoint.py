"""A state that is committed is whole, whatever moment the process is killed at."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import CheckpointDamaged
from server.rounds import checkpoint
from server.rounds.checkpoint import read_state, write_state
from server.rounds.state import HospitalRound, RoundRecord, StudyState
from tests import spoiling
from tests.spoiling import MANY

figures = st.floats(allow_nan=False, allow_infinity=False)
hospitals = st.builds(
    HospitalRound,
    st.none() | figures,
    st.none() | figures,
    st.none() | figures,
    st.none() | figures,
    st.none() | figures,
)
records = st.builds(
    RoundRecord,
    st.integers(1, 99),
    figures,
    figures,
    st.dictionaries(st.text(max_size=5), hospitals, max_size=3),
    st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=2),
    st.lists(st.text(max_size=5), max_size=2),
    st.none() | st.tuples(figures, figures, figures),
)


def state(rounds: int) -> StudyState:
    """A state after so many rounds, unlike that of any other number."""
    weights = {"w": np.full((2, 3), rounds, np.float32), "b": np.arange(rounds, dtype=np.float64)}
    told = [
        RoundRecord(n, 0.5, 1.5, {"ash": HospitalRound(epsilon=n / 7)}, {"elm": "train: no"})
        for n in range(1, rounds + 1)
    ]
    scores, ledger_heads = {"ash": np.full((2, 4), rounds / 3)}, {"ash": f"{rounds:064x}"}
    return StudyState(
        weights, told, {"momentum": np.full(2, -rounds, np.float32)}, scores=scores, ledger_heads=ledger_heads
    )


def assert_same(one: StudyState | None, other: StudyState) -> None:
    assert one is not None
    assert (one.rounds, one.ledger_heads) == (other.rounds, other.ledger_heads)
    for mine, theirs in ((one.weights, other.weights), (one.memory, other.memory), (one.scores, other.scores)):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert (value.dtype, value.shape) == (theirs[name].dtype, theirs[name].shape)
            assert value.tobytes() == theirs[name].tobytes()


def test_there_is_no_state_before_the_first(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    assert read_state(tmp_path / "not even a folder") is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for rounds in (1, 2, 3):
        write_state(tmp_path / "deep" / "folder", state(rounds))
        assert_same(read_state(tmp_path / "deep" / "folder"), state(rounds))


@settings(max_examples=30, deadline=None)
@given(st.lists(records, max_size=4))
def test_every_figure_survives(tmp_path_factory: pytest.TempPathFactory, told: list[RoundRecord]) -> None:
    folder = tmp_path_factory.mktemp("state")
    write_state(folder, StudyState({"w": np.zeros(1, np.float32)}, told))
    found = read_state(folder)
    assert found is not None
    assert found.rounds == told


def test_only_the_last_round_takes_room(tmp_path: Path) -> None:
    for rounds in range(1, 6):
        write_state(tmp_path, state(rounds))
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint.json", "round-0005.safetensors", "memory-0005.safetensors", "scores-0005.safetensors"
    }  # fmt: skip


def test_the_weights_are_plain_safetensors(tmp_path: Path) -> None:
    """Other programs read the model; nothing of it is a pickle."""
    from safetensors.numpy import load_file

    write_state(tmp_path, state(2))
    np.testing.assert_array_equal(load_file(tmp_path / "round-0002.safetensors")["w"], state(2).weights["w"])


def _killed_at(line: int, folder: Path, new: StudyState) -> bool:
    """Write in a child that kills itself before the given line of checkpoint.py; False if that line never came."""
    child = os.fork()
    if child == 0:
        left = line

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename != checkpoint.__file__:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            write_state(folder, new)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_kill_before_any_line_leaves_the_last_state_or_the_new_one(tmp_path: Path) -> None:
    old, new = state(3), state(4)
    write_state(tmp_path / "old", old)
    is_new = []
    for line in count():
        folder = tmp_path / f"killed-{line}"
        shutil.copytree(tmp_path / "old", folder)
        killed = _killed_at(line, folder, new)
        found = read_state(folder)
        assert found is not None
        is_new.append(len(found.rounds) == 4)
        assert_same(found, new if is_new[-1] else old)
        if line % 8 == 0:  # and the next process can commit
            write_state(folder, new)
            assert_same(read_state(folder), new)
        if not killed:
            break
    assert len(is_new) > 40
    assert is_new == sorted(is_new)  # once committed, committed
    assert not is_new[0]
    assert is_new[-1]


def test_a_kill_while_the_first_state_is_written_leaves_none_or_the_first(tmp_path: Path) -> None:
    for line in count():
        folder = tmp_path / f"killed-{line}"
        killed = _killed_at(line, folder, state(1))
        found = read_state(folder)
        if found is not None:
            assert_same(found, state(1))
        if not killed:
            break
    assert line > 40


@pytest.mark.parametrize("name", ["round-0002.safetensors", "memory-0002.safetensors"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_damaged_arrays_are_named(tmp_path: Path, name: str, damage: str) -> None:
    write_state(tmp_path, state(2))
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    {
        "flipped": lambda: path.write_bytes(content),
        "cut": lambda: path.write_bytes(content[:-1]),
        "empty": lambda: path.write_bytes(b""),
        "gone": path.unlink,
    }[damage]()
    with pytest.raises(CheckpointDamaged) as caught:
        read_state(tmp_path)
    assert name in str(caught.value)
    assert "resume=never" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"arrays": {}, "rounds": []}', '{"arrays": 3, "rounds": 3}', "\xff"]
)
def test_a_damaged_pointer_is_named(tmp_path: Path, text: str) -> None:
    write_state(tmp_path, state(2))
    (tmp_path / "checkpoint.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointDamaged, match=r"checkpoint\.json"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    "rounds", [[3], [{}], [{"hospitals": 3}], [{"hospitals": {"ash": {"shoe_size": 43}}}], {"a": 1}]
)
def test_rounds_of_another_form_are_named(tmp_path: Path, rounds: object) -> None:
    write_state(tmp_path, state(2))
    pointer = json.loads((tmp_path / "checkpoint.json").read_text())
    (tmp_path / "checkpoint.json").write_text(json.dumps(pointer | {"rounds": rounds}))
    with pytest.raises(CheckpointDamaged, match=r"checkpoint\.json"):
        read_state(tmp_path)


@MANY
@given(st.data())
def test_whatever_lies_in_the_folder_is_a_state_or_is_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """And what is read can be gone on with: the round that is handed over is there, figures are numbers."""
    folder = tmp_path_factory.mktemp("spoilt")
    write_state(folder, state(2))
    path = folder / "checkpoint.json"
    if data.draw(st.booleans()):
        path.write_text(data.draw(spoiling.json_of(json.loads(path.read_text()))), "utf-8", "surrogatepass")
    else:
        path.write_bytes(data.draw(spoiling.bytes_of(path.read_bytes())))
    try:
        found = read_state(folder)
    except CheckpointDamaged:
        return
    assert found is not None
    if found.rounds:
        assert found.outcome in found.rounds
    for record in found.rounds:
        assert record.mean_auc() is None or isinstance(record.mean_auc(), float)
    write_state(tmp_path_factory.mktemp("again"), found)
