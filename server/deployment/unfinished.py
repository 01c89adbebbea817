"""The studies that should be running. Their files are looked at every two seconds, and read when they have changed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from server.deployment.server_dir import ServerDir
from server.errors import CheckpointDamaged
from server.study import stopped
from server.study.folder import FILE, RUNNING, StudyFolder

_Stamp = tuple[int, int, int]


class UnfinishedStudies:
    """What ``study.json`` says of every study that should be running, by name. One that cannot be read costs the others
    nothing.

    Whoever writes such a file replaces it, so another file, time or size tells that it says something new.
    """

    def __init__(self, server_dir: ServerDir) -> None:
        self._studies = server_dir.path / "studies"
        self._known: dict[Path, tuple[_Stamp, dict[str, Any]]] = {}

    def __call__(self) -> dict[str, dict[str, Any]]:
        known, self._known = self._known, {}
        for path in sorted(self._studies.glob(f"*/{FILE}")):
            with suppress(CheckpointDamaged, OSError):
                stamp = _stamp(path)  # first: what is written while it is read is read again
                before = known.get(path)
                facts = before[1] if before is not None and before[0] == stamp else _going_on(path.parent)
                self._known[path] = (stamp, facts)
        return {
            path.parent.name: facts
            for path, (_, facts) in self._known.items()
            if facts and not stopped.is_stopped(path.parent)
        }


def _stamp(path: Path) -> _Stamp:
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size


def _going_on(study: Path) -> dict[str, Any]:
    """What ``study.json`` says; nothing of a study that does not run, so that thousands of them take no memory."""
    facts = StudyFolder(study.name, study, resumed=True).facts()
    return facts if facts.get("state") == RUNNING and isinstance(facts["config"], dict) else {}
