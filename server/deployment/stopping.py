"""Who may stop a study on the server, and how that comes to pass.

A person sends a signed text as for a study, which names what is to be stopped; ``superexec`` carries it out. The
SuperLink's own call that stops a run knows no names, and nobody reaches it through the reverse proxy. On the server
itself, ``consilium-server stop`` needs no SuperLink.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from server.deployment.people import Person
from server.deployment.queue import Queue, note_run, run_facts
from server.deployment.server_dir import ServerDir
from server.errors import NotAllowed, StudyError
from server.runtime.flower_private import Control, ControlRefused
from server.study import stopped
from server.study.folder import FAILED, FILE, FINISHED, StudyFolder

HERE = Person("the coordinator", "coordinator")
"""Whoever has the account of the server on its machine."""
_RUN = re.compile(r"[0-9]{1,20}")
_STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")


def text(wanted: str) -> dict[str, object]:
    """What is signed to stop a study, or a run that waits in the queue, by its number."""
    return {"stop": wanted}


def is_asked(study: Mapping[str, Any]) -> bool:
    """Whether a text asks to stop something, instead of being a study."""
    return "stop" in study


def answer(server_dir: ServerDir, control: Control, study: Mapping[str, Any], who: Person | None) -> dict[str, str]:
    """Do what a signed text asks. Returns what its run's file tells the person."""
    try:
        if who is None:
            raise NotAllowed("a server stops nothing by itself")
        return {"stopped": stop(server_dir, control, str(study["stop"]), who)}
    except (StudyError, OSError) as error:
        return {"state": FAILED, "error": str(error)}


def stop(server_dir: ServerDir, control: Control, wanted: str, who: Person) -> str:
    """End a study for good, or a submission that waits: hospitals are told nothing more of it, and nothing resumes it.
    Returns the study's name, or ``run N``. What has stopped before stays as it is.

    Raises:
        NotAllowed: it is somebody else's.
        StudyError: there is no such study, or it is finished.
    """
    run, facts = wanted, dict[str, Any]()
    while _RUN.fullmatch(run) and "again" in (facts := run_facts(server_dir, int(run))):
        run = str(facts["again"])
    if "study" not in facts and _RUN.fullmatch(run):
        return _stop_waiting(server_dir, control, int(run), who)
    return _stop_study(server_dir, control, folder_of(server_dir, str(facts.get("study", wanted))), who)


def _stop_waiting(server_dir: ServerDir, control: Control, run: int, who: Person) -> str:
    queue = Queue(server_dir)
    waiting = queue.waiting().get(run)
    if waiting is None:
        raise StudyError(f"no submission waits as run {run}; the queue shows those that do")
    who.require_own(f"run {run}", waiting.by)
    note_run(server_dir, run, state=FAILED, error=f"It was stopped by {who.name} while it waited in the queue.")
    queue.drop(run)
    with suppress(ControlRefused):
        control.stop(run)
    return f"run {run}"


def _stop_study(server_dir: ServerDir, control: Control, folder: StudyFolder, who: Person) -> str:
    facts = folder.facts()
    who.require_own(folder.name, facts.get("asked_by"))
    if facts.get("state") == FINISHED:
        raise StudyError(f"{folder.name} is finished; there is nothing to stop")
    stopped.mark(folder, who.name)
    end(control, folder)
    return folder.name


def end(control: Control, folder: StudyFolder) -> bool:
    """End a stopped study's run, if the SuperLink answers, and close its books, if nobody works on it any more. Returns
    whether that is done."""
    with suppress(ControlRefused):
        control.stop(int(folder.facts().get("run", 0)))
    return stopped.settle(folder)


def folder_of(server_dir: ServerDir, name: str) -> StudyFolder:
    """The folder of a study.

    Raises:
        StudyError: there is none of that name.
    """
    folder = StudyFolder(name, Path(server_dir.path / "studies" / name), resumed=True)
    if not _STUDY.fullmatch(name) or not (folder.path / FILE).exists():
        raise StudyError(f"there is no study {name[:120]!r} on this server; consilium-server status lists all")
    return folder
