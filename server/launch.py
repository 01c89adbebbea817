"""A study as a person in a terminal sees it: on this machine, or on a server that it is handed to.

Tested in ``tests/federation/test_whole_study.py`` and ``tests/server/test_launch.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from conf import load as conf
from conf.schema.runtime import SuperlinkRuntime
from conf.schema.study import Study
from server import simulation
from server.errors import StudyError
from server.pages import writing
from server.results import results
from server.results.average import on_average
from server.results.console import tables
from server.results.results import Results
from server.results.verdicts import verdicts
from server.rounds.state import RoundRecord
from server.run_study import initial_state, summary
from server.runtime.workers import LoadApp
from server.simulation import EndedStudy, Hospitals, Listener, ProvisionHospitals
from server.study import foresight
from server.study.document import document_of, fixed_peers, fixed_sizes, open_study
from server.study.folder import StudyFolder, locked
from tasks import task as tasks
from tasks.machine.disk import write_whole
from tasks.protocol.study import canonical, digest, read


def named(study: Study) -> Study:
    """The study whose name ``resume`` gives, as it was configured when it began; otherwise the one that is configured.

    Raises:
        StudyError: there is none of that name, or it has finished.
    """
    if study.resume in ("auto", "never"):
        return study
    path = f"studies/{study.resume}/study.json"
    if isinstance(study.runtime, SuperlinkRuntime):
        from server.deployment import superlink_client

        facts, where = superlink_client.ServerConnection(study.runtime).facts(path), study.runtime.address
    else:
        file = Path(study.output_dir) / path
        facts, where = json.loads(file.read_text("utf-8")) if file.exists() else {}, str(file.parents[1])
    if not facts:
        raise StudyError(f"resume={study.resume}: there is no such study at {where}")
    if facts.get("finished"):
        raise StudyError(f"resume={study.resume}: that study has finished; its results are at {where}, in {path[:-11]}")
    return replace(
        conf.from_plain(facts["config"]),
        runtime=study.runtime,
        tracking=study.tracking,
        report=study.report,
        output_dir=study.output_dir,
        resume="auto",
        propose="",
    )


def run_study(
    study: Study, provision: ProvisionHospitals, load_app: LoadApp, console: Console, words: Sequence[str] = ()
) -> Results:
    """Play a study on this machine and show what it found.

    Raises:
        ConfigError, StudyError: as ``server.simulation.play``.
    """
    with Bars(console) as bars:
        ended = simulation.play(study, provision, load_app, bars, words)
    _show(console, study, ended)
    return ended.results


def run_deployed(study: Study, runtime: SuperlinkRuntime, console: Console) -> EndedStudy | None:
    """Hand the study to a server, follow it, fetch and show what it found: that, unless it was only proposed or is not
    followed. Ctrl-C leaves it to itself.

    Raises:
        ConfigError: there is no such task or network; nothing was done.
        StudyError: with what, where, why and the remedy.
    """
    from server.deployment import superlink_client  # a study on this machine need not wait for its libraries

    if study.propose:
        initial_state(study)
        run = superlink_client.submit(study, runtime)
        text = superlink_client.document(superlink_client.ServerConnection(runtime), run)
        write_whole(Path(study.propose), text)
        console.print(foresight.table(read(text.decode())))
        console.print(f"wrote {study.propose}; hospitals read it with `consilium-site review FILE`.", soft_wrap=True)
        return None
    handed = hand_over(study, runtime, lambda text: console.print(text, markup=False))
    console.print(f"[bold]{handed.name}[/] is on {runtime.address}: {tasks.get(study.task.name).question}")
    if not runtime.follow:
        console.print("The same command without runtime.follow=false follows it.")
        return None
    with Bars(console) as bars:
        try:
            ended = handed.follow(bars)
        except KeyboardInterrupt:
            console.print("[bold]Left.[/] The study goes on at the server; the same command follows it again.")
            raise SystemExit(130) from None
    _show(console, study, ended)
    return ended


@dataclass(frozen=True)
class HandedOver:
    """A study that a server runs."""

    name: str
    study: Study
    runtime: SuperlinkRuntime

    def follow(self, listener: Listener) -> EndedStudy:
        """Wait until it has ended, and fetch what it found.

        Raises:
            StudyError: it failed, was stopped, or the server cannot be asked.
        """
        from server.deployment import superlink_client

        door = superlink_client.ServerConnection(self.runtime)

        def told(known: list[RoundRecord]) -> None:
            listener.advance("federated", len(known), self.study.federation.rounds, summary(known[-1]))

        superlink_client.follow(door, self.name, told)
        return fetched(self.study, self.runtime, self.name)


def fetched(study: Study, runtime: SuperlinkRuntime, name: str) -> EndedStudy:
    """What a study has found that has ended on a server, its files brought here.

    Raises:
        StudyError: there is no such study there, it has not finished, or the server cannot be asked.
    """
    from server.deployment import superlink_client

    door = superlink_client.ServerConnection(runtime)
    facts = superlink_client.finished(door, name)
    folder = Path(study.output_dir).resolve() / "studies" / name
    superlink_client.fetch(door, name, facts["files"], folder)
    links = [line.replace(": /", f": https://{runtime.address}/", 1) for line in facts.get("links", [])]
    return EndedStudy(results.read(folder / writing.NUMBERS), folder, links)


def hand_over(study: Study, runtime: SuperlinkRuntime, tell: Callable[[str], None]) -> HandedOver:
    """Give a study to a server; one that it knows already goes on there.

    Args:
        tell: what the study waits for, until it has a name.

    Raises:
        ConfigError: there is no such task or network; nothing was done.
        StudyError: the server cannot be asked, or refuses it.
    """
    from server.deployment import superlink_client

    initial_state(study)
    run = superlink_client.submit(study, runtime)
    name = superlink_client.name_of(superlink_client.ServerConnection(runtime), run, tell=tell)
    return HandedOver(name, study, runtime)


def propose(study: Study, provision: ProvisionHospitals, console: Console) -> None:
    """Write the study's document for the hospitals; the same command without ``propose`` later runs that very study.

    The document has the hospitals' sizes, so they are provisioned for it.

    Raises:
        ConfigError, StudyError: as ``run_study``.
    """
    initial_state(study)
    folder = open_study(study)
    with locked(folder), Bars(console) as bars:
        hospitals = provision(study, folder.path, bars.advance)
        sizes, peers = fixed_sizes(folder, hospitals.public_sizes), fixed_peers(folder, hospitals.peers)
    document = document_of(study, folder.name, sizes, peers=peers)
    write_whole(Path(study.propose), (canonical(document) + "\n").encode())
    console.print(foresight.table(document))
    console.print(f"{document.name}: wrote {study.propose}, digest {digest(document)}", soft_wrap=True)
    console.print("Hospitals read it with `consilium-site review FILE`. The same command without propose runs it.")


def _show(console: Console, study: Study, ended: EndedStudy) -> None:
    """What a study has found, wherever it ran."""
    console.print(tables(ended.results, study))
    for warning in ended.results.warnings:
        console.print(f"[yellow]Warning:[/] {escape(warning)}")
    for sentence in (*verdicts(ended.results.gains), *on_average(ended.results.gains)):
        console.print(escape(sentence))
    seconds, report = ended.results.seconds, ended.folder / writing.REPORT
    console.print(f"Rounds took {seconds:.1f} s. Report: {report}", soft_wrap=True)
    for line in ended.links:
        console.print(line, soft_wrap=True, markup=False)


class Bars:
    """A ``Listener`` with progress bars by label; a bar appears when its label is first mentioned."""

    def __init__(self, console: Console) -> None:
        columns: list[Any] = [
            TextColumn("{task.description:<22}"),
            BarColumn(28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        self._console, self._progress = console, Progress(*columns, console=console)
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars:  # otherwise it would draw a blank line above an error
            self._progress.stop()

    def begun(self, study: Study, folder: StudyFolder, hospitals: Hospitals) -> None:
        """Show whose study begins or goes on."""
        if folder.resumed:
            self._console.print(f"Going on with {folder.name}.")
        self._console.print(f"[bold]{folder.name}[/]: {tasks.get(study.task.name).question}")
        for note in hospitals.notes:
            self._console.print(f"[yellow]Note:[/] {escape(note)}")
        for name, size in hospitals.sizes.items():
            patients = f"{size['train']} patients to train on, {size['validation']} to validate with"
            self._console.print(f"  {name}: {patients}")
            for warning in hospitals.warnings.get(name, []):
                self.warn(f"    {warning}")

    def warn(self, text: str) -> None:
        """Show a text from elsewhere as it is: brackets in it are no markup."""
        self._console.print(text, style="yellow", markup=False)

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` are done."""
        self._progress.start()
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(label, total=total, note=note)
        self._progress.update(self._bars[label], completed=done, total=total, note=note)
