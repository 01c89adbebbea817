"""What all commands share: options, output as text or JSON, errors and exit codes.

Tested in ``tests/client/cli/test_main.py``.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from client.errors import EmptySource, LabelsMatchNothing, ModelRefused, NoCohort, SiteError, SiteMisconfigured
from client.ledger.records import Records, open_records
from client.site import SiteSettings, load, secret
from tasks import faults
from tasks.machine.checklist import ClaimState
from tasks.machine.language import Language, spoken

REFUSED, MISUSED, HALTED = 1, 2, 3
"""Exit codes; ``main.py`` explains them."""

_UNUSABLE = (SiteMisconfigured, ModelRefused, EmptySource, LabelsMatchNothing)
"""What was typed, or a file that it or ``site.yaml`` names, is what is wrong."""

COLOURS = {ClaimState.OK: "green", ClaimState.WARN: "yellow", ClaimState.FAIL: "bold red"}

_AS_JSON = "consilium-site.json"


def _remember(context: typer.Context, value: bool) -> bool:
    context.meta[_AS_JSON] = value  # errors are printed in the same form as answers
    return value


SiteFile = Annotated[
    Path, typer.Option("--site", envvar="CONSILIUM_SITE", metavar="PATH", help="The hospital's site.yaml.")
]
AsJson = Annotated[bool, typer.Option("--json", callback=_remember, is_eager=True, help="Print JSON.")]
By = Annotated[str, typer.Option("--by", show_default="your login name", help="Name of the person who decides.")]
HERE = Path("site.yaml")


class SiteCommands(TyperGroup):
    """Turns every ``SiteError`` of a command, and what the system refuses, into a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SiteError, OSError, sqlite3.Error) as error:
            told = _in_words(error)
            _tell(told, bool(ctx.meta.get(_AS_JSON)))
            ctx.exit(MISUSED if isinstance(told, _UNUSABLE) else REFUSED)


def _in_words(error: SiteError | OSError | sqlite3.Error) -> SiteError:
    if isinstance(error, OSError):
        return SiteMisconfigured(faults.of_system(error))
    if isinstance(error, sqlite3.Error):  # ledger and audit log name their faults themselves
        return SiteMisconfigured(f"{faults.of_database(error)}. consilium-site ingest makes the catalog again")
    return error


def _tell(error: SiteError, as_json: bool) -> None:
    if as_json:
        told: dict[str, object] = {"error": error.code.value, "kind": type(error).__name__, "message": str(error)}
        if isinstance(error, NoCohort):
            told["left_out"] = error.left_out
        print(json.dumps(told))
    else:
        where = Console(stderr=True, highlight=False, emoji=False)
        where.print(f"[bold red]{type(error).__name__}:[/] {escape(str(error))}", soft_wrap=True)


@contextmanager
def opened(site_file: Path, as_json: bool = True) -> Iterator[tuple[SiteSettings, Records]]:
    """The hospital's settings, and its ledger and audit log, open. Within it the hospital's language is spoken, unless
    a program reads the answer."""
    settings = load(site_file)
    refuse_root(settings.ledger)
    with (
        spoken(language_of(settings, as_json)),
        open_records(settings.ledger, settings.audit_log, secret(settings)) as records,
    ):
        yield settings, records


def language_of(settings: SiteSettings, as_json: bool) -> Language:
    """The hospital's language for people; English for programs."""
    return "en" if as_json else settings.lang


def refuse_root(ledger: Path) -> None:
    """Refuse root where the ledger is another user's: what root writes there is root's alone, and the trainer, which
    runs as that user, could not read it.

    Raises:
        SiteMisconfigured
    """
    with suppress(OSError):
        owner = ledger.stat().st_uid
        if os.geteuid() == 0 and owner != 0:
            raise SiteMisconfigured(f"{ledger} belongs to user {owner}: run this as that user (runuser -u USER -- ...)")


def who(by: str) -> str:
    """The person who decides: as given, or who is logged in.

    Raises:
        SiteMisconfigured: nobody was named and the system knows no login name, as in some containers.
    """
    try:
        return by.strip() or getpass.getuser()
    except (KeyError, OSError):
        raise SiteMisconfigured("the system does not know your login name; add --by NAME") from None


def answer(as_json: bool, facts: object, *shown: RenderableType) -> None:
    """Print the facts as JSON, or what is shown to a person."""
    if as_json:
        print(json.dumps(plain(facts), ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=False, emoji=False)
    for part in shown:
        console.print(part)


@contextmanager
def progress(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on standard error. The callback takes a label, how much is done, and the total."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json) as bar:
        waiting = bar.add_task("reading headers", total=None)
        rows: dict[str, TaskID] = {}

        def update(label: str, done: int, total: int) -> None:
            bar.update(waiting, visible=False)
            if label not in rows:
                rows[label] = bar.add_task(label, total=total)
            bar.update(rows[label], completed=done, total=total)

        yield update


def plain(value: Any) -> Any:
    """The value as JSON can hold it: infinity becomes null, times are ISO 8601."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}  # asdict breaks a Counter
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return str(value) if isinstance(value, Path) else value


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    numbers: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Table:
    """A table. Columns in ``numbers`` are right-aligned; neither they nor those in ``whole`` are wrapped."""
    made = Table(title=title, title_justify="left", title_style="bold", show_header=any(columns))
    made.box, made.pad_edge = SIMPLE_HEAD, False
    for column in columns:
        justify: JustifyMethod = "right" if column in numbers else "left"
        made.add_column(column, justify=justify, no_wrap=column in {*numbers, *whole}, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return made


def short(digest: str) -> str:
    """As many digits of a digest as a person needs."""
    return digest[:12]


def moment(at: datetime | None) -> str:
    """A time in UTC, for people."""
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M}"


def amount(epsilon: float | None) -> str:
    """An epsilon, for people."""
    if epsilon is None:
        return "-"
    return f"{epsilon:.3f}" if math.isfinite(epsilon) else "no bound"


def fail(code: int) -> None:
    """End the command with an exit code."""
    sys.stdout.flush()
    raise typer.Exit(code)
