"""The command ``consilium-site``: every command for hospital staff, one line each.

Exit codes:

    0  success
    1  refused, or verification failed
    2  invalid command line or site.yaml, or what one of them names cannot be used or is not there
    3  ``status`` only: the hospital is stopped
   70  a defect of this program
"""

from __future__ import annotations

from typing import Annotated

import typer

from client.cli import audit, dashboard, data, importing, ledger, link, model, papers, site, studies
from client.cli.output import SiteCommands
from tasks import faults
from tasks.machine import version
from tasks.machine.disk import keep_to_owner

EXIT_CODES = (
    "Exit codes: 0 success. 1 refused, or verification failed. 2 invalid command line or site.yaml, or what one of "
    "them names cannot be used or is not there. 3 (status only) the hospital is stopped."
)

app = typer.Typer(
    cls=SiteCommands,
    no_args_is_help=True,
    suggest_commands=False,  # Click does so itself
    pretty_exceptions_enable=False,  # they print the values of variables, and a hospital's may be patients'
    help="Commands for hospital staff: set up the site, import and check images, review studies, inspect ledger and "
    "audit log, stop.",
    epilog=EXIT_CODES,
)


@app.callback()
def _options(shown: Annotated[bool, version.option("consilium-site")] = False) -> None: ...


app.command()(site.init)
app.command()(site.status)
app.command()(dashboard.dashboard)
app.command()(link.enroll)
app.command()(link.run)
app.command()(link.security)
app.command()(papers.evidence)
app.command("import")(importing.import_set)
app.command()(data.ingest)
app.command()(data.check)
app.command()(data.identities)
app.command("describe")(data.describe_cohort)
app.command()(data.baseline)
app.command()(model.predict)
app.command()(model.conformance)
app.command()(studies.compare)
app.command()(studies.review)
app.command()(studies.approve)
app.command()(studies.revoke)
app.command()(studies.approvals)
app.add_typer(ledger.app)
app.add_typer(audit.app)
app.command()(site.stop)
app.command()(site.resume)


def main() -> None:
    """Entry point of ``consilium-site``."""
    keep_to_owner()
    with faults.told("consilium-site"):
        app()
