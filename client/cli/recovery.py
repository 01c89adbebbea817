"""Going on after something was changed or lost on which the books rest: what a person signs, and what it costs.

Each of these commands shows the price first, asks, and is entered in the audit log and in the ledger. None of them is
ever undone, and none makes a patient's promise larger than it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from client.cli.output import HERE, AsJson, By, SiteFile, amount, answer, opened, short, who
from client.errors import SiteMisconfigured
from client.ledger.accounting import epsilon_of
from client.ledger.audit_log import Kind
from client.ledger.ledger import Ledger
from client.ledger.records import open_records, replace_lost_audit_log
from client.oversight import premises
from client.oversight.signature import require_name, sign
from client.policy import COHORTS
from client.site import SiteSettings, delta_cap, load, secret

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def rebase(site: SiteFile = HERE, by: By = "", yes: Yes = False, as_json: AsJson = False) -> None:
    """Make what site.yaml says of split, issuers and caps the ledger's terms; until then no order is answered.

    Where somebody may have changed sides, all that was spent on either side counts on both from then on.
    """
    with opened(site) as (settings, records):
        change = premises.change_of(settings, records.ledger)
        if change is not None:
            _confirm(yes, as_json, [*change.differs, *_price(settings, records.ledger, change)], "Sign this?")
        done = premises.rebase(settings, records, who(by))
    lines = [f"These are the ledger's terms from now on, signed by {who(by)}."]
    answer(as_json, {"changed": done.differs, "both_cohorts": done.moves}, *map(Text, lines))


def _price(settings: SiteSettings, ledger: Ledger, change: premises.TermsChange) -> Iterator[str]:
    if not change.moves:
        yield "Nobody changes sides: what each side has spent stays what it is."
        return
    delta, account = delta_cap(settings), ledger.account()
    after = amount(epsilon_of(account.everything(), delta))
    for cohort in COHORTS.values():
        yield (
            f"Somebody may be on the other side from now on. The {cohort} patients have spent "
            f"{amount(epsilon_of(account.spent(cohort), delta))}; it will be {after}, of the "
            f"{settings.policy.max_epsilon_life:g} of a life. This is never undone."
        )


def acknowledge(
    entry: Annotated[str, typer.Argument(metavar="HASH", help="The entry's hash, or its first 8 digits or more.")],
    spent_training: Annotated[float, typer.Option("--spent-training", help="Epsilon that training may have spent.")],
    spent_validation: Annotated[float, typer.Option("--spent-validation", help="Epsilon that scoring may have spent.")],
    site: SiteFile = HERE,
    by: By = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Go on without entries of the ledger that the coordinator has seen and no backup has; see `audit`.

    What they may have spent is charged to all patients of either side, for life. Take it from the reports of the
    studies that ran meanwhile, or as much as the policy allowed: too little breaks what these patients were promised.
    """
    spent = {COHORTS["training"]: spent_training, COHORTS["evaluation"]: spent_validation}
    lines = [f"Charged for life, and never undone: {cohort} epsilon {epsilon:g}" for cohort, epsilon in spent.items()]
    _confirm(yes, as_json, lines, f"Sign that entry {entry} is lost for good?")
    with opened(site) as (settings, records):
        lost = premises.acknowledge(settings, records, entry, spent, who(by))
    answer(as_json, {"lost": lost, "spent": spent}, Text(f"Entry {short(lost)} is acknowledged, by {who(by)}."))


def replace_audit_log(site: SiteFile = HERE, by: By = "", yes: Yes = False, as_json: AsJson = False) -> None:
    """Begin a new audit log when the old one and all its backups are lost. The ledger stays and notes the loss.

    Receipts and approvals are lost with it: every study has to be approved again.
    """
    settings = load(site)
    name, lines = require_name(who(by)), ["Receipts and approvals are lost with it: approve studies again"]
    _confirm(yes, as_json, lines, f"Sign that the audit log {settings.audit_log} and all its backups are lost?")
    replace_lost_audit_log(settings.ledger, settings.audit_log, secret(settings))
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        sign(records.audit_log, Kind.AUDIT_LOG_REPLACED, name, {})
    told = Text(f"{settings.audit_log} is new, signed by {name}; the ledger has noted it.")
    answer(as_json, {"audit_log": settings.audit_log}, told)


def _confirm(yes: bool, as_json: bool, lines: list[str], question: str) -> None:
    """Show what is about to be signed, and ask.

    Raises:
        SiteMisconfigured: nobody is there to answer, or the answer is no.
    """
    if yes:
        return
    if as_json:
        raise SiteMisconfigured("--json cannot ask: add --yes")
    answer(False, lines, *map(Text, lines))
    try:
        agreed = typer.confirm(question)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise SiteMisconfigured("nothing was signed and nothing has changed")
