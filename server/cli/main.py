"""The command ``consilium-server``: every command of the coordinator, one line each.

Exit codes:

    0  done; the answer is good
    1  refused, not found, or not reached
    2  the command line, server.yaml or a file it names is wrong
    3  ``status`` only: the server is not running, or not healthy

Tested in ``tests/server/cli/test_people.py``.
"""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli import backup, dashboard, papers, people, server, status, studies
from server.cli.output import ServerCommands
from tasks.machine import version

EXIT_CODES = (
    "Exit codes: 0 done. 1 refused, not found, or not reached. 2 the command line, server.yaml or a file it names is "
    "wrong. 3 (status only) the server is not running, or not healthy."
)

app = typer.Typer(
    cls=ServerCommands,
    no_args_is_help=True,
    suggest_commands=False,  # Click does so itself
    pretty_exceptions_enable=False,
    help="Initialise and run the server, admit hospitals and people, show study progress.",
    epilog=EXIT_CODES,
)


@app.callback()
def _options(shown: Annotated[bool, version.option("consilium-server")] = False) -> None: ...


app.command()(server.init)
app.command()(server.up)
app.command()(status.status)
app.command()(dashboard.dashboard)
app.command("queue")(status.waiting)
app.command()(studies.stop)
app.command()(studies.logs)
app.command()(server.down)
app.command()(server.security)
app.command()(papers.evidence)
app.command()(people.admit)
app.command()(people.revoke)
app.command()(people.person)
app.command()(people.researcher)
app.command()(people.renew)
app.command()(backup.backup)
app.command()(backup.restore)


def main() -> None:
    """Entry point of ``consilium-server``."""
    app()


if __name__ == "__main__":
    main()
