"""The command ``consilium-server dashboard``.

Tested in ``tests/server/dashboard/test_server_page.py``.
"""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.output import HERE, HomeFolder
from server.deployment.server_dir import read
from server.errors import ServerMisconfigured
from tasks.machine.dashboard import LocalPage, until_ended


def dashboard(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where; an address of this machine only.")
    ] = "127.0.0.1:9481",
    home: HomeFolder = HERE,
) -> None:
    """Show the server on a page of this machine, for a browser here: studies, hospitals, the queue, and logs.

    It can only be read. Its address has a secret that is new at every start. From elsewhere: ssh -L 9481:127.0.0.1:9481
    MACHINE, then the same address. Runs until SIGTERM or Ctrl-C.
    """
    from server.dashboard.server_page import ServerPage

    server_dir = read(home)
    try:
        shown = LocalPage(listen, ServerPage(server_dir.path))
    except ValueError as error:
        raise ServerMisconfigured(f"--listen {error}") from None
    with shown:
        print(f"{server_dir.settings.host}: {shown.url}", flush=True)
        until_ended()
