"""A survey as a person in a terminal sees it: of hospitals that are played on this machine, or on a server.

Tested in ``tests/federation/test_survey.py``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from conf.schema.runtime import SuperlinkRuntime
from conf.schema.study import Study
from server.launch import Bars, hand_over
from server.results import survey
from server.results.survey import SurveyResults
from server.run_survey import NUMBERS, REPORT, ask, document_in, record
from server.runtime.local_grid import LocalGrid
from server.runtime.workers import LoadApp
from server.simulation import ProvisionHospitals
from server.study.document import open_study
from server.study.folder import locked
from server.study.survey import survey_of
from server.tracking.tracker import open_tracker
from tasks import task as tasks
from tasks.machine.disk import write_whole
from tasks.protocol.survey import canonical, digest

_READ = "with `consilium-site review FILE`"


def run_survey(study: Study, provision: ProvisionHospitals, load_app: LoadApp, console: Console) -> SurveyResults:
    """Ask the hospitals of this machine, record, show.

    Raises:
        ConfigError: there is no such task or attribute; nothing was done.
        StudyError: with what, where, why and the remedy.
    """
    survey_of(study, "survey")
    folder = open_study(study)
    with locked(folder), Bars(console) as bars:
        # No arm is compared with anything, so nobody plays one.
        alone = replace(study, evaluation=replace(study.evaluation, arms=[], repeats=1))
        hospitals = provision(alone, folder.path, bars.advance)
        bars.begun(study, folder, hospitals)
        names = list(hospitals.federated)
        tracker = open_tracker(study, folder, names, hospitals.notes, bars.warn)
        with LocalGrid(hospitals.federated, load_app, study.runtime.workers) as grid:
            answers = ask(
                study, folder, grid.nodes, grid, answered=lambda done: bars.advance("survey", done, len(names))
            )
        found = record(study, folder, answers, hospitals.notes, tracker)
        folder.note(finished=True)
    _show(console, folder.path, found, tracker.where())
    return found


def propose_survey(study: Study, console: Console) -> None:
    """Write the survey's document for the hospitals; the same command without ``propose`` later asks that very survey.

    Raises:
        ConfigError: there is no such task or attribute.
        StudyError: the folder cannot be used.
    """
    survey_of(study, "survey")
    document = document_in(study, open_study(study))
    write_whole(Path(study.propose), (canonical(document) + "\n").encode())
    console.print(f"{document.name}: wrote {study.propose}, digest {digest(document)}", soft_wrap=True)
    console.print(f"Hospitals read it {_READ}. The same command without propose asks them.", soft_wrap=True)


def run_deployed_survey(study: Study, runtime: SuperlinkRuntime, console: Console) -> None:
    """Hand the survey to a server, follow it, fetch and show what it found. Ctrl-C leaves it to itself.

    Raises:
        ConfigError, StudyError: as ``run_survey``.
    """
    from server.deployment import superlink_client  # a survey on this machine need not wait for its libraries

    survey_of(study, "survey")
    door = superlink_client.ServerConnection(runtime)
    if study.propose:
        text = superlink_client.document(door, superlink_client.submit(study, runtime))
        write_whole(Path(study.propose), text)
        console.print(f"wrote {study.propose}; hospitals read it {_READ}.", soft_wrap=True)
        return
    name = hand_over(study, runtime, lambda line: console.print(line, markup=False)).name
    console.print(f"[bold]{name}[/] is on {runtime.address}: {tasks.get(study.task.name).question}")
    if not runtime.follow:
        console.print("The same command without runtime.follow=false follows it.")
        return
    try:
        facts = superlink_client.follow(door, name, lambda rounds: None)
    except KeyboardInterrupt:
        console.print("[bold]Left.[/] The survey goes on at the server; the same command follows it again.")
        raise SystemExit(130) from None
    folder = Path(study.output_dir).resolve() / "studies" / name
    superlink_client.fetch(door, name, facts["files"], folder)
    links = [line.replace(": /", f": https://{runtime.address}/", 1) for line in facts.get("links", [])]
    _show(console, folder, survey.read(folder / NUMBERS), links)


def _show(console: Console, folder: Path, found: SurveyResults, links: list[str]) -> None:
    for table in survey.shown_tables(found):
        console.print(table)
    console.print(survey.CUT)
    for name, why in found.silent.items():
        console.print(f"Without {name}: {why}", style="yellow", markup=False)
    spent = max((epsilon for epsilon in found.epsilons.values() if epsilon is not None), default=0.0)
    console.print(f"Each patient has spent at most epsilon {spent:.2f}. Page: {folder / REPORT}", soft_wrap=True)
    for line in links:
        console.print(line, soft_wrap=True, markup=False)
