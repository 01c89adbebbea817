"""Studies that were submitted and have no folder yet: on disk, so that none is lost with a process or a database.

A submission gets its file when it is accepted, and loses it once its study has a folder or an error that its researcher
can read. ``runs/queue.json`` says in which order the others wait; researchers can read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.deployment.server_dir import ServerDir
from server.study.folder import NOT_COMPUTED
from tasks.machine.disk import write_whole

SHOWN = "queue.json"
_LONGEST, _DEEPEST = 80, 40


@dataclass(frozen=True)
class Submission:
    """A study that somebody has asked for.

    Attributes:
        run: the SuperLink's number of its run.
        study: its configuration.
        by: who asks; ``None`` where the server resumes a study.
        at: when it was submitted, in seconds since 1970.
        births: how often a process was started for it.
        last: when the last one was.
    """

    run: int
    study: dict[str, Any]
    by: str | None
    at: float
    births: int = 0
    last: float = 0.0

    @property
    def proposes(self) -> bool:
        """Whether it only wants a document, which takes seconds."""
        return bool(self.study.get("propose"))


class Queue:
    """The submissions without a folder."""

    def __init__(self, server_dir: ServerDir) -> None:
        self._home = server_dir
        self._shown = ""

    def waiting(self) -> dict[int, Submission]:
        """All of them, by run. A file that holds none is set aside."""
        found = {}
        for path in self._home.queue.glob("*.json"):
            try:
                one = Submission(**json.loads(path.read_text("utf-8")))
                found[one.run] = one
            except (OSError, ValueError, TypeError):
                with suppress(OSError):
                    path.rename(path.with_suffix(".unreadable"))
        return found

    def put(self, one: Submission) -> None:
        """Keep a submission.

        Raises:
            OSError: there is no room.
        """
        self._home.queue.mkdir(mode=0o700, exist_ok=True)
        write_whole(self._home.queue / f"{one.run}.json", json.dumps(asdict(one)).encode(), mode=0o600)

    def drop(self, run: int) -> None:
        """Forget one that has a folder, or an error."""
        (self._home.queue / f"{run}.json").unlink(missing_ok=True)

    def moved(self, one: Submission, run: int) -> Submission:
        """Keep it under the run with which it was submitted again; who follows the old one finds the new one.

        Raises:
            OSError: there is no room.
        """
        again = replace(one, run=run)
        self.put(again)
        note_run(self._home, one.run, again=run)
        self.drop(one.run)
        return again

    def show(self, waiting: Sequence[Submission], studies: Mapping[int, str], running: Sequence[str]) -> None:
        """Write the order for people, if it has changed.

        Args:
            waiting: in the order in which they will be started.
            studies: names of those that are resumed, by run.
            running: names of the studies that run.
        """
        facts = {
            "at_once": self._home.settings.studies_at_once,
            "running": list(running),
            "waiting": [_told(one, studies.get(one.run, "")) for one in waiting],
        }
        text = json.dumps(facts, indent=1)
        if text != self._shown:
            write_whole(self._home.runs / SHOWN, text.encode())
            self._shown = text


def _told(one: Submission, study: str) -> dict[str, object]:
    return {
        "run": one.run,
        "study": study,
        "task": _short(str(as_group(one.study.get("task")).get("name", ""))),
        "by": one.by or "",
        "since": datetime.fromtimestamp(one.at, UTC).isoformat(timespec="seconds"),
    }


def _short(text: str) -> str:
    """A researcher's text as far as a terminal can show it."""
    return "".join(c for c in text[:_LONGEST] if c.isprintable())


def refuse_deep(study: Mapping[str, Any]) -> None:
    """Refuse a text that is nested deeper than any configuration: functions that call themselves would fail on it.

    Raises:
        ValueError
    """
    level: list[Any] = [study]
    for _ in range(_DEEPEST):
        level = [
            below
            for one in level
            if isinstance(one, dict | list)
            for below in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {_DEEPEST} levels")


def as_group(value: object) -> Mapping[str, object]:
    """A group of settings in a text that was not checked yet."""
    return value if isinstance(value, dict) else {}


def shown(facts: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """The rows of a table: place, study or run, task, who asked, since when."""
    rows = [("runs", name, "", "", "") for name in facts.get("running", [])]
    return rows + [
        (str(number), one["study"] or f"run {one['run']}", one["task"], one["by"], one["since"])
        for number, one in enumerate(facts.get("waiting", []), 1)
    ]


def twin_of(running: Mapping[str, Mapping[str, Any]], one: Submission) -> str | None:
    """The name of a running study of the same configuration: whoever submits it again follows that one.

    Args:
        running: what ``study.json`` says of each.
    """
    if one.proposes or one.study.get("resume") != "auto":
        return None
    wanted = _computed(one.study)
    for name, facts in running.items():
        if _computed(facts["config"]) == wanted and facts["config"].get("experiment") == one.study.get("experiment"):
            return name
    return None


def _computed(study: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in study.items() if key not in NOT_COMPUTED}


def note_run(server_dir: ServerDir, run: int, **facts: object) -> None:
    """Tell researchers what became of a run.

    Raises:
        OSError: there is no room.
    """
    write_whole(server_dir.runs / f"{run}.json", json.dumps(facts).encode())


def run_facts(server_dir: ServerDir, run: int) -> dict[str, Any]:
    """What is known of a run: the study that it runs, the run that replaced it, or why it runs none."""
    try:
        facts: dict[str, Any] = json.loads(Path(server_dir.runs / f"{run}.json").read_text("utf-8"))
        return facts if isinstance(facts, dict) else {}
    except (OSError, ValueError):
        return {}
