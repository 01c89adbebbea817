"""A study on a deployed server: one process per run. The study itself is a folder, which outlives every process.

``server.deployment.superexec`` starts this program with the run's token on standard input. The rounds are those of
``server.rounds.round``; a run that ends early is followed by another one, which resumes after the last committed round.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from flwr.serverapp import Grid

from conf import load as conf
from conf.schema.federation import EnrolledFederation
from conf.schema.model import weights_named
from conf.schema.runtime import SuperlinkRuntime
from conf.schema.study import Study
from server import run_survey
from server.deployment import signing, study_logs
from server.deployment.people import Person
from server.deployment.server_dir import Hospital, ServerDir, read
from server.errors import (
    NotAdmitted,
    NotAllowed,
    NotSigned,
    RoundFailed,
    ServerMisconfigured,
    StudyBusy,
    StudyError,
    StudyStopped,
    TrackingFailed,
    TrainingDiverged,
)
from server.results import results
from server.rounds.state import StudyState
from server.rounds.survey import Answers
from server.run_study import initial_state, play_rounds, record, summary
from server.runtime.flower_private import play
from server.runtime.superlink_grid import SuperlinkGrid
from server.study.baselines import Arms
from server.study.document import document_in, fixed_peers, fixed_sizes, is_digest, open_study
from server.study.folder import FAILED, FINISHED, PROPOSED, RUNNING, StudyFolder, locked
from server.study.foresight import require_informative
from server.study.stopped import refuse_stopped
from server.study.survey import is_survey, survey_of
from server.study.trust import notes_on_sums
from server.tracking.tracker import Tracker, open_tracker
from tasks import task as tasks
from tasks.machine.disk import write_whole
from tasks.machine.language import language_of
from tasks.protocol import survey as surveys
from tasks.protocol.study import StudyDocument, canonical

NOTES = [
    "The hospitals are real, and all that is known about their patients is what they have released: noised histograms "
    "of scores. Numbers of patients are estimates.",
    "How a model of one hospital's patients alone, or of all patients pooled, would do is not known here: no hospital "
    "shares its own model or its images. Each can find out for itself whether federation helps it: "
    "consilium-site compare.",
]
REAL_SURVEY = (
    "The hospitals are real, and all that is known about their patients is what they have released: counts with noise. "
    "Somebody at each of them has approved this survey."
)
T = TypeVar("T")
_MLFLOW_S = 120.0
_DOCUMENT = "document.json"
_REFUSED = "refused with"


def main() -> None:
    """Run the run whose token comes on standard input. Exit codes: 0 success, 1 the study failed, 2 interrupted."""
    server_dir, token = read(Path(sys.argv[1])), sys.stdin.readline().strip()
    try:
        play(
            server_dir.superlink,
            server_dir.authority,
            token,
            lambda grid, run, text: play_study(server_dir, grid, run, text),
        )
    except StudyError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(1)
    except KeyboardInterrupt:
        print("the SuperLink no longer knows this run, or it was stopped", flush=True)
        sys.exit(2)


def play_study(server_dir: ServerDir, grid: Grid, run: int, text: str) -> None:
    """Run or resume the study that a text describes.

    A second run of a study that is already running ends at once, and its researcher follows the first.

    Raises:
        StudyError: the study failed; its folder says why.
    """
    try:
        asked = signing.read(server_dir, run, text)
        study = _of_this_server(server_dir, conf.from_plain(asked.study))
        _check(study)
    except NotSigned as error:
        _note_run(server_dir, run, state=FAILED, error=f"It is not known who submits it: {error}")
        raise
    except ValueError as error:  # ConfigError as well
        _note_run(server_dir, run, state=FAILED, error=f"Invalid configuration: {error}")
        raise
    folder = open_study(study)
    facts = {"study": folder.name} | ({"asked_by": asked.name} if asked.name else {})
    try:
        with locked(folder):
            _refuse_going_on(folder, asked.by)
            known = folder.facts()
            folder.note(
                state=PROPOSED if study.propose else RUNNING,
                run=run,
                runs=[*(one for one in known.get("runs", []) if one != run), run],
                error="",
                asked_by=known.get("asked_by") or asked.name,
            )
            study_logs.show(server_dir, folder.facts()["asked_by"], folder.name, run)
            _note_run(server_dir, run, **facts)
            if study.propose:
                _propose(server_dir, study, folder)
                return
            play = _ask if is_survey(study) else _play
            play(server_dir, study, folder, grid)
    except StudyBusy:
        _note_run(server_dir, run, **facts)
    except (NotAllowed, StudyStopped) as error:  # which does not concern the folder
        _note_run(server_dir, run, state=FAILED, error=str(error))
        raise
    except StudyError as error:
        if isinstance(error, TrackingFailed | ServerMisconfigured):  # the server's fault: another run may succeed
            folder.note(error=f"{type(error).__name__}: {error}")
        else:
            folder.note(state=FAILED, error=f"{type(error).__name__}: {error}")
        raise
    except Exception as error:  # a full disk, a call that Flower gave up: another run may succeed
        with suppress(OSError):
            folder.note(error=f"{type(error).__name__}: {error}")
        raise


def _check(study: Study) -> None:
    """Refuse what cannot be played.

    Raises:
        ConfigError: there is no such task, network or attribute.
    """
    if is_survey(study):
        survey_of(study, "survey")
    else:
        initial_state(study)


def _refuse_going_on(folder: StudyFolder, who: Person | None) -> None:
    """Refuse to go on with what somebody has stopped for good, or with another researcher's study.

    Raises:
        StudyStopped, NotAllowed
    """
    refuse_stopped(folder)
    asked_by = folder.facts().get("asked_by")
    if who is not None and asked_by is not None:
        try:
            who.require_own(folder.name, asked_by)
        except NotAllowed as error:
            raise NotAllowed(f"{error}; resume=never starts one of the same configuration") from None


def _propose(server_dir: ServerDir, study: Study, folder: StudyFolder) -> None:
    """Write the document for the hospitals; from then on participants and their sizes are fixed.

    Raises:
        UninformativeStudy: its figures would tell nothing; no document is written.
    """
    _invited(server_dir, study, folder)
    if is_survey(study):
        text = surveys.canonical(run_survey.document_in(study, folder))
    else:
        document = document_in(study, folder)
        _require_informative(study, document)
        text = canonical(document)
    write_whole(folder.path / _DOCUMENT, f"{text}\n".encode())


def _require_informative(study: Study, document: StudyDocument) -> None:
    if study.evaluation.uninformative == "refuse":
        require_informative(document)


def _of_this_server(server_dir: ServerDir, study: Study) -> Study:
    """The server decides where results go, and no text of a researcher is used as a path here.

    Raises:
        ConfigError: it names hospitals that are not enrolled, or a file of weights by its path.
    """
    if not isinstance(study.federation, EnrolledFederation) or not isinstance(study.runtime, SuperlinkRuntime):
        raise conf.ConfigError("a server runs studies with enrolled hospitals only: set federation=enrolled")
    tracking = replace(study.tracking, uri=server_dir.mlflow if study.tracking.name == "mlflow" else "")
    runtime = replace(study.runtime, authority="", certificate="")  # paths on the researcher's machine
    if (named := weights_named(study.model)) and not is_digest(named):
        raise conf.ConfigError(
            "model.weights: a server knows files of weights by their SHA-256 alone, in its folder weights/; "
            "`consilium` of this release sends it"
        )
    propose = _DOCUMENT if study.propose else ""
    return replace(
        study, output_dir=str(server_dir.path), tracking=tracking, runtime=runtime, data_root="", propose=propose
    )


class RegisterChanged(Exception):
    """A hospital was revoked, or has another number in the SuperLink: the study goes on with those who are there."""


def _play(server_dir: ServerDir, study: Study, folder: StudyFolder, grid: Grid) -> None:
    invited = list(_invited(server_dir, study, folder))
    _require_informative(study, document_in(study, folder))
    tracker = _open_tracker(study, folder, invited)

    def attempt() -> StudyState:
        assert isinstance(study.federation, EnrolledFederation)
        nodes = _invited(server_dir, study, folder)

        def committed(state: StudyState) -> None:
            print(f"round {len(state.rounds)} of {study.federation.rounds}: {summary(state.rounds[-1])}", flush=True)
            tracker.rounds(state.rounds)
            refuse_stopped(folder)
            if len(state.rounds) < study.federation.rounds and _invited(server_dir, study, folder) != nodes:
                raise RegisterChanged

        patience, deadline = study.federation.patience_s, study.federation.deadline_s
        patient = SuperlinkGrid(grid, patience, deadline, lambda: _nodes(server_dir))
        try:
            initial = partial(initial_state, study)
            return play_rounds(
                study, folder, nodes, patient, initial=initial, committed=committed, witnessed=server_dir.witness
            )
        except RoundFailed as error:
            if _invited(server_dir, study, folder) != nodes:
                raise RegisterChanged from error
            raise

    state = again(attempt, _attempts(study))
    notes = [*NOTES, *_notes_on_leaving(folder), *notes_on_sums(document_in(study, folder).secure_sum, state.rounds)]
    questions = tasks.get(study.task.name).questions
    language = language_of(study.report.language)
    outcome = results.results(
        folder.name, state, Arms(), notes, asdict(study.evaluation.gate), questions=questions, language=language
    )
    files = record(folder, outcome, state, tracker)
    _finish(server_dir, folder, [str(file.relative_to(folder.path)) for file in files], tracker)


def _ask(server_dir: ServerDir, study: Study, folder: StudyFolder, grid: Grid) -> None:
    """A survey: one order to every hospital that was invited and is still admitted."""
    assert isinstance(study.federation, EnrolledFederation)
    tracker = _open_tracker(study, folder, list(_invited(server_dir, study, folder)))
    patience, deadline = study.federation.patience_s, study.federation.deadline_s

    def attempt() -> Answers:
        nodes = _invited(server_dir, study, folder)
        patient = SuperlinkGrid(grid, patience, deadline, lambda: _nodes(server_dir))
        return run_survey.ask(study, folder, nodes, patient, server_dir.witness)

    answers = again(attempt, _attempts(study))
    refuse_stopped(folder)
    found = run_survey.record(study, folder, answers, [REAL_SURVEY, *_notes_on_leaving(folder)], tracker)
    print(f"{len(found.epsilons)} hospitals have answered", flush=True)
    _finish(server_dir, folder, [run_survey.NUMBERS, run_survey.REPORT], tracker)


def _finish(server_dir: ServerDir, folder: StudyFolder, names: Sequence[str], tracker: Tracker) -> None:
    # Researchers reach MLflow at another address than this process does.
    links = [line.replace(server_dir.mlflow, "") for line in tracker.where() if "/#/" in line]
    folder.note(finished=True, state=FINISHED, files=list(names), links=links)


def again(attempt: Callable[[], T], most: int, pause_s: float = 5.0) -> T:
    """Attempt until it succeeds. A round that too few hospitals answered is repeated, up to ``most`` attempts in all;
    one that hospitals refused is not, nor one that diverged, since the same order would end so again. When the register
    has changed, the next attempt asks those who are left.

    Raises:
        StudyError: what the last attempt raised.
    """
    failed: dict[int, int] = {}
    while True:
        try:
            return attempt()
        except RegisterChanged:
            print("The register has changed; the study goes on with the hospitals that may take part.", flush=True)
        except RoundFailed as error:
            failed[error.round] = failed.get(error.round, 0) + 1
            for_good = isinstance(error, TrainingDiverged) or all(_REFUSED in why for why in error.dropped.values())
            if failed[error.round] >= most or for_good:
                raise
            print(f"{error}\nThe round is repeated.", flush=True)
            time.sleep(pause_s)


def _attempts(study: Study) -> int:
    return study.federation.attempts if isinstance(study.federation, EnrolledFederation) else 1


def _invited(server_dir: ServerDir, study: Study, folder: StudyFolder) -> dict[str, int]:
    """Node number by name of the hospitals that the study invited when it first started, without those that were
    revoked since: the study goes on without them. Their sizes are fixed as well.

    Raises:
        NotAdmitted: one was never admitted, none is left, or one was admitted before sizes were fixed.
    """
    admitted, facts = server_dir.hospitals(), folder.facts()
    names = facts.get("hospitals")
    if names is None:
        wanted = study.federation.hospitals if isinstance(study.federation, EnrolledFederation) else []
        names = sorted(wanted or admitted)
        if missing := [name for name in names if name not in admitted]:
            raise NotAdmitted(
                f"not admitted, or no longer admitted: {', '.join(missing)}; admitted: {', '.join(admitted) or 'none'}"
            )
        if not names:
            raise NotAdmitted("no hospital is admitted yet: consilium-server admit REQUEST")
        _refuse_unsized(admitted, names)
        folder.note(hospitals=names)
    left = [name for name in names if name not in admitted]
    if left != facts.get("left", []):
        print(f"no longer admitted, so the study goes on without: {', '.join(left) or 'nobody'}", flush=True)
        folder.note(left=left)
    names = [name for name in names if name in admitted]
    if not names:
        raise NotAdmitted(
            f"all hospitals of this study were revoked: {', '.join(left)}. Its committed rounds are kept; a new study "
            "can invite others"
        )
    _refuse_unsized(admitted, names)
    fixed_sizes(folder, {name: admitted[name].public_size or 0 for name in names})
    fixed_peers(folder, {name: admitted[name].key for name in names})
    return {name: admitted[name].node for name in names}


def _refuse_unsized(admitted: Mapping[str, Hospital], names: Sequence[str]) -> None:
    if unsized := [name for name in names if admitted[name].public_size is None]:
        raise NotAdmitted(f"no public size is known of {', '.join(unsized)}: consilium-server admit their new REQUEST")


def _nodes(server_dir: ServerDir) -> set[int]:
    """Numbers of the hospitals that may take part; nobody waits for another one."""
    return {one.node for one in server_dir.hospitals().values()}


def _notes_on_leaving(folder: StudyFolder) -> list[str]:
    """What must be said of hospitals that were revoked while the study ran."""
    left = folder.facts().get("left")
    return [f"Revoked while the study ran, which went on without them: {', '.join(left)}."] if left else []


def _open_tracker(study: Study, folder: StudyFolder, hospitals: list[str]) -> Tracker:
    """Wait for MLflow, which may still be starting when the whole server is."""
    ends = time.monotonic() + _MLFLOW_S
    while True:
        try:
            return open_tracker(study, folder, hospitals, NOTES, lambda text: print(text, flush=True))
        except TrackingFailed:
            if time.monotonic() > ends:
                raise
            time.sleep(2)


def _note_run(server_dir: ServerDir, run: int, **facts: str) -> None:
    write_whole(server_dir.runs / f"{run}.json", json.dumps(facts).encode())


if __name__ == "__main__":
    main()
