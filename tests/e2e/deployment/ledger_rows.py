"""What a hospital's ledger and audit log say afterwards."""

from __future__ import annotations

from client.ledger.records import open_records
from client.site import load, secret
from tests.e2e.deployment.federation import Hospital


def problems_in_records(hospital: Hospital) -> list[str]:
    """All that is wrong with ledger and audit log."""
    settings = load(hospital.site)
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        return records.verify()


def ledger_rows(hospital: Hospital, study: str) -> list[tuple[str, int]]:
    """Cohort and round of every reservation of a study."""
    settings = load(hospital.site)
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        return sorted(
            (entry.use.cohort, entry.use.round) for entry in records.ledger.entries() if entry.use.study == study
        )


def reservations_lost(hospital: Hospital) -> int:
    """How many orders were reserved and never committed: their processes were killed, and they stay charged."""
    settings = load(hospital.site)
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        return sum(entry.committed is None for entry in records.ledger.entries())


def ledger_contains(hospital: Hospital, head: str) -> bool:
    """Whether a row of its ledger has this hash."""
    settings = load(hospital.site)
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        return records.ledger.contains(head)
