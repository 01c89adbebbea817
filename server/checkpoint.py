"""The state of a study on disk after each round: arrays as safetensors, everything else as JSON.

The weights and what the strategy remembers are written first, under names of their own; then the JSON file that points
to them replaces the old one in one step. Whatever moment the process is killed at, the folder holds the last committed
round, whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from safetensors.numpy import load, save

from server.errors import CheckpointDamaged
from server.rounds import HospitalRound, RoundRecord, State
from tasks.wire import Arrays

_POINTER = "checkpoint.json"


def write_state(folder: Path, state: State) -> None:
    """Commit a state; older arrays go once nothing points to them."""
    folder.mkdir(parents=True, exist_ok=True)
    number = f"{len(state.rounds):04d}.safetensors"
    arrays = {f"round-{number}": save(state.weights), f"memory-{number}": save(state.memory)}
    for name, content in arrays.items():
        write_whole(folder / name, content)
    pointer = {
        "arrays": {name.split("-")[0]: [name, _sha256(content)] for name, content in arrays.items()},
        "rounds": [asdict(record) for record in state.rounds],
    }
    write_whole(folder / _POINTER, json.dumps(pointer, indent=1).encode())
    for old in folder.glob("*.safetensors"):
        if old.name not in arrays:
            old.unlink()


def read_state(folder: Path) -> State | None:
    """The last committed state, or ``None`` when there is none yet.

    Raises:
        CheckpointDamaged: the files are not what was written.
    """
    path = folder / _POINTER
    if not path.exists():
        return None
    try:
        pointer = json.loads(path.read_text("utf-8"))
        weights, memory = (_arrays(folder, *pointer["arrays"][kind]) for kind in ("round", "memory"))
        rounds = [_record(values) for values in pointer["rounds"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointDamaged(
            f"cannot read {path}: {error}; restore the folder from a backup, or resume=never"
        ) from error
    return State(weights, rounds, memory)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file such that a crash leaves the old one or the new one, never half of it."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name must survive as well
    finally:
        os.close(folder)


def _arrays(folder: Path, name: str, sha256: str) -> Arrays:
    content = (folder / name).read_bytes()
    if _sha256(content) != sha256:
        raise CheckpointDamaged(f"{folder / name} has changed since it was written; say resume=never")
    return load(content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record(values: dict[str, object]) -> RoundRecord:
    hospitals = {name: HospitalRound(**figures) for name, figures in values.pop("hospitals").items()}  # type: ignore[attr-defined]
    return RoundRecord(hospitals=hospitals, **values)  # type: ignore[arg-type]
