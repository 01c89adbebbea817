"""The coordinator's page, on loopback behind the fence: every section by itself, so that one that fails hides no "
"other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.deployment import backup_series, pki, queue
from server.deployment.overview import overview, queued
from server.deployment.server_dir import ServerDir, read
from server.deployment.study_logs import file_of, runs_of
from server.errors import CheckpointDamaged, StudyError
from server.study.folder import StudyFolder
from tasks.machine.dashboard import Markup, command, mark, page, problem, table
from tasks.machine.exposition import shortened

_MOST_STUDIES, _MOST_LOGS, _LINES, _PIECE = 30, 3, 12, 8192
_COLOURS = {"running": "ok", "finished": "ok", "failed": "fail", "damaged": "fail", "stopped": "warn", "online": "ok",
            "offline": "fail"}  # fmt: skip


@dataclass(frozen=True)
class ServerPage:
    """Makes the page."""

    home: Path

    def __call__(self) -> str:
        """The page as HTML."""
        told: list[str] = []
        try:
            server_dir = read(self.home)
            facts = overview(server_dir, told.append)
        except (StudyError, OSError) as error:
            return page("Consilium", [], [("This server", problem(str(error)))])
        lead: list[object] = [
            mark("ok", "The server is running") if facts["up"] else mark("fail", "The server is not running"),
            *(mark("warn", shortened(text)) for text in told),
        ]
        sections = [
            ("Studies", lambda: _studies(facts["studies"])),
            ("Queue", lambda: _queue(server_dir)),
            ("Hospitals", lambda: _hospitals(facts["hospitals"])),
            ("Health", lambda: _health(server_dir, facts)),
            ("People", lambda: _people(facts["people"])),
            ("What studies printed last", lambda: _logs(server_dir, facts["studies"])),
        ]
        title = f"{server_dir.settings.host}: overview"
        return page(title, lead, [(heading, _told(section)) for heading, section in sections])


def _told(section: Callable[[], str]) -> str:
    try:
        return section()
    except (StudyError, OSError) as error:
        return problem(str(error))


def _state(text: object) -> Markup:
    return mark(_COLOURS.get(str(text), "soft"), shortened(str(text)))


def _studies(studies: Mapping[str, Mapping[str, Any]]) -> str:
    """Those that run first, then the rest by name, the last ones first."""
    ordered = sorted(studies.items(), key=lambda each: each[1]["state"] == "running")[::-1][:_MOST_STUDIES]
    rows = [
        (
            shortened(name),
            _state(one["state"]),
            _progress(one),
            shortened(str(one["asked_by"])),
            shortened(str(one["error"])) or "",
        )
        for name, one in ordered
    ]
    return table(("study", "state", "rounds", "asked by", "error"), rows, "Nobody has asked for a study.")


def _progress(one: Mapping[str, Any]) -> Markup:
    done, of = one["committed"], one["rounds"]
    with suppress(TypeError, ValueError):
        most = max(1, int(of))
        return Markup(f"{int(done)} of {most} <progress max={most} value={min(int(done), most)}></progress>")
    return Markup(f"{int(done)}")


def _queue(server_dir: ServerDir) -> str:
    facts = queued(server_dir)
    rows = [tuple(map(shortened, row)) for row in queue.shown(facts)]
    places = f"<p class=soft>{int(server_dir.settings.studies_at_once)} studies at once.</p>"
    return places + table(("place", "study", "task", "asked by", "since"), rows, "Nothing runs, and nothing waits.")


def _hospitals(hospitals: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            name,
            _state(one["state"]),
            str(one["admitted"])[:10],
            one["public_size"] or "not declared",
            command(one["key"]),
        )
        for name, one in hospitals.items()
    ]
    return table(("hospital", "state", "admitted", "public size", "key"), rows, "No hospital has been admitted.")


def _health(server_dir: ServerDir, facts: Mapping[str, Any]) -> str:
    rows: list[tuple[object, object]] = []
    for name, one in facts["programs"].items():
        well = bool(one.get("well"))
        rows.append(
            (name, mark("ok" if well else "fail", f"{'well' if well else 'not well'}, {one.get('starts')} starts"))
        )
    days = facts["certificate_days"]
    rows.append(("certificate", mark("warn" if days < pki.WARN_DAYS else "ok", f"{days} days left")))
    rows.append(("backup", _backup(server_dir)))
    told = server_dir.settings.notify.whom()
    rows.append(("told of what waits", told or mark("warn", "nobody: set notify in server.yaml")))
    return table(("what", "state"), rows, "")


def _backup(server_dir: ServerDir) -> Markup:
    attempt = backup_series.last(server_dir)
    if why := attempt.problem(time.time()):
        return mark("fail", shortened(why))
    if not attempt.newest:
        return mark("warn", "none was made by consilium-server backup --keep")
    return mark("ok", f"the newest is of {datetime.fromtimestamp(attempt.newest, UTC):%Y-%m-%d %H:%M} UTC")


def _people(people: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [(name, one["role"], f"{one['days']} days") for name, one in people.items()]
    return table(("person", "role", "certificate"), rows, "Nobody has a certificate.")


def _logs(server_dir: ServerDir, studies: Mapping[str, Mapping[str, Any]]) -> str:
    """The last lines of the newest logs of studies' runs."""
    found: list[tuple[float, str, Path]] = []
    for name in studies:
        with suppress(CheckpointDamaged, OSError, IndexError):
            folder = StudyFolder(name, server_dir.path / "studies" / name, resumed=True)
            log = server_dir.logs / file_of(runs_of(folder.facts())[-1])
            found.append((log.stat().st_mtime, name, log))
    shown = [
        f"<p><b>{mark('soft', shortened(name))}</b> {command(f'consilium-server logs {shortened(name)}')}</p>"
        f"<pre>{mark('soft', last_lines(log))}</pre>"
        for _, name, log in sorted(found)[::-1][:_MOST_LOGS]
    ]
    return "".join(shown) or "<p class=soft>No study has printed anything here.</p>"


def last_lines(log: Path) -> str:
    """The end of a log as far as a page can show it: parts of it come from others."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _PIECE))
        lines = file.read(_PIECE).decode("utf-8", "replace").splitlines()[-_LINES:]
    return "\n".join("".join(c for c in line if c.isprintable() or c == "\t") for line in lines)
