"""What ``consilium`` does besides running studies: ``compare`` several of them, ``send`` MLflow what it missed,
``export`` a model for hospitals, show a server's ``queue``, ``stop`` a study there, show its ``logs``, describe and
convert an ``encoder``, write the files of a ``new-task``.

Tested in ``tests/server/pages/test_comparison.py``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conf import load as conf
from conf.schema.runtime import SuperlinkRuntime
from server import encoder, refusals
from server.encoder import DrawPhantoms
from server.errors import StudyError, TrackingFailed
from server.pages import comparison
from server.results import export
from server.tracking import tracker
from tasks import new_task
from tasks.answers import KINDS, Kind
from tasks.machine.disk import write_whole
from tasks.models import model_file

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(words: Sequence[str], draw: DrawPhantoms) -> int:
    """Run one of ``server.command_line.COMMANDS``. Returns 0, 1 where it failed, 2 where the command line is wrong.

    Args:
        draw: phantoms, as a hospital would see them.
    """
    parser = argparse.ArgumentParser(prog="consilium")
    commands = parser.add_subparsers(dest="command", required=True)
    compare = _parser(commands, "compare", "compare studies side by side, and AUC against epsilon")
    compare.add_argument("studies", nargs="+", type=Path, metavar="STUDY", help="folders of outputs/studies")
    compare.add_argument("--to", type=Path, default=Path("comparison.html"), help="the page to write")
    send = _parser(commands, "send", "send MLflow the results that it has not received yet")
    send.add_argument("--output-dir", type=Path, default=Path("outputs"), help="the folder that holds studies/")
    send.add_argument("--uri", default="", help="an MLflow store other than the one in the studies' configuration")
    out = _parser(commands, "export", "write a study's model as one file for hospitals, and print its SHA-256")
    out.add_argument("model", metavar="STUDY", help="a folder of outputs/studies, or models:/TASK@candidate in MLflow")
    out.add_argument("--out", type=Path, help="the file or folder to write; default: model.safetensors, model.ts, "
                     "model.onnx or model-bundle")  # fmt: skip
    out.add_argument("--format", choices=tuple(export.FILES), default="consilium",
                     help="for hospitals, the default; or for other programs, without Consilium's checks: bundle is "
                     "a folder, a MONAI Bundle")  # fmt: skip
    out.add_argument("--uri", default="", help="the MLflow store; default: the one in outputs/")
    out.add_argument("--studies", type=Path, help="the folder of studies that confirm a registered model's SHA-256; "
                     "default: beside the MLflow store, or on the server that --uri names")  # fmt: skip
    queue = _parser(commands, "queue", "show which studies run on a server, and in which order others wait")
    stop = _parser(commands, "stop", "stop a study on a server for good, and show what it has spent")
    stop.add_argument("study", metavar="STUDY", help="its name, or the number of a run that waits in the queue")
    logs = _parser(commands, "logs", "show what a study's processes on a server have printed")
    logs.add_argument("study", metavar="STUDY", help="its name")
    logs.add_argument("--follow", action="store_true", help="go on until the study has ended")
    for one in (queue, stop, logs):
        one.add_argument("settings", nargs="*", metavar="KEY=VALUE",
                         help="runtime.address=HOST:PORT, .authority=FILE, .certificate=FILE")  # fmt: skip
    _encoder_parser(commands)
    _new_task_parser(commands)
    given = parser.parse_args(words)
    console = Console(highlight=False, emoji=False)
    try:
        if given.command == "export":
            return _export(given, console)
        if given.command == "queue":
            return _queue(given.settings, console)
        if given.command == "stop":
            return _stop(given.study, given.settings, console)
        if given.command == "logs":
            return _logs(given.study, given.follow, given.settings, console)
        if given.command == "encoder":
            return _encoder(given, draw, console)
        if given.command == "new-task":
            return _new_task(given.name, given.root, given.kind, console)
        return show(given.studies, given.to, console) if given.command == "compare" else _send(given, console)
    except (StudyError, new_task.NewTaskRefused) as error:
        refusals.tell(error, console)
        return 1 if given.command in _ASK_OTHERS or isinstance(error, TrackingFailed) else 2
    except (conf.ConfigError, OSError) as error:
        refusals.tell(error, console)
        return 2


_ASK_OTHERS = ("send", "queue", "stop", "logs")
"""Commands that may fail whatever was typed; what others refuse is what they were given."""


def _parser(commands: Commands, name: str, does: str) -> argparse.ArgumentParser:
    """A command that says what it does, in the list of commands and in its own help."""
    return commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")


def _new_task_parser(commands: Commands) -> None:
    new = _parser(commands, "new-task", "create the files of a new clinical task, which pass its tests at once")
    new.add_argument("name", metavar="NAME", help="lower-case letters, digits, underscores, such as thyroid_ultrasound")
    new.add_argument("--kind", choices=KINDS, default="binary",
                     help="of its answer: yes or no, one of several classes, a grade, or a measured value")  # fmt: skip
    new.add_argument("--root", type=Path, default=new_task.ROOT, help="the source checkout to write into")


def _encoder_parser(commands: Commands) -> None:
    one = _parser(commands, "encoder", "describe a public encoder's file, and convert it for model.weights")
    one.add_argument("file", type=Path, metavar="FILE", help="safetensors, ONNX, .pth of tensors; or: scattering")
    one.add_argument("--out", type=Path, help="the file to write; default: FILE's name with .encoder.safetensors, "
                     "where something has to change")  # fmt: skip
    one.add_argument("--side", type=int, help="images are brought to so many pixels along each axis; 0: as they are")
    one.add_argument("--mean", type=float, nargs="+", help="of each channel, in units of [0, 1]")
    one.add_argument("--std", type=float, nargs="+", help="likewise")
    one.add_argument("--same-padding", action="store_true", default=None, help="made with TensorFlow: timm's tf_*")
    one.add_argument("--eps", type=float, help="of its normalisation layers")
    one.add_argument("--heads", type=int, help="attention heads of a transformer; default: one for every 64 values")
    one.add_argument("--output", help="of an ONNX graph with several, which one the features are")
    one.add_argument("--licence", help="what its publisher allows, for whoever gets the file")
    one.add_argument("--directions", nargs="+", default=(), metavar="noise|phantoms|FOLDER",
                     help="fit directions to images that are no hospital's: random processes, phantoms of the task, "
                     "public pictures in a folder, or several of these")  # fmt: skip
    one.add_argument("--scattering", type=int, nargs=4, default=(), metavar=("RESOLUTION", "J", "L", "POOL"),
                     help="for the word scattering: its options, as those of model=scatter_linear")  # fmt: skip
    one.add_argument("--task", default="", help="the task whose transform these images go through")
    one.add_argument("--images", type=int, default=600, help="how many of each")


_FACTS = ("side", "mean", "std", "same_padding", "eps", "heads", "output", "licence")


def _encoder(given: argparse.Namespace, draw: DrawPhantoms, console: Console) -> int:
    told = {name: value for name in _FACTS if (value := getattr(given, name)) is not None}
    wanted = encoder.Wanted(told, given.directions, given.task, given.images, given.scattering)
    found = encoder.describe(given.file, wanted, given.out, draw)
    for name, value in encoder.lines(found):
        console.print(f"{name + ':':<12}{value}", soft_wrap=True, markup=False)
    return 0


def _runtime(settings: Sequence[str]) -> SuperlinkRuntime:
    runtime = conf.load(["experiment=deployed", *settings]).runtime
    if not isinstance(runtime, SuperlinkRuntime):
        raise conf.ConfigError("this asks a server: leave runtime=superlink as it is")
    return runtime


def _stop(study: str, settings: Sequence[str], console: Console) -> int:
    from server.deployment import superlink_client
    from server.study import stopped

    runtime = _runtime(settings)
    facts = superlink_client.stop(runtime, superlink_client.ServerConnection(runtime), study)
    if not facts:
        console.print(f"run {study} no longer waits.", markup=False)
        return 0
    console.print(f"{facts['study']} was stopped by {facts['stopped']['by']} for good.", markup=False)
    shown = Table(title="Epsilon spent, as reported", title_justify="left")
    for column in ("", "training patients", "validation patients"):
        shown.add_column(column)
    for row in stopped.rows(facts.get("spent")):
        shown.add_row(*map(escape, row))
    console.print(shown)
    console.print(stopped.UNREPORTED)
    return 0


def _logs(study: str, follow: bool, settings: Sequence[str], console: Console) -> int:
    from server.deployment import study_logs, superlink_client

    source = superlink_client.LogsThere(superlink_client.ServerConnection(_runtime(settings)), study)
    for line in study_logs.lines(source, follow):
        console.print(line, soft_wrap=True, markup=False)
    return 0


def _queue(settings: Sequence[str], console: Console) -> int:
    from server.deployment import queue, superlink_client

    runtime = _runtime(settings)
    facts = superlink_client.ServerConnection(runtime).facts(f"runs/{queue.SHOWN}")
    shown = Table(title=f"Studies at {runtime.address}, {facts.get('at_once', '?')} at once", title_justify="left")
    for column in ("", "study", "task", "asked by", "since"):
        shown.add_column(column, overflow="fold")
    for row in queue.shown(facts):
        shown.add_row(*map(escape, row))
    console.print(shown)
    return 0


def show(folders: Sequence[Path], to: Path, console: Console) -> int:
    """Print the comparison of studies and write its page.

    Raises:
        NotComparable: they have no figures in common.
    """
    studies = [comparison.read(folder) for folder in folders]
    console.print(comparison.table(studies, console.width))
    to.parent.mkdir(parents=True, exist_ok=True)
    write_whole(to, comparison.page(studies).encode())
    console.print(f"Comparison: {to.resolve()}", soft_wrap=True)
    return 0


def _send(given: argparse.Namespace, console: Console) -> int:
    if not given.output_dir.is_dir():
        raise conf.ConfigError(f"--output-dir {given.output_dir}: there is no such folder; name the one of the studies")
    failed: list[str] = []
    sent = tracker.send(given.output_dir.resolve(), failed.append, given.uri)
    for text in failed:
        console.print(text, style="yellow", markup=False)
    console.print(f"Sent to MLflow: {', '.join(sent)}." if sent else "There was nothing to send to MLflow.")
    return 1 if failed else 0


def _export(given: argparse.Namespace, console: Console) -> int:
    uri = given.uri or f"sqlite:///{Path('outputs/mlflow.db').resolve()}"
    to = given.out or Path(export.FILES[given.format])
    head, digest = export.export(given.model, uri, to, _vouching(uri, given.studies), given.format)
    for name, value in model_file.head_text(head).items():
        console.print(f"{name}: {value}", markup=False)
    console.print(f"Wrote {to}. Not for clinical use.", soft_wrap=True, markup=False)
    if given.format != "consilium":
        console.print("It gives the scores of Consilium's own model for examples as the task makes them; hospitals use "
                      "the file that --format consilium writes.", soft_wrap=True)  # fmt: skip
        return 0
    console.print(f"SHA-256 {digest}", soft_wrap=True)
    console.print("Tell hospitals the SHA-256 through another channel than the file: they type it in.")
    return 0


def _vouching(uri: str, studies: Path | None) -> export.Vouching | None:
    """What confirms which model a study has ended with: its folder here, or the server that MLflow runs on."""
    if studies is not None:
        return export.in_folder(studies)
    if uri.startswith("sqlite:///"):
        return export.in_folder(Path(uri.removeprefix("sqlite:///")).parent / "studies")
    if not uri.startswith("https://"):
        return None
    from server.deployment import superlink_client

    files = [
        os.environ.get(name, "") for name in ("MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH")
    ]
    address = uri.removeprefix("https://").strip("/")
    runtime = SuperlinkRuntime(address=address, authority=files[0], certificate=files[1])
    server = superlink_client.ServerConnection(runtime)
    return lambda name: server.facts(f"studies/{name}/study.json")


def _new_task(name: str, root: Path, kind: Kind, console: Console) -> int:
    for path in new_task.create(name, root, kind):
        console.print(f"Wrote {path}", soft_wrap=True, markup=False)
    console.print(f"It passes: pytest tests/tasks/test_every_task.py -k {name}", soft_wrap=True, markup=False)
    console.print("Now edit what is marked CHANGE, labels.md first: labels are the hardest part.", soft_wrap=True)
    return 0
