"""A study on this machine, from its configuration to its results; ``server/launch.py`` shows it in a terminal and
``server/api.py`` hands it to a program.

This file does not know the hospitals' code: ``server/__main__.py`` hands in what provisions this machine's hospitals
and what plays them.

Tested in ``tests/federation/test_whole_study.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from conf import load as conf
from conf.schema.study import Study
from server.errors import HospitalNotReady
from server.results import results
from server.results.results import Results
from server.rounds.evaluation import Evaluated
from server.rounds.state import StudyState
from server.run_study import initial_state, play_rounds, record, shared, summary
from server.runtime.local_grid import LocalGrid
from server.runtime.workers import LoadApp
from server.study import baselines, cross_site_evaluation
from server.study.baselines import Advance
from server.study.document import document_in, fixed_peers, fixed_sizes, open_study
from server.study.folder import StudyFolder, locked
from server.study.trust import notes_on_sums
from server.tracking.tracker import Tracker, open_tracker
from tasks import task as tasks
from tasks.machine.language import language_of


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


class Listener(Protocol):
    """Who is told how a study goes on."""

    def begun(self, study: Study, folder: StudyFolder, hospitals: Hospitals) -> None:
        """The hospitals are provisioned, and nothing is trained yet."""

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` are done of what ``label`` names."""

    def warn(self, text: str) -> None:
        """Something did not work that the study can do without, such as MLflow."""


@dataclass(frozen=True)
class EndedStudy:
    """A study that has ended.

    Attributes:
        folder: with its report, its model and ``results.json``.
        links: commands and addresses that lead to it in MLflow.
    """

    results: Results
    folder: Path
    links: list[str]


def play(
    study: Study, provision: ProvisionHospitals, load_app: LoadApp, listener: Listener, words: Sequence[str] = ()
) -> EndedStudy:
    """Begin or resume the study, play its rounds, compare, record.

    Args:
        words: what stood on the command line; the report repeats it.

    Raises:
        ConfigError: there is no such task or network; nothing was done.
        StudyError: with what, where, why and the remedy.
    """
    initial = initial_state(study)
    folder = open_study(study)
    with locked(folder):
        folder.note(words=list(words))
        hospitals = _provisioned(study, folder, provision, listener)
        sizes = fixed_sizes(folder, hospitals.public_sizes)
        fixed_peers(folder, hospitals.peers)
        _refuse_another_matrix(study, hospitals)
        listener.begun(study, folder, hospitals)
        tracker = open_tracker(study, folder, list(hospitals.federated), hospitals.notes, listener.warn)
        played = _Simulation(
            study,
            folder,
            sizes=sizes,
            hospitals=hospitals,
            load_app=load_app,
            initial=initial,
            listener=listener,
        )
        with _told_to(tracker):
            state = played.federated(tracker)
            arms = played.repeated(played.arms())
            across = played.across_sites(state, arms)
        outcome = results.results(
            folder.name,
            state,
            arms=arms,
            notes=[*hospitals.notes, *notes_on_sums(document_in(study, folder).secure_sum, state.rounds)],
            gates=asdict(study.evaluation.gate),
            cross_site=across,
            questions=tasks.get(study.task.name).questions,
            language=language_of(study.report.language),
        )
        record(folder, outcome, state, tracker, hospitals.conformance)
        folder.note(finished=True)
    return EndedStudy(outcome, folder.path, tracker.where())


def _provisioned(study: Study, folder: StudyFolder, provision: ProvisionHospitals, listener: Listener) -> Hospitals:
    """The hospitals; a study that begins with images that cannot be used leaves no folder behind."""
    try:
        return provision(study, folder.path, listener.advance)
    except HospitalNotReady:
        if not folder.resumed:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


@contextmanager
def _told_to(tracker: Tracker) -> Iterator[None]:
    """Whatever ends the study before its end is told: its runs would seem to be under way for ever."""
    try:
        yield
    except Exception:
        tracker.broken_off("FAILED")
        raise
    except BaseException:  # Ctrl-C, SIGTERM
        tracker.broken_off("KILLED")
        raise


def _refuse_another_matrix(study: Study, hospitals: Hospitals) -> None:
    """Every hospital plans its noise for so many models as the study says."""
    asked, there = study.evaluation.matrix, len(hospitals.federated)
    if asked and asked != there:
        raise conf.ConfigError(f"evaluation.matrix={asked}: there are {there} hospitals; set evaluation.matrix={there}")


@dataclass(frozen=True)
class _Simulation:
    """A study whose hospitals are all on this machine."""

    study: Study
    folder: StudyFolder
    sizes: Mapping[str, int]
    hospitals: Hospitals
    load_app: LoadApp
    initial: StudyState
    listener: Listener

    def federated(self, tracker: Tracker) -> StudyState:
        """Play the rounds that remain."""

        def committed(state: StudyState) -> None:
            tracker.rounds(state.rounds)
            rounds = self.study.federation.rounds
            self.listener.advance("federated", len(state.rounds), rounds, summary(state.rounds[-1]))

        with self._grid(self.hospitals.federated) as grid:
            return play_rounds(
                self.study, self.folder, nodes=grid.nodes, grid=grid, initial=lambda: self.initial, committed=committed
            )

    def arms(self) -> baselines.Arms:
        """What the federated model is compared with."""
        with self._grid(self.hospitals.alone) as grid:
            return baselines.compare(
                self.study,
                self.folder.name,
                sizes=self.sizes,
                folder=self.folder.path / "arms",
                grid=grid,
                imaginary=self.hospitals.imaginary,
                initial=self.initial.weights,
                advance=self.listener.advance,
            )

    def repeated(self, arms: baselines.Arms) -> baselines.Arms:
        """The arms with the repetitions of the study's training."""
        trained = [self._again(number, paths) for number, paths in enumerate(self.hospitals.again, start=2)]
        return replace(
            arms, federated_again=[one for one, _ in trained], local_again=[other for _, other in trained if other]
        )

    def _again(self, number: int, paths: dict[str, Path]) -> tuple[dict[str, Evaluated], dict[str, Evaluated]]:
        with self._grid(paths) as grid:
            return baselines.again(
                self.study,
                f"{self.folder.name}.again-{number}",
                number,
                sizes=self.sizes,
                folder=self.folder.path / "again" / str(number),
                grid=grid,
                initial=self.initial.weights,
                shared=shared(self.study, self.initial.weights),
                advance=self.listener.advance,
            )

    def across_sites(self, state: StudyState, arms: baselines.Arms) -> cross_site_evaluation.CrossSiteEvaluation:
        """Each hospital's model at the others, and both models on the same patients, where the study asks for it."""
        evaluation = self.study.evaluation
        if not arms.own or not (evaluation.paired or evaluation.matrix):
            return cross_site_evaluation.CrossSiteEvaluation()
        with self._grid(self.hospitals.federated) as grid:
            return cross_site_evaluation.evaluate_across_sites(
                self.study,
                self.folder.name,
                sizes=self.sizes,
                folder=self.folder.path / "cross-site",
                grid=grid,
                state=state,
                arms=arms,
                peers=fixed_peers(self.folder),
            )

    def _grid(self, hospitals: dict[str, Path]) -> LocalGrid:
        return LocalGrid(hospitals, self.load_app, self.study.runtime.workers)
