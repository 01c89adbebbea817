"""Recovery after a change or loss of something the ledger depends on: what a person signs, and what it costs.

Each command shows the cost first, asks for confirmation, and is entered in audit log and ledger. None can be undone,
and none weakens what patients were promised.
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

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


def rebase(site: SiteFile = HERE, by: By = "", yes: Yes = False, as_json: AsJson = False) -> None:
    """Adopt split, issuers and caps from site.yaml as the ledger's terms; until then no order is answered.

    If anyone may have changed sides, everything spent on either side counts on both from then on.
    """
    with opened(site) as (settings, records):
        change = premises.change_of(settings, records.ledger)
        if change is not None:
            _confirm(yes, as_json, [*change.differs, *_price(settings, records.ledger, change)], "Sign this?")
        done = premises.rebase(settings, records, who(by))
    lines = [f"The ledger has these terms from now on, signed by {who(by)}."]
    answer(as_json, {"changed": done.differs, "both_cohorts": done.moves}, *map(Text, lines))


def _price(settings: SiteSettings, ledger: Ledger, change: premises.TermsChange) -> Iterator[str]:
    if not change.moves:
        yield "Nobody changes sides: what each side has spent stays the same."
        return
    delta, account = delta_cap(settings), ledger.account()
    after = amount(epsilon_of(account.everything(), delta))
    for cohort in COHORTS.values():
        yield (
            f"Some patients may change sides. The {cohort} patients have spent "
            f"{amount(epsilon_of(account.spent(cohort), delta))}; it will be {after}, of the "
            f"{settings.policy.max_epsilon_life:g} for life. This cannot be undone."
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
    """Continue without ledger entries that the coordinator has seen and no backup has; `audit` lists them.

    What they may have spent is charged to all patients of both sides, for life. Take the amount from the reports of the
    studies that ran in the meantime, or the most that the policy allowed: too little breaks the promise to these
    patients.
    """
    spent = {COHORTS["training"]: spent_training, COHORTS["evaluation"]: spent_validation}
    lines = [f"Charged for life, cannot be undone: {cohort} epsilon {epsilon:g}" for cohort, epsilon in spent.items()]
    _confirm(yes, as_json, lines, f"Sign that entry {entry} is permanently lost?")
    with opened(site) as (settings, records):
        lost = premises.acknowledge(settings, records, entry, spent, who(by))
    answer(as_json, {"lost": lost, "spent": spent}, Text(f"Entry {short(lost)} is acknowledged, by {who(by)}."))


def replace_audit_log(site: SiteFile = HERE, by: By = "", yes: Yes = False, as_json: AsJson = False) -> None:
    """Start a new audit log when the old one and all its backups are lost. The ledger stays and records the loss.

    Receipts and approvals are lost with the old one: every study must be approved again.
    """
    settings = load(site)
    name, lines = require_name(who(by)), ["Its receipts and approvals are lost: studies must be approved again"]
    _confirm(yes, as_json, lines, f"Sign that the audit log {settings.audit_log} and all its backups are lost?")
    replace_lost_audit_log(settings.ledger, settings.audit_log, secret(settings))
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        sign(records.audit_log, Kind.AUDIT_LOG_REPLACED, name, {})
    message = Text(f"Started a new audit log {settings.audit_log}, signed by {name}; the loss is in the ledger.")
    answer(as_json, {"audit_log": settings.audit_log}, message)


def _confirm(yes: bool, as_json: bool, lines: list[str], question: str) -> None:
    """Show what is about to be signed, and ask for confirmation.

    Raises:
        SiteMisconfigured: nobody is there to answer, or the answer is no.
    """
    if yes:
        return
    if as_json:
        raise SiteMisconfigured("--json cannot ask for confirmation: add --yes")
    answer(False, lines, *map(Text, lines))
    try:
        agreed = typer.confirm(question)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise SiteMisconfigured("not confirmed: nothing was signed and nothing has changed")
