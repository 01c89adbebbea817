"""The ledger: show, verify, back up. Verification and backup always include the audit log: each is checked against the
other, and neither can be restored without the other.

Tested in ``tests/client/cli/test_main.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from client.cli import recovery
from client.cli.output import HERE, REFUSED, AsJson, SiteFile, amount, answer, fail, moment, opened, short, table
from client.errors import SiteMisconfigured
from client.ledger.records import faults_of_records
from client.oversight import budget, premises
from client.site import delta_cap, load, secret

app = typer.Typer(name="ledger", invoke_without_command=True, suggest_commands=False)


@app.callback()
def show(context: typer.Context, site: SiteFile = HERE, as_json: AsJson = False) -> None:
    """Show the privacy budget that every cohort and every study has spent, against the caps."""
    if context.invoked_subcommand is not None:
        return
    with opened(site) as (settings, records):
        cohorts, studies = budget.by_cohort(records.ledger, settings), budget.by_study(records.ledger, settings)
        head, change, lost = (
            records.ledger.head(),
            premises.change_of(settings, records.ledger),
            premises.lost_heads(records),
        )
    delta = delta_cap(settings)
    life = table(
        f"Spent by all studies, epsilon at delta {delta:g}",
        ("cohort", "spent", "with set aside", "cap for life", "left", "orders"),
        [(c.cohort, amount(c.epsilon), amount(c.with_set_aside), f"{c.cap:g}", amount(c.left), c.orders)
         for c in cohorts],
        numbers=("spent", "with set aside", "cap for life", "left", "orders"),
        whole=("cohort",),
    )  # fmt: skip
    by_study = table(
        "Spent by each study",
        ("study", "cohort", "spent", "set aside", "cap", "orders", "lost", "last (UTC)"),
        [(s.study, s.cohort, amount(s.epsilon), amount(s.set_aside), f"{s.cap:g}", s.orders, s.lost, moment(s.last))
         for s in studies],
        numbers=("spent", "set aside", "cap", "orders", "lost"),
        whole=("cohort", "last (UTC)"),
    )  # fmt: skip
    facts = {"delta": delta, "cohorts": cohorts, "studies": studies, "head": {"row": head.seq, "hash": head.hash}}
    facts["terms_differ"], facts["lost"] = [] if change is None else change.differs, lost
    wrong = [Text(line) for line in [*_if_all_conspire(cohorts), *_wrong(change, lost)]]
    answer(as_json, facts, *((life, "", by_study) if cohorts else ("Nothing has been spent yet.",)), *wrong)


def _if_all_conspire(cohorts: list[budget.CohortBudget]) -> Iterator[str]:
    """The second account, of cohorts that were part of secure sums."""
    for cohort in cohorts:
        if cohort.alone is not None and cohort.cap_alone is not None:
            yield (
                f"{cohort.cohort}: the figures above hold if the hospitals that share noise add theirs; if all others "
                f"conspired with the coordinator, {amount(cohort.alone)} with what is set aside, of a cap of "
                f"{cohort.cap_alone:g}"
            )


def _wrong(change: premises.TermsChange | None, lost: list[str]) -> Iterator[str]:
    """What keeps the hospital from answering although every row is intact."""
    for phrase in () if change is None else change.differs:
        yield f"TERMS {phrase}: restore site.yaml, or run: consilium-site ledger rebase"
    for hash in lost:
        yield f"BEHIND the coordinator has seen entry {short(hash)}, which is not here: restore the newest backup"


@app.command()
def verify(site: SiteFile = HERE, as_json: AsJson = False) -> None:
    """Verify every row of ledger and audit log, and both against each other, site.yaml and the coordinator's record.
    Exit code 1 when anything is wrong."""
    settings = load(site)
    faults = faults_of_records(settings.ledger, settings.audit_log, secret(settings))
    if faults:
        answer(as_json, {"faults": faults}, *(Text(f"FAULT {fault}") for fault in faults))
        fail(REFUSED)
    with opened(site) as (_, records):
        without = records.without_receipt()
        wrong = list(_wrong(premises.change_of(settings, records.ledger), premises.lost_heads(records)))
        rows = {"ledger": records.ledger.head().seq + 1, "audit_log": records.audit_log.head().seq + 1}
    lines = [f"{name}: all {count} rows are intact" for name, count in rows.items()]
    lines += [f"ledger row {row}: its reply has no receipt, so it never left" for row in without]
    answer(as_json, {"faults": wrong, "without_receipt": without, "rows": rows}, *map(Text, lines + wrong))
    if wrong:
        fail(REFUSED)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder for the copies.")],
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Back up ledger, audit log and who is who; the hospital can stay running. The key is not copied.

    To restore, stop the trainer and copy all files back. The backup does not hold what was spent after it was made.
    """
    from client.cohort import people

    if folder.exists():
        raise SiteMisconfigured(f"{folder} exists already; choose a new folder")
    folder.mkdir(parents=True)
    with opened(site) as (settings, records):
        copies = [folder / settings.ledger.name, folder / settings.audit_log.name]
        records.backup(ledger=copies[0], audit_log=copies[1])
        if settings.people.exists():
            copies.append(people.backup(settings, folder))
    answer(as_json, {"copies": copies}, *(Text(f"wrote {copy}") for copy in copies))


app.command()(recovery.rebase)
app.command()(recovery.acknowledge)
app.command("replace-audit-log")(recovery.replace_audit_log)
