"""A study's folder: what ``study.json`` says, its progress, and which process works on it.

Tested in ``tests/server/study/test_document.py``.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.errors import CheckpointDamaged, StudyBusy
from tasks.machine.disk import write_whole

FILE = "study.json"
PENDING = "tracking.json"
"""A study's file with what MLflow has not received yet; it is deleted once MLflow has everything."""
CHECKPOINTS = "federated"
"""Folder of a study with its last committed round."""
RUNNING, FINISHED, FAILED, PROPOSED, STOPPED = "running", "finished", "failed", "proposed", "stopped"
"""States of a study on a server, as ``study.json`` names them."""
NOT_COMPUTED = ("runtime", "tracking", "report", "output_dir", "resume", "experiment", "propose", "objective")
"""Settings that may change when a study is resumed or submitted again: where and how it runs, not what it computes."""


@dataclass(frozen=True)
class StudyFolder:
    """One study on disk.

    Attributes:
        name: the study's id, unique within ``output_dir`` and the same after every restart.
        path: the folder.
        resumed: whether there was something to resume from.
    """

    name: str
    path: Path
    resumed: bool

    def facts(self) -> dict[str, Any]:
        """What ``study.json`` says.

        Raises:
            CheckpointDamaged: it does not hold what was written.
        """
        path = self.path / FILE
        try:
            facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
            return {"study": facts["study"], "finished": facts["finished"], "config": facts["config"]} | facts
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointDamaged(f"cannot read {path}: {error!r}; restore a backup, or rename the folder") from error

    def note(self, **facts: object) -> None:
        """Add facts to ``study.json``."""
        write_whole(self.path / FILE, json.dumps(self.facts() | facts, indent=1).encode())


def committed(study: Path) -> int:
    """How many rounds of the study in a folder are committed."""
    try:
        return len(json.loads((study / CHECKPOINTS / "checkpoint.json").read_text("utf-8"))["rounds"])
    except (OSError, ValueError, KeyError):
        return 0


@contextmanager
def locked(folder: StudyFolder) -> Iterator[None]:
    """Keep other processes off the study; the system releases the lock when this process ends, however it ends.

    Raises:
        StudyBusy: another process has it.
    """
    with (folder.path / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyBusy(
                f"another process works on {folder.name}; wait for it, end it, or start a new study with resume=never"
            ) from None
        yield
