"""A study on the server: stopped for good, and what its processes have printed."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console

from server.cli.output import HERE, AsJson, HomeFolder, answer, table
from server.deployment import stopping, study_logs
from server.deployment.server_dir import read
from server.errors import StudyError
from server.runtime.flower_private import Control
from server.study import stopped
from server.study.folder import STOPPED, StudyFolder

_END_S = 60.0
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="Its name, or the number of a run in the queue.")]


def stop(study: StudyName, home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Stop a study for good, also while the server is down, and show what it has spent.

    Hospitals are told nothing more of it, and nothing resumes it.
    """
    server_dir = read(home)
    name = stopping.stop(server_dir, Control(server_dir.superlink, server_dir.authority), study, stopping.HERE)
    if name.startswith("run "):
        answer(as_json, {"stopped": name}, f"{name} no longer waits.")
        return
    folder, ends = StudyFolder(name, server_dir.path / "studies" / name, resumed=True), time.monotonic() + _END_S
    while not (done := stopped.settle(folder)) and time.monotonic() < ends:
        time.sleep(0.2)
    if not done:
        raise StudyError(f"{name} is stopped, but its process has not ended within {_END_S:g} s; see {server_dir.logs}")
    facts = folder.facts()
    if facts.get("state") != STOPPED:
        raise StudyError(f"{name} finished before it could be stopped")
    spent = facts.get("spent", {})
    answer(
        as_json,
        {"stopped": name, "spent": spent},
        f"{name} was stopped by {facts['stopped']['by']} for good.",
        table("Epsilon spent, as reported", ("", "training patients", "validation patients"), stopped.rows(spent)),
        stopped.UNREPORTED,
    )


def logs(
    study: StudyName,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the study has ended.")] = False,
    home: HomeFolder = HERE,
) -> None:
    """Print what a study's processes have printed."""
    server_dir = read(home)
    console = Console(highlight=False)
    for line in study_logs.lines(study_logs.Here(server_dir, stopping.folder_of(server_dir, study)), follow):
        console.print(line, soft_wrap=True, markup=False)
