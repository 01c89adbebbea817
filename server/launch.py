"""A study from its configuration to its results.

This file does not know the hospitals' code: ``server/__main__.py`` hands in what provisions this machine's hospitals
and what plays them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from conf import load as conf
from conf.schema.runtime import SuperlinkRuntime
from conf.schema.study import Study
from server.errors import StudyError
from server.pages import writing
from server.results import results
from server.results.results import Results
from server.results.verdicts import verdicts
from server.rounds.state import RoundRecord, StudyState
from server.run_study import initial_state, play_rounds, record, shared, summary
from server.runtime.local_grid import LocalGrid
from server.runtime.workers import LoadApp
from server.study import baselines, cross_site_evaluation, foresight
from server.study.baselines import Advance
from server.study.document import document_in, document_of, fixed_peers, fixed_sizes, open_study
from server.study.folder import StudyFolder, locked
from server.study.trust import notes_on_sums
from server.tracking.tracker import Tracker, open_tracker
from tasks import task as tasks
from tasks.machine.disk import write_whole
from tasks.protocol.study import canonical, digest, read


@dataclass(frozen=True)
class Hospitals:
    """The hospitals of this machine.

    Attributes:
        federated: settings file of each hospital that takes part, by name.
        alone: the same hospitals for the comparison arms, and imaginary ones with everybody's patients.
        imaginary: for the arms ``pooled`` and ``shuffled``, the names of their hospitals in ``alone``.
        again: the same hospitals as ``federated``, once for each further training of ``evaluation.repeats``.
        public_sizes: what each hospital of ``federated`` declares in public, by which its updates count.
        peers: fingerprint of each one's enrolled key, where the study has secure sums.
        sizes: training and validation patients by hospital; only of simulated hospitals does anyone know them.
        warnings: what each hospital's ingest wants a person to look at.
        notes: what must be said beside every result.
        conformance: images that keep the contract and images examined, by hospital; as with sizes.
    """

    federated: dict[str, Path]
    alone: dict[str, Path]
    imaginary: dict[str, list[str]]
    again: list[dict[str, Path]] = field(default_factory=list)
    public_sizes: dict[str, int] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    conformance: dict[str, tuple[int, int]] = field(default_factory=dict)


ProvisionHospitals = Callable[[Study, Path, Advance], Hospitals]


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
        output_dir=study.output_dir,
        resume="auto",
        propose="",
    )


def run_study(
    study: Study, provision: ProvisionHospitals, load_app: LoadApp, console: Console, words: Sequence[str] = ()
) -> Results:
    """Begin or resume the study, play its rounds, compare, record, show.

    Args:
        words: what stood on the command line; the report repeats it.

    Raises:
        ConfigError: there is no such task or network; nothing was done.
        StudyError: with what, where, why and the remedy.
    """
    initial = initial_state(study)
    folder = open_study(study)
    with locked(folder), _Bars(console) as bars:
        folder.note(words=list(words))
        if folder.resumed:
            console.print(f"Going on with {folder.name}.")
        hospitals = provision(study, folder.path, bars.advance)
        sizes = fixed_sizes(folder, hospitals.public_sizes)
        fixed_peers(folder, hospitals.peers)
        _refuse_another_matrix(study, hospitals)
        _introduce(console, study, folder, hospitals)
        tracker = open_tracker(study, folder, list(hospitals.federated), hospitals.notes, partial(_warn, console))
        state = _federated(
            study, folder, hospitals=hospitals, load_app=load_app, initial=initial, tracker=tracker, bars=bars
        )
        arms = _arms(study, folder, sizes=sizes, hospitals=hospitals, load_app=load_app, initial=initial, bars=bars)
        arms = _repeated(
            arms, study, folder, sizes=sizes, hospitals=hospitals, load_app=load_app, initial=initial, bars=bars
        )
        cross_site = _across_sites(
            study, folder, sizes=sizes, hospitals=hospitals, load_app=load_app, state=state, arms=arms
        )
        gates = asdict(study.evaluation.gate)
        sums = document_in(study, folder).secure_sum
        notes = [*hospitals.notes, *notes_on_sums(sums, state.rounds)]
        outcome = results.results(folder.name, state, arms=arms, notes=notes, gates=gates, cross_site=cross_site)
        record(folder, outcome, state, tracker, hospitals.conformance)
        folder.note(finished=True)
    _show(console, study, folder.path, outcome, tracker.where())
    return outcome


def _refuse_another_matrix(study: Study, hospitals: Hospitals) -> None:
    """Every hospital plans its noise for so many models as the study says."""
    asked, there = study.evaluation.matrix, len(hospitals.federated)
    if asked and asked != there:
        raise conf.ConfigError(f"evaluation.matrix={asked}: there are {there} hospitals; set evaluation.matrix={there}")


def run_deployed(study: Study, runtime: SuperlinkRuntime, console: Console) -> None:
    """Hand the study to a server, follow it, fetch and show what it found. Ctrl-C leaves it to itself.

    Raises:
        ConfigError: there is no such task or network; nothing was done.
        StudyError: with what, where, why and the remedy.
    """
    from server.deployment import superlink_client  # a study on this machine need not wait for its libraries

    initial_state(study)
    door = superlink_client.ServerConnection(runtime)
    run = superlink_client.submit(study, runtime)
    if study.propose:
        text = superlink_client.document(door, run)
        write_whole(Path(study.propose), text)
        console.print(foresight.table(read(text.decode())))
        console.print(f"wrote {study.propose}; hospitals read it with `consilium-site review FILE`.", soft_wrap=True)
        return
    name = superlink_client.name_of(door, run, tell=lambda text: console.print(text, markup=False))
    console.print(f"[bold]{name}[/] is on {runtime.address}: {tasks.get(study.task.name).question}")
    if not runtime.follow:
        console.print("The same command without runtime.follow=false follows it.")
        return
    with _Bars(console) as bars:

        def told(known: list[RoundRecord]) -> None:
            bars.advance("federated", len(known), study.federation.rounds, summary(known[-1]))

        try:
            facts = superlink_client.follow(door, name, told)
        except KeyboardInterrupt:
            console.print("[bold]Left.[/] The study goes on at the server; the same command follows it again.")
            raise SystemExit(130) from None
    folder = Path(study.output_dir).resolve() / "studies" / name
    superlink_client.fetch(door, name, facts["files"], folder)
    links = [line.replace(": /", f": https://{runtime.address}/", 1) for line in facts.get("links", [])]
    _show(console, study, folder, results.read(folder / writing.NUMBERS), links)


def propose(study: Study, provision: ProvisionHospitals, console: Console) -> None:
    """Write the study's document for the hospitals; the same command without ``propose`` later runs that very study.

    The document has the hospitals' sizes, so they are provisioned for it.

    Raises:
        ConfigError, StudyError: as ``run_study``.
    """
    initial_state(study)
    folder = open_study(study)
    with locked(folder), _Bars(console) as bars:
        hospitals = provision(study, folder.path, bars.advance)
        sizes, peers = fixed_sizes(folder, hospitals.public_sizes), fixed_peers(folder, hospitals.peers)
    document = document_of(study, folder.name, sizes, peers=peers)
    write_whole(Path(study.propose), (canonical(document) + "\n").encode())
    console.print(foresight.table(document))
    console.print(f"{document.name}: wrote {study.propose}, digest {digest(document)}", soft_wrap=True)
    console.print("Hospitals read it with `consilium-site review FILE`. The same command without propose runs it.")


def _federated(
    study: Study,
    folder: StudyFolder,
    hospitals: Hospitals,
    load_app: LoadApp,
    initial: StudyState,
    tracker: Tracker,
    bars: _Bars,
) -> StudyState:
    def committed(state: StudyState) -> None:
        tracker.rounds(state.rounds)
        bars.advance("federated", len(state.rounds), study.federation.rounds, summary(state.rounds[-1]))

    with LocalGrid(hospitals.federated, load_app, study.runtime.workers) as grid:
        return play_rounds(study, folder, nodes=grid.nodes, grid=grid, initial=initial, committed=committed)


def _arms(
    study: Study,
    folder: StudyFolder,
    sizes: Mapping[str, int],
    hospitals: Hospitals,
    load_app: LoadApp,
    initial: StudyState,
    bars: _Bars,
) -> baselines.Arms:
    with LocalGrid(hospitals.alone, load_app, study.runtime.workers) as grid:
        return baselines.compare(
            study,
            folder.name,
            sizes=sizes,
            folder=folder.path / "arms",
            grid=grid,
            imaginary=hospitals.imaginary,
            initial=initial.weights,
            advance=bars.advance,
        )


def _repeated(
    arms: baselines.Arms,
    study: Study,
    folder: StudyFolder,
    sizes: Mapping[str, int],
    hospitals: Hospitals,
    load_app: LoadApp,
    initial: StudyState,
    bars: _Bars,
) -> baselines.Arms:
    """The arms with the repetitions of the study's training."""
    trained = []
    for number, paths in enumerate(hospitals.again, start=2):
        with LocalGrid(paths, load_app, study.runtime.workers) as grid:
            trained.append(
                baselines.again(
                    study,
                    f"{folder.name}.again-{number}",
                    sizes=sizes,
                    folder=folder.path / "again" / str(number),
                    grid=grid,
                    initial=initial.weights,
                    shared=shared(study, initial.weights),
                    advance=bars.advance,
                )
            )
    return replace(
        arms, federated_again=[one for one, _ in trained], local_again=[other for _, other in trained if other]
    )


def _across_sites(
    study: Study,
    folder: StudyFolder,
    sizes: Mapping[str, int],
    hospitals: Hospitals,
    load_app: LoadApp,
    state: StudyState,
    arms: baselines.Arms,
) -> cross_site_evaluation.CrossSiteEvaluation:
    if not arms.own or not (study.evaluation.paired or study.evaluation.matrix):
        return cross_site_evaluation.CrossSiteEvaluation()
    with LocalGrid(hospitals.federated, load_app, study.runtime.workers) as grid:
        return cross_site_evaluation.evaluate_across_sites(
            study,
            folder.name,
            sizes=sizes,
            folder=folder.path / "cross-site",
            grid=grid,
            state=state,
            arms=arms,
            peers=fixed_peers(folder),
        )


def _introduce(console: Console, study: Study, folder: StudyFolder, hospitals: Hospitals) -> None:
    console.print(f"[bold]{folder.name}[/]: {tasks.get(study.task.name).question}")
    for note in hospitals.notes:
        console.print(f"[yellow]Note:[/] {escape(note)}")
    for name, size in hospitals.sizes.items():
        console.print(f"  {name}: {size['train']} patients to train on, {size['validation']} to validate with")
        for warning in hospitals.warnings.get(name, []):
            _warn(console, f"    {warning}")


def _show(console: Console, study: Study, folder: Path, outcome: Results, links: Sequence[str]) -> None:
    """What a study has found, wherever it ran; ``links`` lead to MLflow."""
    console.print(results.table(outcome, study))
    for warning in outcome.warnings:
        console.print(f"[yellow]Warning:[/] {escape(warning)}")
    for sentence in verdicts(outcome.gains):
        console.print(escape(sentence))
    console.print(f"Rounds took {outcome.seconds:.1f} s. Report: {folder / writing.REPORT}", soft_wrap=True)
    for line in links:
        console.print(line, soft_wrap=True, markup=False)


def _warn(console: Console, text: str) -> None:
    """Texts from elsewhere are shown as they are: brackets in them are no markup."""
    console.print(text, style="yellow", markup=False)


class _Bars:
    """Progress bars by label; a bar appears when its label is first mentioned."""

    def __init__(self, console: Console) -> None:
        columns: list[Any] = [
            TextColumn("{task.description:<22}"),
            BarColumn(28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        self._progress = Progress(*columns, console=console)
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` are done."""
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(label, total=total, note=note)
        self._progress.update(self._bars[label], completed=done, total=total, note=note)
