"""The hospital as a whole: set it up, show its status, stop and resume it.

Tested in ``tests/client/cli/test_main.py``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.markup import escape

from client.cli.output import HALTED, HERE, AsJson, By, SiteFile, answer, fail, moment, opened, table, who
from client.errors import SiteError, SiteMisconfigured
from client.ledger.audit_log import AuditLog, Fact, Kind
from client.ledger.records import Records
from client.link import watch
from client.oversight import approvals as decided
from client.oversight import halt
from client.setup.provisioning import provision, write_example
from client.setup.systemd import write_units
from client.site import SiteSettings, load, secret


def init(
    site: SiteFile = HERE,
    name: Annotated[str, typer.Option("--name", help="The hospital's public name, if there is no site.yaml yet.")] = "",
    units: Annotated[bool, typer.Option("--systemd", help="Also write units for systemd beside site.yaml.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create site.yaml, key, ledger and audit log if missing."""
    made = []
    if not site.exists():
        if not name:
            raise SiteMisconfigured(f"{site} does not exist; create it with --name NAME, or set --site PATH")
        write_example(site, name)
        made.append(site)
    settings = load(site)
    made += provision(settings)
    lines = [f"created {path}" for path in made] or ["everything exists already; nothing was created"]
    if site in made:
        lines.append(f"Next: edit what is marked CHANGE in {site}, and keep a copy of {settings.key.name} in a safe.")
    if units:
        written = write_units(settings, site)
        made += written
        lines.append(f"wrote {written[0].parent}; after enroll, and whenever site.yaml has changed: sh {written[-1]}")
    answer(as_json, {"hospital": settings.name, "made": made}, *lines)


def status(site: SiteFile = HERE, as_json: AsJson = False) -> None:
    """Show whether this hospital answers orders, and what needs attention. Exit code 3 when it is stopped."""
    with opened(site) as (settings, records):
        facts = _facts(settings, records)
    rows = [(key.replace("_", " "), _told(value)) for key, value in facts.items() if key != "programs"]
    rows += watch.states(settings).items()
    answer(as_json, facts, table(f"Hospital {settings.name}", ("", ""), rows))
    if facts["stopped"]:
        fail(HALTED)


def _told(value: object) -> object:
    if isinstance(value, datetime):
        return f"{moment(value)} UTC"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "never" if value is None else value


def _facts(settings: SiteSettings, records: Records) -> dict[str, object]:
    known = decided.decisions(records.audit_log, settings).values()
    receipts = records.audit_log.receipts()
    return {
        "hospital": settings.name,
        "simulated": settings.simulated,
        "stopped": halt.stopped(settings.stop_file),
        "studies_approved": sum(decision.approved for decision in known),
        "studies_waiting": len(decided.waiting(settings)),
        "ledger_rows": records.ledger.head().seq + 1,
        "audit_log_rows": records.audit_log.head().seq + 1,
        "messages_left": len(receipts),
        "last_message": receipts[-1].at if receipts else None,
        "programs": watch.states(settings),
    }


def stop(
    site: SiteFile = HERE,
    reason: Annotated[str, typer.Option("--reason", help="The reason, for the audit log.")] = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Stop now: nothing leaves, not even a reply in progress.

    It stops first and writes to the audit log afterwards, so it works even if ledger or audit log is damaged.
    """
    settings = load(site)
    already = halt.stopped(settings.stop_file)
    halt.stop(settings.stop_file, f"by {who(by)}: {reason or 'no reason given'}")
    fault = None
    try:
        if not already:
            _note(settings, Kind.STOP, {"by": who(by), "reason": reason})
    except (SiteError, ValueError) as error:
        fault = str(error)
    state = "was stopped already" if already else "is stopped: nothing leaves"
    unwritten = [] if fault is None else [f"This could not be entered in the audit log: {escape(fault)}"]
    facts = {"stopped": True, "already": already, "stop_file": settings.stop_file, "audit_log_fault": fault}
    answer(as_json, facts, f"{settings.name} {state}.", *unwritten)


def resume(site: SiteFile = HERE, by: By = "", as_json: AsJson = False) -> None:
    """Answer orders again. Fails, and stays stopped, if the audit log is damaged."""
    settings = load(site)
    had_stopped = halt.stopped(settings.stop_file)
    if had_stopped:
        _note(settings, Kind.RESUMPTION, {"by": who(by)})
        halt.resume(settings.stop_file)
    state = "answers orders again" if had_stopped else "was not stopped"
    answer(as_json, {"stopped": False, "had_stopped": had_stopped}, f"{settings.name} {state}.")


def _note(settings: SiteSettings, kind: Kind, facts: dict[str, Fact]) -> None:
    with AuditLog.open(settings.audit_log, secret(settings)) as audit_log:
        audit_log.append_event(kind, facts)
