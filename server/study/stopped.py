"""A study that somebody has ended for good: by whom, when, and what it has spent until then.

A file of its own says so, since whoever works on the study writes ``study.json``: once it is there, no process starts
another round and nothing resumes the study. When nobody works on it any more, ``settle`` closes the books.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.errors import CheckpointDamaged, StudyBusy, StudyStopped
from server.rounds.checkpoint import records
from server.rounds.state import HospitalRound
from server.study.folder import CHECKPOINTS, FINISHED, STOPPED, StudyFolder, locked
from tasks.machine.disk import write_secret, write_whole

FILE = "stopped.json"
UNREPORTED = (
    "An order that was under way may cost more: a hospital that has begun to answer it has set its cost aside, as its "
    "own ledger says."
)

Spent = dict[str, dict[str, float | None]]
"""Epsilon by hospital, and in it by cohort: ``training``, ``validation``; ``None`` where nothing was reported."""


def is_stopped(study: Path) -> bool:
    """Whether the study in a folder was ended for good."""
    return (study / FILE).exists()


def mark(folder: StudyFolder, by: str) -> bool:
    """Say that a study ends here. Returns whether nobody has said so before."""
    facts = {"by": by, "at": datetime.now(UTC).isoformat(timespec="seconds"), "settled": False}
    try:
        write_secret(folder.path / FILE, json.dumps(facts).encode())
    except FileExistsError:
        return False
    return True


def refuse_stopped(folder: StudyFolder) -> None:
    """Do not go on with a study that was ended for good.

    Raises:
        StudyStopped
    """
    if is_stopped(folder.path):
        facts = _read(folder.path)
        raise StudyStopped(
            f"{folder.name} was stopped by {facts.get('by', 'somebody')} on {facts.get('at', 'an unknown day')} and "
            "does not go on; resume=never starts a new study of the same configuration"
        )


def settle(folder: StudyFolder) -> bool:
    """Note in ``study.json`` how it has ended and what it has spent. Returns whether that is done; it is not while a
    process works on the study. One that finished before it could be ended stays finished.

    Raises:
        OSError, CheckpointDamaged: a file cannot be read or written.
    """
    facts = _read(folder.path)
    if facts.get("settled"):
        return True
    try:
        with locked(folder):
            if folder.facts().get("state") == FINISHED:
                (folder.path / FILE).unlink(missing_ok=True)
                return True
            by, at = facts.get("by", "somebody"), facts.get("at", "")
            error = f"It was stopped by {by} for good."
            folder.note(state=STOPPED, finished=True, error=error, stopped={"by": by, "at": at},
                        spent=spent(folder.path))  # fmt: skip
            write_whole(folder.path / FILE, json.dumps(facts | {"settled": True}).encode(), mode=0o600)
    except StudyBusy:
        return False
    return True


def unsettled(studies: Path) -> Iterator[StudyFolder]:
    """Studies that were ended and on which a process may still work."""
    for path in sorted(studies.glob(f"*/{FILE}")):
        if not _read(path.parent).get("settled"):
            yield StudyFolder(path.parent.name, path.parent, resumed=True)


def spent(study: Path) -> Spent:
    """What hospitals have reported of the privacy loss of their patients, in the committed rounds of a study."""
    pointer = study / CHECKPOINTS / "checkpoint.json"
    try:
        rounds = records(pointer.read_bytes() if pointer.exists() else None)
    except ValueError as error:
        raise CheckpointDamaged(f"cannot read {pointer}: {error}; restore a backup") from error
    found: dict[str, list[HospitalRound]] = {}
    for record in rounds:
        for name, one in record.hospitals.items():
            found.setdefault(name, []).append(one)
    return {
        name: {
            "training": _most(one.epsilon for one in answers),
            "validation": _most(one.evaluation_epsilon for one in answers),
        }
        for name, answers in sorted(found.items())
    }


def rows(found: object) -> list[tuple[str, str, str]]:
    """The rows of a table: hospital, epsilon of its training and of its validation patients."""
    if not isinstance(found, dict):
        return []
    return [
        (str(name), _told(one.get("training")), _told(one.get("validation")))
        for name, one in found.items()
        if isinstance(one, dict)
    ]


def _told(epsilon: Any) -> str:
    return f"{epsilon:.2f}" if isinstance(epsilon, int | float) else "-"


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _read(study: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        facts = json.loads((study / FILE).read_text("utf-8"))
        if isinstance(facts, dict):
            return facts
    return {}
