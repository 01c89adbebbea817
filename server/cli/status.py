"""The state of the server: programs, hospitals, people and studies, and the queue.

Tested in ``tests/server/cli/test_people.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from server.cli.output import DOWN, HERE, AsJson, HomeFolder, answer, fail, table
from server.deployment import pki, queue
from server.deployment.people import everybody
from server.deployment.server_dir import ServerDir, read
from server.errors import CheckpointDamaged
from server.runtime.flower_private import Control, ControlRefused
from server.study.folder import StudyFolder, committed
from tasks.machine.supervision import holder


def status(home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Show server health, connected hospitals and study progress. Exit code 3 if it is not running or not healthy."""
    server_dir = read(home)
    facts = _facts(server_dir)
    shown = [
        table("Programs", ("", "process", "healthy", "starts"), [
            (name, p["pid"] or "-", "yes" if p["well"] else "no", p["starts"]) for name, p in facts["programs"].items()
        ]),
        table("Hospitals", ("", "state", "admitted", "size", "key"), [
            (name, h["state"], h["admitted"], h["public_size"] or "-", h["key"])
            for name, h in facts["hospitals"].items()
        ]),
        table("People", ("", "role", "certificate"), [
            (name, p["role"], f"{p['days']} days") for name, p in facts["people"].items()
        ]),
        table("Studies", ("", "asked by", "state", "rounds", "error"), [
            (name, s["asked_by"], s["state"], f"{s['committed']} of {s['rounds']}", s["error"])
            for name, s in facts["studies"].items()
        ]),
    ]  # fmt: skip
    if facts["certificate_days"] < pki.WARN_DAYS:
        days = facts["certificate_days"]
        shown.append(table(f"The certificate has {days} days left: consilium-server renew", (), []))
    answer(as_json, facts, *shown)
    if not facts["up"] or not all(program["well"] for program in facts["programs"].values()):
        fail(DOWN)


def waiting(home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Show which studies run, and in which order the others wait."""
    server_dir = read(home)
    is_up = holder(server_dir.lock) is not None
    try:
        facts = json.loads((server_dir.runs / queue.SHOWN).read_text("utf-8"))
    except (OSError, ValueError):
        facts = {"at_once": server_dir.settings.studies_at_once, "running": [], "waiting": []}
    lines = [] if is_up else ["The server is not running. This is how it was; all go on when it runs again."]
    shown = table(
        f"Studies, {facts['at_once']} at once", ("", "study", "task", "asked by", "since"), queue.shown(facts)
    )
    answer(as_json, facts | {"up": is_up}, shown, *lines)


def _facts(server_dir: ServerDir) -> dict[str, Any]:
    is_up = holder(server_dir.lock) is not None
    try:
        programs = json.loads(server_dir.state.read_text("utf-8")) if is_up else {}
    except (OSError, ValueError):
        programs = {}
    states = _states(server_dir) if is_up else {}
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


def _states(server_dir: ServerDir) -> dict[int, str]:
    try:
        return Control(server_dir.superlink, server_dir.authority).nodes()
    except ControlRefused as error:
        Console(stderr=True).print(f"The SuperLink does not answer: {error}", markup=False)
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
