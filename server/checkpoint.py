"""The state of a study on disk after each round: weights as safetensors, everything else as JSON.

The weights are written first, under a name of their own; then the JSON file that points to them replaces the old one in
one step. Whatever moment the process is killed at, the folder holds the last committed round, whole.
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

_POINTER = "checkpoint.json"


def write_state(folder: Path, state: State) -> None:
    """Commit a state; older weights go once nothing points to them."""
    folder.mkdir(parents=True, exist_ok=True)
    content = save(state.weights)
    weights = folder / f"round-{len(state.rounds):04d}.safetensors"
    write_whole(weights, content)
    pointer = {
        "weights": weights.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "rounds": [asdict(record) for record in state.rounds],
    }
    write_whole(folder / _POINTER, json.dumps(pointer, indent=1).encode())
    for old in folder.glob("round-*.safetensors"):
        if old != weights:
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
        content = (folder / pointer["weights"]).read_bytes()
        rounds = [_record(values) for values in pointer["rounds"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointDamaged(f"cannot read {path}: {error}; restore the folder from a backup, or resume=never") from error
    if hashlib.sha256(content).hexdigest() != pointer["sha256"]:
        raise CheckpointDamaged(f"{folder / pointer['weights']} has changed since it was written; say resume=never")
    return State(load(content), rounds)


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


def _record(values: dict[str, object]) -> RoundRecord:
    hospitals = {name: HospitalRound(**figures) for name, figures in values.pop("hospitals").items()}  # type: ignore[attr-defined]
    return RoundRecord(hospitals=hospitals, **values)  # type: ignore[arg-type]
