"""The state of a server as facts: for ``consilium-server status`` and for the coordinator's page.

Tested in ``tests/server/cli/test_people.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from server.deployment import pki, queue
from server.deployment.people import everybody
from server.deployment.server_dir import ServerDir
from server.errors import CheckpointDamaged
from server.runtime.flower_private import Control, ControlRefused
from server.study.folder import StudyFolder, committed
from tasks.machine.supervision import holder

Tell = Callable[[str], object]


def overview(server_dir: ServerDir, tell: Tell) -> dict[str, Any]:
    """Whether it is up, programs, days of the certificate, hospitals, people and studies, each by name.

    Args:
        tell: gets a sentence where the SuperLink does not answer; then states of hospitals are unknown.
    """
    is_up = holder(server_dir.lock) is not None
    try:
        programs = json.loads(server_dir.state.read_text("utf-8")) if is_up else {}
    except (OSError, ValueError):
        programs = {}
    states = _states(server_dir, tell) if is_up else {}
    hospitals = {
        name: {
            "state": states.get(one.node, "unknown"),
            "admitted": one.admitted,
            "key": one.key,
            "public_size": one.public_size,
        }
        for name, one in server_dir.hospitals().items()
    }
    people = {one.name: {"role": one.role, "days": round(days)} for one, days in everybody(server_dir)}
    return {
        "up": is_up,
        "programs": programs,
        "certificate_days": round(pki.days_left(server_dir)),
        "hospitals": hospitals,
        "people": people,
        "studies": dict(_studies(server_dir)),
    }


def queued(server_dir: ServerDir) -> dict[str, Any]:
    """What runs and what waits, as the program that plays studies has written it last."""
    try:
        facts: dict[str, Any] = json.loads((server_dir.runs / queue.SHOWN).read_text("utf-8"))
        return facts
    except (OSError, ValueError):
        return {"at_once": server_dir.settings.studies_at_once, "running": [], "waiting": []}


def _states(server_dir: ServerDir, tell: Tell) -> dict[int, str]:
    try:
        return Control(server_dir.superlink, server_dir.authority).nodes()
    except ControlRefused as error:
        tell(f"The SuperLink does not answer: {error}")
        return {}


def _studies(server_dir: ServerDir) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((server_dir.path / "studies").glob("*/study.json")):
        try:
            facts = StudyFolder(path.parent.name, path.parent, resumed=True).facts()
        except CheckpointDamaged as error:
            damaged = {
                "asked_by": "",
                "state": "damaged",
                "committed": committed(path.parent),
                "rounds": "?",
                "run": None,
            }
            yield path.parent.name, damaged | {"error": str(error)}
            continue
        yield (
            facts["study"],
            {
                "asked_by": facts.get("asked_by") or "",
                "state": facts.get("state", "unknown"),
                "committed": committed(path.parent),
                "rounds": facts["config"]["federation"]["rounds"],
                "run": facts.get("run"),
                "error": facts.get("error", ""),
            },
        )
