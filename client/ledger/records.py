"""Ledger and audit log together: each records the other's head, so none can be lost, replaced or rolled back unnoticed.

A reply takes these steps in order: reserve in the ledger, work, build the report, commit in the ledger, receipt in the
audit log, send. The ledger is created first, and the audit log's first row names it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from client.errors import LedgerBroken, LedgerMissing
from client.ledger.audit_log import AuditLog
from client.ledger.chain import RESTORE, Chain
from client.ledger.database import Outlives
from client.ledger.handle_cache import HandleCache
from client.ledger.ledger import Ledger
from client.ledger.terms import Terms

_OPEN_HANDLES: HandleCache[Records] = HandleCache()
atexit.register(_OPEN_HANDLES.close)


@dataclass(frozen=True)
class Records:
    """Ledger and audit log, open and checked against each other."""

    ledger: Ledger
    audit_log: AuditLog

    def check(self) -> None:
        """That nobody has altered the rules of the files, and that each has the rows that the other has seen in it.

        Raises:
            LedgerTampered, LedgerRolledBack: as ``open_records``.
        """
        self.ledger.check()
        self.audit_log.check()
        self.require_match()

    def require_match(self) -> None:
        """Pass if each has the rows that the other has seen in it.

        Raises:
            LedgerRolledBack: one was restored from an old backup, or made anew.
        """
        self.ledger.require_not_older_than(self.audit_log.last_seen_ledger())
        if seen := self.ledger.last_seen_audit_log():
            self.audit_log.require_not_older_than(seen)

    def verify(self) -> list[str]:
        """All faults of both, row by row, each against what the other has seen."""
        faults = [f"ledger: {fault}" for fault in self.ledger.verify(self.audit_log.last_seen_ledger())]
        faults += [f"audit log: {fault}" for fault in self.audit_log.verify(self.ledger.last_seen_audit_log())]
        return faults

    def backup(self, ledger: Path, audit_log: Path) -> None:
        """Copy both to new files in one consistent state; other writers wait in the meantime.

        To restore, open the backup with ``open_records`` and back it up to where it belongs. That forgets what was
        entered since, and no witness on the same disk contradicts: back up after every round.

        Raises:
            LedgerBroken: a target exists, or a file fails verification.
        """
        with self.ledger.hold(), self.audit_log.hold():
            self.ledger.backup(ledger)
            self.audit_log.backup(audit_log)

    def without_receipt(self) -> list[int]:
        """Ledger rows of commits that no receipt mentions.

        A crash between commit and receipt leaves one: that reply has not left, and gets its receipt when it is asked
        again. Otherwise receipts were cut off.
        """
        mentioned = {receipt.sha256 for receipt in self.audit_log.receipts()}
        return [e.committed for e in self.ledger.entries() if e.committed and e.reply_sha256 not in mentioned]


def create_records(ledger: Path, audit_log: Path, secret: bytes, terms: Terms | None = None) -> None:
    """Empty ledger and audit log for a hospital that has never answered an order, with the ledger's terms.

    A kill in the middle leaves an untouched ledger without an audit log, from which calling again goes on. Whoever
    calls with other terms then finds the first ones in it, and has to rebase them.

    Raises:
        LedgerBroken: one of them exists already.
    """
    if os.path.lexists(audit_log):
        raise LedgerBroken(f"the audit log {audit_log} exists already; nothing was created")
    made = Ledger.open(ledger, secret) if os.path.lexists(ledger) else Ledger.create(ledger, secret, terms)
    with made:
        if made.head().seq > 0:
            raise LedgerMissing(f"the ledger {ledger} is in use, but its audit log {audit_log} is missing. {RESTORE}")
        AuditLog.create(audit_log, secret, made.head()).__exit__()


@contextmanager
def records_kept_open(
    ledger: Path, audit_log: Path, secret: bytes, outlives: Outlives = Outlives.POWER_FAILURE
) -> Iterator[Records]:
    """``open_records`` for frequent use: the files stay open, and only new rows are read.

    Before each use triggers are checked, and each file against what the other has seen. Their newest rows may be in the
    write-ahead logs beside the files until the process ends.

    Raises:
        LedgerMissing, LedgerTampered, LedgerRolledBack: as ``open_records``.
    """
    opening = partial(open_records, ledger, audit_log, secret, outlives)
    with _OPEN_HANDLES.use((ledger, audit_log), opening, (secret, outlives)) as records:
        records.check()
        yield records


@contextmanager
def open_records(
    ledger: Path, audit_log: Path, secret: bytes, outlives: Outlives = Outlives.POWER_FAILURE
) -> Iterator[Records]:
    """Open ledger and audit log, or neither.

    Args:
        outlives: what every transaction on them outlives.

    Raises:
        LedgerMissing: one or both files are missing; nothing is made in their place.
        LedgerTampered: rows are not as they were written.
        LedgerRolledBack: see ``Records.require_match``.
    """
    _refuse_missing(ledger, audit_log)
    with ExitStack() as stack:
        receipts = stack.enter_context(AuditLog.open(audit_log, secret, outlives))
        records = Records(stack.enter_context(Ledger.open(ledger, secret, receipts.head, outlives)), receipts)
        records.require_match()
        yield records


def faults_of_records(ledger: Path, audit_log: Path, secret: bytes) -> list[str]:
    """All faults of both, row by row, even if they are too damaged to be opened; see ``Records.verify``."""
    try:
        with open_records(ledger, audit_log, secret) as records:
            return records.verify()
    except LedgerBroken as error:
        faults = [str(error)]
    for path, purpose in ((ledger, "ledger"), (audit_log, "audit log")):
        with suppress(LedgerBroken), Chain(path, secret, purpose) as chain:  # that it does not open was said above
            faults += [f"{purpose}: {fault}" for fault in chain.verify()]
    return faults


def replace_lost_audit_log(ledger: Path, audit_log: Path, secret: bytes) -> None:
    """Start a new audit log when the old one and all its backups are lost. What was spent stays in the ledger, which
    also records the loss.

    A kill in the middle leaves an untouched audit log, from which calling again goes on.

    Raises:
        LedgerBroken: there is an audit log in use, or the ledger does not verify.
    """
    with Ledger.open(ledger, secret) as opened:
        if faults := opened.verify():
            raise LedgerBroken(f"the ledger {ledger} fails verification: {'; '.join(faults)}")
        exists = os.path.lexists(audit_log)
        with AuditLog.open(audit_log, secret) if exists else AuditLog.create(audit_log, secret, opened.head()) as log:
            if log.head().seq > 0:
                raise LedgerBroken(f"the audit log {audit_log} exists and is in use; it is not replaced")
            opened.audit_log_was_lost(log.head())


def _refuse_missing(ledger: Path, audit_log: Path) -> None:
    paths = {"ledger": ledger, "audit log": audit_log}
    missing = [f"{name} {path}" for name, path in paths.items() if not os.path.lexists(path)]
    if len(missing) == 2:
        raise LedgerMissing(
            f"there is neither {' nor '.join(missing)}. If this hospital has never answered an order, run: "
            f"consilium-site init. If it has: {RESTORE}"
        )
    if missing:
        raise LedgerMissing(f"the {missing[0]} is missing, although the other file exists. {RESTORE}")
