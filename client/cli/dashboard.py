"""The command ``consilium-site dashboard``.

Tested in ``tests/client/dashboard/test_site_page.py``.
"""

from __future__ import annotations

from typing import Annotated

import typer

from client.cli.output import HERE, SiteFile, refuse_root
from client.errors import SiteMisconfigured
from client.site import load
from tasks.machine.dashboard import LocalPage, until_ended


def dashboard(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where; an address of this machine only.")
    ] = "127.0.0.1:9480",
    site: SiteFile = HERE,
) -> None:
    """Show the hospital on a page of this machine, for a browser here: what waits, ran, left, and what is left.

    It can only be read. Its address has a secret that is new at every start. From elsewhere: ssh -L 9480:127.0.0.1:9480
    MACHINE, then the same address. Runs until SIGTERM or Ctrl-C.
    """
    from client.dashboard.site_page import SitePage

    settings = load(site)
    refuse_root(settings.ledger)
    try:
        shown = LocalPage(listen, SitePage(site.resolve()))
    except ValueError as error:
        raise SiteMisconfigured(f"--listen {error}") from None
    with shown:
        print(f"{settings.name}: {shown.url}", flush=True)
        until_ended()
