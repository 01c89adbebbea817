"""The command line of ``consilium``: a wrong one is refused before anything slow is imported.

Only this file, ``conf/load.py`` and ``conf/overrides.py`` know Hydra.

Tested in ``tests/server/test_launch.py``.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from conf import load as conf
from conf.schema.runtime import SuperlinkRuntime
from conf.schema.study import Study
from server import refusals, sweep
from server.errors import HospitalNotReady, StudyError
from tasks import faults

if TYPE_CHECKING:
    from server.results.results import Results
    from server.runtime.workers import LoadApp
    from server.simulation import ProvisionHospitals

_FULL = (errno.ENOSPC, errno.EDQUOT)
"""No fault of the command: exit code 1."""
_RAISES = "HYDRA_FULL_ERROR"
"""With this variable set to 1 Hydra raises what it has caught."""
COMMANDS = ("compare", "send", "export", "queue", "stop", "logs", "encoder", "new-task")
"""First words that are no settings of a study; ``server/commands.py`` has them."""
_SIGNS = ("-m", "--multirun")
"""Of a sweep."""
ASK = "ask"
"""First word of a survey, whose settings are those of a study."""
COMPLETION = ("-sc", "--shell-completion")
"""Hydra's own words for completion in a shell, whose values are no settings of a study."""
HELP = """\
consilium: train an imaging model across hospitals whose images stay at home.

Try it, with simulated hospitals:
  consilium experiment=demo               a whole study, in minutes
  consilium experiment=demo privacy.epsilon=3 federation.rounds=20

Commands:
  KEY=VALUE ...   run a study with these settings; the same words go on with it
  ask ...         count patients before a study: ask experiment=demo
  compare A B     studies side by side, on one page
  export STUDY    its model as one file, for hospitals or for other programs
  new-task NAME   the files of a clinical question of your own
and at a server: queue, stop STUDY, logs STUDY; besides: send (to MLflow what it
missed), encoder FILE (a public encoder). Each has --help.

Words of a study:
  -m KEY=1,2,3    a sweep: one study for each value, and a page that compares
  propose=FILE    write the document for the hospitals to approve, run nothing
  --cfg job       show the settings and run nothing; with --help their choices
"""
READ_ON = """\
Read on: README.md (what it is), conf/README.md (every setting),
server/README.md (outputs, a server for real hospitals); for hospitals
client/README.md and consilium-site --help; in Python: server.api.
Tab completes settings after: eval "$(consilium -sc install=bash)" (zsh, fish).

Exit codes: 0 done. 1 the study or command failed. 2 invalid configuration, or
images that cannot be used. 130 interrupted: the same words resume it.
"""
_SHOWN = ("experiment", "task", "model", "strategy", "privacy", "federation")


def main(provision: ProvisionHospitals, load_app: LoadApp) -> None:
    """The command ``consilium``. Exits with 0, 1 (the study failed), 2 (the configuration, or images that it
    names, cannot be used) or 130 (Ctrl-C)."""
    console = sweep.console()
    if sys.argv[1:] in ([], ["--help"], ["-h"], ["-m"], ["--multirun"], [ASK]):
        print(overview(min(100, shutil.get_terminal_size().columns)))
        return

    def job(composed: DictConfig) -> float:  # a function of its own, which launchers can send to other processes
        return _played(composed, provision, load_app)

    if not set(COMPLETION) & set(sys.argv[1:]):
        sys.argv[1:] = in_place_of_a_study(sys.argv[1:])
        try:
            conf.check(sys.argv[1:], COMMANDS)  # Hydra would tell the first problem only, in its own words
        except conf.ConfigError as error:
            _refuse(error, console)
        sys.argv[1:] = conf.for_hydra(sys.argv[1:])
    run = hydra.main(config_path=str(conf.FOLDER), config_name=conf.MAIN, version_base=None)(job)
    with _ended_as_by_ctrl_c():
        if not set(_SIGNS) & set(sys.argv[1:]):
            run()
            return
        with sweep.under_way() as notes, _told_in_our_words(console):
            run()
            ended = sweep.noted(notes)
    _after_a_sweep(ended, console)


def _played(composed: DictConfig, provision: ProvisionHospitals, load_app: LoadApp) -> float:
    """Play one study, and give what a search over settings makes large: not a number where there is no such figure.

    Alone, a study that cannot go on ends the process; in a sweep the others have their turn.
    """
    console, words = sweep.console(), conf.as_given(HydraConfig.get().overrides.task)
    try:
        return _ended(composed, provision, load_app, console, words)
    except KeyboardInterrupt:
        with suppress(KeyboardInterrupt):  # `make` and `timeout` send a second one
            console.print("[bold]Interrupted.[/] Every committed round is kept; the same command goes on from there.")
        sys.exit(faults.INTERRUPTED)
    except Exception as error:
        code = _told(error, console)
        if not sweep.is_under_way():
            sys.exit(code)
        _note(words, None, console, failed=_reason(error))
        return math.nan


def _ended(
    composed: DictConfig, provision: ProvisionHospitals, load_app: LoadApp, console: Console, words: list[str]
) -> float:
    from server import launch  # takes seconds, which a mistyped command need not wait for
    from server.results.objective import objective_of
    from server.study.survey import is_survey

    study = launch.named(conf.to_study(composed))
    outcome: Results | None = None
    if is_survey(study):
        _survey(study, provision, load_app, console)
    elif isinstance(study.runtime, SuperlinkRuntime):
        fetched = launch.run_deployed(study, study.runtime, console)
        outcome = None if fetched is None else fetched.results
    elif study.propose:
        launch.propose(study, provision, console)
    else:
        outcome = launch.run_study(study, provision, load_app, console, words)
    if sweep.is_under_way():
        folder = None if outcome is None else Path(study.output_dir).resolve() / "studies" / outcome.study
        _note(words, folder, console)
    if outcome is None:
        return math.nan
    return objective_of(outcome, study.objective)


def _told(error: Exception, console: Console) -> int:
    """Say why a study does not go on; the code to exit with."""
    match error:
        case conf.ConfigError():
            refusals.tell(error, console)
            return 2
        case StudyError():
            refusals.tell(error, console)
            return 2 if isinstance(error, HospitalNotReady) else 1
        case OSError():  # a full disk, a folder that may not be written
            refusals.tell(error, console)
            console.print("Every committed round is kept. Fix it and rerun the same command to resume.")
            return 1 if error.errno in _FULL else 2
    # Hydra would print its own, with a remedy that is none.
    print(faults.unforeseen("consilium", error), file=sys.stderr)
    return faults.UNFORESEEN


def _reason(error: Exception) -> str:
    return faults.of_system(error) if isinstance(error, OSError) else str(error) or type(error).__name__


def _note(words: Sequence[str], folder: Path | None, console: Console, failed: str = "") -> None:
    try:
        sweep.note(words, folder, failed)
    except OSError as error:
        console.print(f"[yellow]Not in the sweep's comparison:[/] {escape(str(error))}", soft_wrap=True)


@contextmanager
def _told_in_our_words(console: Console) -> Iterator[None]:
    """What a launcher or a sweeper raises is told in one sentence; Hydra would show where it happened."""
    before = os.environ.get(_RAISES)
    os.environ[_RAISES] = "1"
    try:
        yield
    except Exception as error:
        sys.exit(_told(error, console))
    finally:
        os.environ.pop(_RAISES)
        os.environ.update({} if before is None else {_RAISES: before})


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """What ends a process politely (SIGTERM: a job's time limit, a shutdown) ends a study as Ctrl-C does."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def overview(width: int) -> str:
    """What ``consilium`` says of itself: what it does, its commands, the choices that there are, where to read on."""
    return "\n".join([HELP, "Choices:", *_choices(max(width, 40)), "", READ_ON.rstrip()])


def _choices(width: int) -> Iterator[str]:
    """The files of each folder of choices; those that others build on begin with ``_`` and are none."""
    for group in _SHOWN:
        names = [path.stem for path in sorted((conf.FOLDER / group).glob("[!_]*.yaml"))]
        yield from textwrap.wrap(
            " ".join(names), width, initial_indent=f"  {group}=".ljust(14), subsequent_indent=" " * 14,
            break_on_hyphens=False,
        )  # fmt: skip


def in_place_of_a_study(words: Sequence[str]) -> list[str]:
    """A command line whose first word is ``ask``, as settings: a survey by label, unless it says by what. The sign of a
    sweep comes first: from Hydra's parser it would cut off what comes after it.

    >>> in_place_of_a_study(["ask", "task=lung_ct"])
    ['ask.by=[label]', 'task=lung_ct']
    >>> in_place_of_a_study(["task=lung_ct"])
    ['task=lung_ct']
    >>> in_place_of_a_study(["task=lung_ct", "--multirun", "seed=1,2"])
    ['--multirun', 'task=lung_ct', 'seed=1,2']
    """
    asks = bool(words) and words[0] == ASK
    told = any(word.lstrip("+").startswith("ask.by=") for word in words)
    signs = [word for word in words if word in _SIGNS]
    others = [word for word in words[asks:] if word not in _SIGNS]
    return [*signs[:1], *(["ask.by=[label]"] if asks and not told else []), *others]


def _survey(study: Study, provision: ProvisionHospitals, load_app: LoadApp, console: Console) -> None:
    from server import launch_survey

    if isinstance(study.runtime, SuperlinkRuntime):
        launch_survey.run_deployed_survey(study, study.runtime, console)
    elif study.propose:
        launch_survey.propose_survey(study, console)
    else:
        launch_survey.run_survey(study, provision, load_app, console)


def _refuse(error: conf.ConfigError, console: Console) -> NoReturn:
    refusals.tell(error, console)
    sys.exit(2)


def _after_a_sweep(ended: Sequence[sweep.SweptStudy], console: Console) -> None:
    """Studies of one command line, side by side; exits with 1 if one has failed."""
    if not ended:
        console.print(
            "[yellow]No study has told how it ended:[/] it was not in this process, and its note lies elsewhere. "
            "Set TMPDIR to a folder that all machines share; each study's own folder has its results.",
            soft_wrap=True,
        )
        return
    folders = [each.folder for each in ended if each.folder is not None]
    if len(folders) > 1:
        from server import commands

        try:
            commands.show(folders, folders[0].parents[1] / "sweeps" / f"{folders[0].name}.html", console)
        except StudyError as error:
            console.print(f"[yellow]The studies are not compared:[/] {escape(str(error))}", soft_wrap=True)
    failed, common = [each for each in ended if each.failed], set.intersection(*(set(each.words) for each in ended))
    for each in failed:
        words = " ".join(word for word in each.words if word not in common)
        why = each.failed.partition("\n")[0]
        console.print(f"[bold red]Failed:[/] {escape(f'{words}: {why}' if words else why)}", soft_wrap=True)
    if failed:
        console.print(f"{len(failed)} of {len(ended)} studies failed; their words start them again.")
        sys.exit(1)
