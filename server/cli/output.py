"""What all commands share: the option for the server's folder, output, and errors.

Tested in ``tests/server/cli/test_people.py``.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from server.errors import ServerMisconfigured, StudyError
from tasks import faults

REFUSED, MISUSED, DOWN = 1, 2, 3
"""Exit codes; ``main.py`` explains them."""

HomeFolder = Annotated[
    Path, typer.Option("--home", envvar="CONSILIUM_SERVER", metavar="FOLDER", help="The server's folder.")
]
HERE = Path("server-home")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class ServerCommands(TyperGroup):
    """Turns every error into a sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (StudyError, OSError, sqlite3.Error) as error:
            told: Exception = error
            if isinstance(error, OSError):
                told = ServerMisconfigured(faults.of_system(error))
            elif isinstance(error, sqlite3.Error):
                told = ServerMisconfigured(faults.of_database(error))
            Console(stderr=True, highlight=False, emoji=False).print(
                f"[bold red]{type(told).__name__}:[/] {escape(str(told))}", soft_wrap=True
            )
            ctx.exit(MISUSED if isinstance(told, ServerMisconfigured) else REFUSED)


def answer(as_json: bool, facts: object, *shown: RenderableType) -> None:
    """Print the facts as JSON, or the tables and lines for a person."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, default=str))
        return
    console = Console(highlight=False, emoji=False)
    for part in shown:
        console.print(part, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table without frames."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


def fail(code: int) -> None:
    """End the command with an exit code."""
    sys.stdout.flush()
    raise typer.Exit(code)
