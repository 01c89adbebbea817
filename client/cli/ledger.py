"""The ledger: printed, verified, backed up. Verification and backup always take the journal along: each vouches for the
other, and one without the other cannot be restored."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from client.books.accounting import epsilon_of
from client.books.ledger import Ledger
from client.books.pair import faults_of_books
from client.cli.output import HERE, REFUSED, AsJson, SiteFile, amount, answer, fail, moment, opened, table
from client.errors import SiteMisconfigured
from client.site import SiteSettings, delta_cap, load, secret

app = typer.Typer(name="ledger", invoke_without_command=True)


@app.callback()
def show(context: typer.Context, site: SiteFile = HERE, as_json: AsJson = False) -> None:
    """Print what every cohort and every study has spent of the patients' privacy, against the caps."""
    if context.invoked_subcommand is not None:
        return
    with opened(site) as (settings, books):
        cohorts, studies = _by_cohort(books.ledger, settings), _by_study(books.ledger, settings)
        head = books.ledger.head()
    delta = delta_cap(settings)
    life = table(
        f"Spent by all studies, epsilon at delta {delta:g}",
        ("cohort", "spent", "cap for life", "left", "orders"),
        [(c["cohort"], amount(c["epsilon"]), f"{c['cap']:g}", amount(c["left"]), c["orders"]) for c in cohorts],
        numbers=("spent", "cap for life", "left", "orders"),
    )
    each = table(
        "Spent by each study",
        ("study", "cohort", "spent", "cap", "orders", "lost", "last (UTC)"),
        [(s["study"], s["cohort"], amount(s["epsilon"]), f"{s['cap']:g}", s["orders"], s["lost"], moment(s["last"]))
         for s in studies],
        numbers=("spent", "cap", "orders", "lost"),
        whole=("last (UTC)",),
    )  # fmt: skip
    facts = {"delta": delta, "cohorts": cohorts, "studies": studies, "head": {"row": head.seq, "hash": head.hash}}
    answer(as_json, facts, *((life, "", each) if cohorts else ("Nothing was spent yet.",)))


def _by_cohort(ledger: Ledger, settings: SiteSettings) -> list[dict[str, Any]]:
    cap, found = settings.policy.max_epsilon_life, []
    for cohort in ledger.cohorts():
        spent = ledger.spent(cohort)
        epsilon = epsilon_of(spent, delta_cap(settings))
        found.append({"cohort": cohort, "epsilon": epsilon, "cap": cap, "left": max(0.0, cap - epsilon)})
        found[-1]["orders"] = len(spent)
    return found


def _by_study(ledger: Ledger, settings: SiteSettings) -> list[dict[str, Any]]:
    """A lost order was reserved and never answered: its work was cut short, and it has spent all the same."""
    delta, found = delta_cap(settings), []
    pairs = dict.fromkeys((entry.use.study, entry.use.cohort) for entry in ledger.entries())
    for study, cohort in pairs:
        entries = [e for e in ledger.entries() if (e.use.study, e.use.cohort) == (study, cohort)]
        found.append({
            "study": study,
            "cohort": cohort,
            "epsilon": epsilon_of(ledger.spent(cohort, study), delta),
            "cap": settings.policy.max_epsilon_study,
            "orders": len(entries),
            "lost": sum(entry.committed is None for entry in entries),
            "last": datetime.fromisoformat(entries[-1].reserved_at),
        })  # fmt: skip
    return found


@app.command()
def verify(site: SiteFile = HERE, as_json: AsJson = False) -> None:
    """Check every row of ledger and journal, and each against the other. Exit code 1 when anything is wrong."""
    settings = load(site)
    faults = faults_of_books(settings.ledger, settings.journal, secret(settings))
    if faults:
        answer(as_json, {"faults": faults}, *(Text(f"FAULT {fault}") for fault in faults))
        fail(REFUSED)
    with opened(site) as (_, books):
        without = books.without_receipt()
        rows = {"ledger": books.ledger.head().seq + 1, "journal": books.journal.head().seq + 1}
    lines = [f"{name}: all {count} rows are as they were written" for name, count in rows.items()]
    lines += [f"ledger row {row}: its reply has no receipt, so it has not left" for row in without]
    answer(as_json, {"faults": [], "without_receipt": without, "rows": rows}, *map(Text, lines))


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder; both books go there.")],
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Copy ledger and journal while the hospital works on. The secret is not copied: it belongs in the safe.

    To restore, stop the trainer and copy both files back. What was spent since the backup is not in it.
    """
    if folder.exists():
        raise SiteMisconfigured(f"{folder} exists; name a folder that does not")
    with opened(site) as (settings, books):
        copies = [folder / settings.ledger.name, folder / settings.journal.name]
        books.backup(ledger=copies[0], journal=copies[1])
    answer(as_json, {"copies": copies}, *(Text(f"wrote {copy}") for copy in copies))
