"""The state of a study on disk after each round: arrays as safetensors, everything else as JSON.

The weights, what the strategy remembers and the last scores are written first, under new names; then the JSON file that
points to them replaces the old one atomically. At whatever moment the process is killed, the folder holds the last
committed round, complete.

A round that is trained and not yet evaluated is kept in a folder of its own until it is committed. Replies arrive in
another order next time, or from other hospitals, and the last bits of the model would differ: the evaluation of another
model is another release, which hospitals would have to charge again. The same model gets their stored replies.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.numpy import load, save

from server.errors import CheckpointDamaged
from server.rounds.state import RoundRecord, StudyState
from tasks.machine.disk import write_whole
from tasks.protocol.study import HexDigest
from tasks.protocol.wire import Arrays

_POINTER, _TRAINED = "checkpoint.json", "trained"
_KINDS = {"round", "memory", "residual", "average", "best", "scores"}
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
    SafetensorError,
)
"""What damaged files provoke; a round that is called infinite, for instance, an ``OverflowError``."""
_ROUNDS, _LEDGER_HEADS = TypeAdapter(list[RoundRecord]), TypeAdapter(dict[str, HexDigest])


def write_state(folder: Path, state: StudyState) -> None:
    """Commit a state; older arrays are deleted once nothing points to them."""
    folder.mkdir(parents=True, exist_ok=True)
    number = f"{len(state.rounds):04d}.safetensors"
    kinds = {"round": state.weights, "memory": state.memory}
    optional = {"residual": state.residual, "average": state.average, "best": state.best, "scores": state.scores}
    for kind, value in optional.items():
        kinds |= {kind: value} if value else {}
    arrays = {f"{kind}-{number}": save(value) for kind, value in kinds.items()}
    for name, content in arrays.items():
        write_whole(folder / name, content)
    pointer = {
        "arrays": {name.split("-")[0]: [name, _sha256(content)] for name, content in arrays.items()},
        "rounds": [asdict(record) for record in state.rounds],
        "chosen": state.chosen,
        "ledger_heads": state.ledger_heads,
    }
    write_whole(folder / _POINTER, json.dumps(pointer, indent=1).encode())
    for old in folder.glob("*.safetensors"):
        if old.name not in arrays:
            old.unlink()


def read_state(folder: Path) -> StudyState | None:
    """The last committed state, or ``None`` when there is none yet.

    Raises:
        CheckpointDamaged: the files are not what was written.
    """
    path = folder / _POINTER
    if not path.exists():
        return None
    try:
        pointer = json.loads(path.read_text("utf-8"))
        arrays = {kind: _arrays(folder, *named) for kind, named in pointer["arrays"].items()}
        rounds, ledger_heads = (
            _ROUNDS.validate_python(pointer["rounds"]),
            _LEDGER_HEADS.validate_python(pointer["ledger_heads"]),
        )
        chosen = int(pointer["chosen"])
        if not 0 <= chosen <= len(rounds) or not {"round", "memory"} <= arrays.keys() <= _KINDS:
            raise ValueError("it names a round or arrays that no checkpoint has")
    except _UNREADABLE as error:
        raise CheckpointDamaged(
            f"cannot read {path}: {error}; restore the folder from a backup, or set resume=never"
        ) from error
    return StudyState(arrays.pop("round"), rounds, chosen=chosen, ledger_heads=ledger_heads, **arrays)


def keep_trained(folder: Path, state: StudyState) -> None:
    """Keep the state after a round's training beside the committed one; its last record lacks the evaluation."""
    write_state(folder / _TRAINED, state)


def read_trained(folder: Path, committed: int) -> StudyState | None:
    """What was kept of the round that follows so many committed ones, or ``None`` if it was not trained to its end.

    Raises:
        CheckpointDamaged: the files are not what was written.
    """
    state = read_state(folder / _TRAINED)
    return state if state is not None and len(state.rounds) == committed + 1 else None


def forget_trained(folder: Path) -> None:
    """The round is committed."""
    (folder / _TRAINED / _POINTER).unlink(missing_ok=True)  # first: no pointer to what is gone
    shutil.rmtree(folder / _TRAINED, ignore_errors=True)


def model_file(folder: Path, state: StudyState) -> Path:
    """The file of a committed state that holds the model which the study delivers."""
    kind = "best" if state.best else "average" if state.average else "round"
    return folder / f"{kind}-{len(state.rounds):04d}.safetensors"


def records(pointer: bytes | None) -> list[RoundRecord]:
    """The rounds in a checkpoint's JSON file, without the arrays.

    Raises:
        ValueError: it is not such a file.
    """
    try:
        return [] if pointer is None else _ROUNDS.validate_python(json.loads(pointer)["rounds"])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a checkpoint: {error!r}") from error


def _arrays(folder: Path, name: str, sha256: str) -> Arrays:
    content = (folder / name).read_bytes()
    if _sha256(content) != sha256:
        raise CheckpointDamaged(f"{folder / name} has changed since it was written; set resume=never")
    return load(content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
