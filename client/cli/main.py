"""The command ``consilium-site``: every command of the hospital's people, one line each.

Exit codes:

    0  done; the answer is good
    1  refused, not found, or a verification failed
    2  the command line, site.yaml or a file it names is wrong
    3  ``status`` only: the hospital has stopped
"""

from __future__ import annotations

import typer

from client.cli import audit, data, ledger, link, model, site, studies
from client.cli.output import SiteCommands
from tasks.machine.disk import keep_to_owner

EXIT_CODES = (
    "Exit codes: 0 done. 1 refused, not found, or a verification failed. 2 the command line, site.yaml or a file it "
    "names is wrong. 3 (status only) the hospital has stopped."
)

app = typer.Typer(
    cls=SiteCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they print the values of variables, and a hospital's may be patients'
    help="What the people of one hospital need: found it, read in its images and check them, approve studies, read "
    "ledger and audit log, stop it.",
    epilog=EXIT_CODES,
)

app.command()(site.init)
app.command()(site.status)
app.command()(link.enroll)
app.command()(link.run)
app.command()(link.security)
app.command()(data.ingest)
app.command()(data.check)
app.command()(data.identities)
app.command("describe")(data.describe_cohort)
app.command()(data.baseline)
app.command()(model.predict)
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
    app()
