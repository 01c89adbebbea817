"""Ledger and journal together: each notes the other's head, so neither can be lost, replaced or put back unnoticed.

The order of a reply is: reserve in the ledger, work, build the report, commit in the ledger, receipt in the journal,
send. The ledger is made first and named in the journal's first row.
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
from client.ledger.handle_cache import HandleCache
from client.ledger.ledger import Ledger
from client.ledger.terms import Terms

_SHELF: HandleCache[Records] = HandleCache()
atexit.register(_SHELF.close)


@dataclass(frozen=True)
class Records:
    """Both, open, and known to belong together."""

    ledger: Ledger
    journal: AuditLog

    def check(self) -> None:
        """That nobody has altered the rules of the files, and that each has the rows that the other has seen in it.

        Raises:
            LedgerTampered, LedgerRolledBack: as ``open_records``.
        """
        self.ledger.check()
        self.journal.check()
        self.require_match()

    def require_match(self) -> None:
        """Pass if each has the rows that the other has seen in it.

        Raises:
            LedgerRolledBack: one was restored from an old backup, or made anew.
        """
        self.ledger.require_not_older_than(self.journal.last_seen_ledger())
        if seen := self.ledger.last_seen_journal():
            self.journal.require_not_older_than(seen)

    def verify(self) -> list[str]:
        """All that is wrong with both, row by row, each against what the other has seen."""
        faults = [f"ledger: {fault}" for fault in self.ledger.verify(self.journal.last_seen_ledger())]
        faults += [f"journal: {fault}" for fault in self.journal.verify(self.ledger.last_seen_journal())]
        return faults

    def backup(self, ledger: Path, journal: Path) -> None:
        """Copy both to new files as they are at one moment; reservations and receipts of others wait meanwhile.

        To restore, open the backup with ``open_records`` and back it up to where it belongs. That forgets what was
        entered since, and no witness on the same disk contradicts: back up after every round.

        Raises:
            LedgerBroken: a target exists, or a book does not verify.
        """
        with self.ledger.hold(), self.journal.hold():
            self.ledger.backup(ledger)
            self.journal.backup(journal)

    def without_receipt(self) -> list[int]:
        """Ledger rows of commits that no receipt mentions.

        A crash between commit and receipt leaves one: that reply has not left, and gets its receipt when it is asked
        again. Otherwise receipts were cut off.
        """
        mentioned = {receipt.sha256 for receipt in self.journal.receipts()}
        return [e.committed for e in self.ledger.entries() if e.committed and e.reply_sha256 not in mentioned]


def create_records(ledger: Path, journal: Path, secret: bytes, terms: Terms | None = None) -> None:
    """Empty books for a hospital that has never answered an order, with the terms on which their sums will rest.

    A kill in the middle leaves an untouched ledger without a journal, from which calling again goes on. Whoever calls
    with other terms then finds the first ones in it, and has to rebase them.

    Raises:
        LedgerBroken: there are books already.
    """
    if os.path.lexists(journal):
        raise LedgerBroken(f"the journal {journal} exists already; nothing was made")
    made = Ledger.open(ledger, secret) if os.path.lexists(ledger) else Ledger.create(ledger, secret, terms)
    with made:
        if made.head().seq > 0:
            raise LedgerMissing(f"the ledger {ledger} is in use, but its journal {journal} is missing. {RESTORE}")
        AuditLog.create(journal, secret, made.head()).__exit__()


@contextmanager
def records_kept_open(ledger: Path, journal: Path, secret: bytes) -> Iterator[Records]:
    """``open_records`` for who asks again and again: they stay open, and only new rows are read.

    Before each use triggers are checked, and each book against what the other has seen. Their newest rows may be in the
    write-ahead logs beside the files until the process ends.

    Raises:
        LedgerMissing, LedgerTampered, LedgerRolledBack: as ``open_records``.
    """
    with _SHELF.use((ledger, journal), partial(open_records, ledger, journal, secret), secret) as books:
        books.check()
        yield books


@contextmanager
def open_records(ledger: Path, journal: Path, secret: bytes) -> Iterator[Records]:
    """Both books, or neither.

    Raises:
        LedgerMissing: one or both files are missing; nothing is made in their place.
        LedgerTampered: rows are not as they were written.
        LedgerRolledBack: see ``Records.require_match``.
    """
    _refuse_missing(ledger, journal)
    with ExitStack() as stack:
        receipts = stack.enter_context(AuditLog.open(journal, secret))
        books = Records(stack.enter_context(Ledger.open(ledger, secret, receipts.head)), receipts)
        books.require_match()
        yield books


def faults_of_records(ledger: Path, journal: Path, secret: bytes) -> list[str]:
    """All that is wrong with both, row by row, also when they are too damaged to be opened; see ``Records.verify``."""
    try:
        with open_records(ledger, journal, secret) as books:
            return books.verify()
    except LedgerBroken as error:
        faults = [str(error)]
    for path, purpose in ((ledger, "ledger"), (journal, "journal")):
        with suppress(LedgerBroken), Chain(path, secret, purpose) as chain:  # that it does not open was said above
            faults += [f"{purpose}: {fault}" for fault in chain.verify()]
    return faults


def replace_lost_journal(ledger: Path, journal: Path, secret: bytes) -> None:
    """Begin a new journal when the old one and all its backups are gone. What was spent stays in the ledger, which also
    notes that the journal was lost.

    A kill in the middle leaves an untouched journal, from which calling again goes on.

    Raises:
        LedgerBroken: there is a journal in use, or the ledger does not verify.
    """
    with Ledger.open(ledger, secret) as book:
        if faults := book.verify():
            raise LedgerBroken(f"the ledger {ledger} does not verify: {'; '.join(faults)}")
        there = os.path.lexists(journal)
        with AuditLog.open(journal, secret) if there else AuditLog.create(journal, secret, book.head()) as begun:
            if begun.head().seq > 0:
                raise LedgerBroken(f"the journal {journal} exists and is in use; it is not replaced")
            book.journal_was_lost(begun.head())


def _refuse_missing(ledger: Path, journal: Path) -> None:
    paths = {"ledger": ledger, "journal": journal}
    missing = [f"{name} {path}" for name, path in paths.items() if not os.path.lexists(path)]
    if len(missing) == 2:
        raise LedgerMissing(
            f"there is neither {' nor '.join(missing)}. If this hospital has never answered an order, make them: "
            f"consilium-site init. If it has: {RESTORE}"
        )
    if missing:
        raise LedgerMissing(f"the {missing[0]} is missing, although the other book is there. {RESTORE}")
