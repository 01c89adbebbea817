"""The audit log: show, filter and verify what left the hospital and who decided what.

Tested in ``tests/client/cli/test_main.py``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any

import typer

from client.cli.ledger import verify
from client.cli.output import HERE, AsJson, SiteFile, amount, answer, moment, opened, plain, short, table
from client.ledger.audit_log import Event, Fact, Kind, Receipt

app = typer.Typer(name="audit", invoke_without_command=True, suggest_commands=False)

RECEIPT = "receipt"
_DIGESTS = ("digest", "terms", "seen", "lost", "pairs")


def _kind(value: str) -> str:
    if value not in ("", RECEIPT, *Kind):
        raise typer.BadParameter(f"must be one of {', '.join((RECEIPT, *Kind))}")
    return value


def _moment(value: str) -> datetime | None:
    if not value:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter("must be a date or time in ISO 8601, such as 2026-01-31 or 2026-01-31T12:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@app.callback()
def show(
    context: typer.Context,
    study: Annotated[str, typer.Option("--study", help="Only entries of this study.")] = "",
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Only entries from this time on (UTC).")] = "",
    kind: Annotated[str, typer.Option("--kind", callback=_kind, help="Only receipts, or one kind of event.")] = "",
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Show what left the hospital and who decided what, oldest first."""
    if context.invoked_subcommand is not None:
        return
    start = _moment(since)
    with opened(site) as (_, records):
        changed = _policy_changes(records.audit_log.receipts())
        receipts = records.audit_log.receipts(study or None, since=start) if kind in ("", RECEIPT) else []
        events = records.audit_log.events(Kind(kind) if kind else None, study or None, start) if kind != RECEIPT else []
    entries: list[Receipt | Event] = [*receipts, *events]
    entries.sort(key=lambda entry: entry.seq or 0)
    rows = [_row(entry, changed) for entry in entries]
    columns = ("row", "at (UTC)", "what", "details")
    shown = table("Audit log", columns, rows, numbers=("row",), whole=("at (UTC)",))
    answer(as_json, [_facts(entry) for entry in entries], shown if rows else "No such entries in the audit log.")


def _policy_changes(receipts: list[Receipt]) -> set[int]:
    """Rows of receipts whose policy or caps differ from those of the receipt before."""
    return {after.seq or 0 for before, after in pairwise(receipts) if before.policy and before.policy != after.policy}


def _row(entry: Receipt | Event, changed: set[int]) -> tuple[object, ...]:
    if isinstance(entry, Event):
        facts = {name: fact for name, fact in entry.facts.items() if name not in ("study", "document")}
        details = [_fact(name, fact) for name, fact in facts.items() if fact not in ("", False, None)]
        study = [str(entry.facts["study"])] if "study" in entry.facts else []
        return entry.seq, moment(entry.at), entry.kind, ", ".join(study + details)
    note = f", POLICY CHANGED to {short(entry.policy)}" if entry.seq in changed else ""
    return entry.seq, moment(entry.at), entry.message, _details(entry) + note


def _fact(name: str, fact: Fact) -> str:
    if fact is True:
        return name
    return f"{name} {short(str(fact)) if name in _DIGESTS else fact}"


def _details(receipt: Receipt) -> str:
    parts = [receipt.study, f"round {receipt.round}", f"{receipt.bytes:,} bytes", f"SHA-256 {short(receipt.sha256)}"]
    if receipt.tensors:
        parts.append(f"{len(receipt.tensors)} tensor{'s' if len(receipt.tensors) > 1 else ''}")
    if receipt.update_norm is not None:
        parts.append(f"norm {receipt.update_norm:.4g}")
    if receipt.cohort is not None:
        parts.append(f"epsilon {amount(receipt.epsilon_before)} to {amount(receipt.epsilon_after)}")
    return ", ".join([*parts, *(["repeated reply"] if receipt.repeated else [])])


def _facts(entry: Receipt | Event) -> dict[str, Any]:
    facts: dict[str, Any] = plain(entry)
    if isinstance(entry, Event):
        return facts
    ledger = None if entry.ledger is None else {"row": entry.ledger.seq, "hash": entry.ledger.hash}
    return {"kind": RECEIPT, **facts, "ledger": ledger}


app.command()(verify)
