"""An append-only SQLite file of linked rows: the format of both the ledger and the audit log.

Anyone who has the file without the hospital's key cannot change, insert, remove, move or forge a row undetected.
Cutting rows off the end, or restoring an old copy, leaves a chain that is valid in itself. Detecting that takes a
witness: a head (number and hash of the last row) recorded elsewhere. Ledger and audit log are each other's witness
(``client.ledger.records``). Nothing on the same disk can detect someone who has the key as well, or who rolls back both
files together.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from client.errors import LedgerBroken, LedgerMissing, LedgerRolledBack, LedgerTampered
from client.ledger import database, links
from client.ledger.database import Outlives
from client.ledger.links import BEFORE_ALL, Fault, Head, Row, StoredRow

RESTORE = (
    "Restore the newest backup of ledger and audit log, and keep the current files for the investigation. "
    "If no backup has what is lost, the proof of what was spent is permanently lost: no study may use these patients "
    "until the data protection officer has decided"
)
_FORMAT = 1
_TAIL = 32
_SELECT = "SELECT seq, at, kind, body, previous, hash FROM chain"
_SCHEMA = {
    "chain": (
        "CREATE TABLE chain (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, "
        "previous TEXT NOT NULL, hash TEXT NOT NULL) STRICT"
    ),
    "chain_keeps_rows": (
        "CREATE TRIGGER chain_keeps_rows BEFORE DELETE ON chain BEGIN SELECT RAISE(ABORT, 'append-only'); END"
    ),
    "chain_keeps_values": (
        "CREATE TRIGGER chain_keeps_values BEFORE UPDATE ON chain BEGIN SELECT RAISE(ABORT, 'append-only'); END"
    ),
}


class Chain:
    """One open file; a context manager. For one thread; several processes may have the same file open."""

    def __init__(self, path: Path, secret: bytes, purpose: str, outlives: Outlives = Outlives.POWER_FAILURE) -> None:
        """Opens without a check: ``create`` and ``open`` are for use."""
        self.path = path
        self._secret, self._purpose, self._key = secret, purpose, links.derived_key(secret, purpose)
        self._db = database.connect(path, outlives)

    @classmethod
    def create(cls, path: Path, secret: bytes, purpose: str, facts: dict[str, Any], *tables: str) -> Self:
        """A new chain with only its genesis: a random id, and ``facts``.

        Args:
            tables: more ``CREATE`` statements, for what is kept beside the chain.

        Raises:
            LedgerBroken: something is there already; a chain is never overwritten.
        """
        genesis = {**facts, "format": _FORMAT, "id": secrets.token_hex(16), "purpose": purpose}
        with database.new_file(path) as draft, cls(draft, secret, purpose) as chain, chain.transaction():
            for statement in (*_SCHEMA.values(), *tables):
                chain.execute(statement)
            chain._insert(0, "genesis", genesis, BEFORE_ALL)
        return cls.open(path, secret, purpose)

    @classmethod
    def open(cls, path: Path, secret: bytes, purpose: str, outlives: Outlives = Outlives.POWER_FAILURE) -> Self:
        """An existing chain. Its genesis, its newest rows and its triggers are checked; ``verify`` checks everything.

        Args:
            outlives: what every later transaction outlives.

        Raises:
            LedgerMissing: no such file; nothing is made in its place.
            LedgerTampered: what was checked is not as it was written, or was written with another key.
        """
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise LedgerMissing(f"the {purpose} {path} is missing. {RESTORE}") from None
        except OSError:
            pass  # SQLite cannot open it either, and says why
        chain = cls(path, secret, purpose, outlives)
        try:
            chain._refuse(chain._faults_of_schema() or chain._faults_of_ends())
        except BaseException:
            chain.close()
            raise
        return chain

    def check(self) -> None:
        """Pass if the table and its triggers are unchanged.

        Raises:
            LedgerTampered: they are not.
        """
        self._refuse(self._faults_of_schema())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        with database.named_errors(self.path):
            self._db.close()

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing, with all other writers blocked; see ``database.transaction``."""
        return database.transaction(self._db, self.path)

    def execute(self, statement: str, *values: object) -> list[StoredRow]:
        """Run one statement, for tables beside the chain. Returns its rows."""
        with database.named_errors(self.path):
            return self._db.execute(statement, values).fetchall()

    def append(self, kind: str, body: dict[str, Any]) -> Row:
        """Add a row of plain, finite JSON within ``transaction``; it stands once that has ended."""
        if not self._db.in_transaction:
            raise RuntimeError("append must run in a transaction, or two processes could follow the same row")
        last = self.head()
        return self._insert(last.seq + 1, kind, body, last.hash)

    def head(self) -> Head:
        """Number and hash of the last row."""
        last = next(self.backwards())
        return Head(last.seq, last.hash)

    def backwards(self) -> Iterator[Row]:
        """Rows from the newest to the genesis, each with its own hash checked, but not the links between them.

        Raises:
            LedgerTampered: at the first row that is not as it was written, or when there is none.
        """
        stored: StoredRow | None = None
        for stored in self._query(f"{_SELECT} ORDER BY seq DESC"):
            if not links.is_genuine(self._key, stored):
                self._refuse(links.faults([stored], self._key, stored[0], stored[4]))
            yield links.row(stored)
        if stored is None:
            self._refuse(links.faults([], self._key, 0, BEFORE_ALL))

    def contains(self, hash: str) -> bool:
        """Whether a genuine row has this hash; newest rows are checked first."""
        matches = self._query(f"{_SELECT} WHERE hash = ? ORDER BY seq DESC", hash)
        return any(links.is_genuine(self._key, stored) for stored in matches)

    def rows(self, after: Head | None = None) -> Iterator[Row]:
        """Rows from the genesis on, or those after a head, with every hash and every link checked.

        Raises:
            LedgerTampered: at the first row that is not as it was written.
            LedgerRolledBack: the head is not in the chain.
        """
        start, previous = (0, BEFORE_ALL) if after is None else (after.seq + 1, after.hash)
        stored_rows = self._query(f"{_SELECT} WHERE seq >= ? ORDER BY seq", 0 if after is None else after.seq)
        if after is not None and not self._is_row(next(stored_rows, None), after):
            self.require(after)  # says what is wrong
        for stored in stored_rows:
            if stored[0] != start or stored[4] != previous or not links.is_genuine(self._key, stored):
                self._refuse(links.faults([stored], self._key, start, previous))
            yield links.row(stored)
            start, previous = start + 1, stored[5]
        if start == 0:
            self._refuse(links.faults([], self._key, 0, BEFORE_ALL))

    def require(self, witness: Head) -> None:
        """Refuse a chain that lacks the witnessed row.

        Raises:
            LedgerRolledBack: rows were cut off, or an older or another file stands in its place.
        """
        for fault in self._faults_against(witness):
            raise LedgerRolledBack(f"{self._name} is older than the one last seen, or another one: {fault}. {RESTORE}")

    def verify(self, witness: Head | None = None) -> list[Fault]:
        """Every fault: in SQLite's pages, in triggers, rows and links and, against a witness, at the end."""
        faults: list[Fault] = []
        end = partial(self._faults_against, witness)
        for look in (self._faults_of_pages, self._faults_of_schema, self._faults_of_rows, end):
            try:
                faults += look()
            except LedgerBroken as error:  # what can still be read is still looked at
                faults.append(Fault(None, str(error)))
        return faults

    def backup(self, target: Path) -> None:
        """Copy a consistent state to a new file while others go on writing; the copy is verified before it appears.

        To restore, open the backup and back it up to the place where it belongs.

        Raises:
            LedgerBroken: the target exists, or this chain does not verify.
        """
        with database.new_file(target) as draft:
            database.copy(self.path, draft)
            with Chain(draft, self._secret, self._purpose) as written:
                written._refuse(written.verify())

    @property
    def _name(self) -> str:
        return f"the {self._purpose} {self.path}"

    def _query(self, statement: str, *values: object) -> Iterator[StoredRow]:
        """Rows on demand. It yields outside every ``with``: most callers stop early and leave it to the garbage
        collector, and code that runs then swallows an interrupt, that is, prints it and continues."""
        with database.named_errors(self.path):
            cursor = self._db.execute(statement, values)
        while (stored := self._fetched(cursor)) is not None:
            yield stored

    def _fetched(self, cursor: sqlite3.Cursor) -> StoredRow | None:
        with database.named_errors(self.path):
            stored: StoredRow | None = cursor.fetchone()
        return stored

    def _insert(self, seq: int, kind: str, body: dict[str, Any], previous: str) -> Row:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        stored = links.link(self._key, seq, at=at, kind=kind, body=body, previous=previous)
        self.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?, ?)", *stored)
        return links.row(stored)

    def _refuse(self, faults: Iterable[Fault]) -> None:
        if messages := [str(fault) for fault in faults]:
            more = [f"and {len(messages) - 10} more"] if len(messages) > 10 else []
            raise LedgerTampered(f"{self._name} was altered or damaged: {'; '.join(messages[:10] + more)}. {RESTORE}")

    def _faults_of_pages(self) -> list[Fault]:
        answers = self.execute("PRAGMA quick_check(10)")
        return [Fault(None, f"SQLite reports: {text}") for (text,) in answers if text != "ok"]

    def _faults_of_rows(self) -> list[Fault]:
        return list(links.faults(self._query(f"{_SELECT} ORDER BY seq"), self._key, 0, BEFORE_ALL))

    def _faults_of_schema(self) -> list[Fault]:
        query = "SELECT name, sql FROM sqlite_schema WHERE tbl_name = 'chain' OR type IN ('trigger', 'view')"
        present: dict[str, object] = dict(self.execute(query))
        problems = dict.fromkeys(_SCHEMA.keys() - present.keys(), "missing")
        problems |= dict.fromkeys(present.keys() - _SCHEMA.keys(), "not ours")
        problems |= {name: "altered" for name in _SCHEMA.keys() & present.keys() if present[name] != _SCHEMA[name]}
        return [Fault(None, f"table or trigger {name} is {what}") for name, what in sorted(problems.items())]

    def _faults_of_ends(self) -> list[Fault]:
        beginning = self.execute(f"{_SELECT} WHERE seq <= 0 ORDER BY seq")
        if faults := list(links.faults(beginning, self._key, 0, BEFORE_ALL)):
            hint = f"if every row is affected, site.key is not its key, or this is not a hospital's {self._purpose}"
            return [*faults, Fault(None, hint)]
        tail = self.execute(f"SELECT * FROM ({_SELECT} ORDER BY seq DESC LIMIT {_TAIL}) ORDER BY seq")
        return list(links.faults(tail, self._key, tail[0][0], tail[0][4]))

    def _faults_against(self, witness: Head | None) -> list[Fault]:
        if witness is None:
            return []
        rows = self.execute(f"{_SELECT} WHERE seq = ?", witness.seq)
        if not rows:
            ((last,),) = self.execute("SELECT max(seq) FROM chain")
            return [Fault(witness.seq, f"was seen, but is gone: the last row is {last}")]
        return [] if self._is_row(rows[0], witness) else [Fault(witness.seq, "is not the row that was seen")]

    def _is_row(self, stored: StoredRow | None, witness: Head) -> bool:
        return stored is not None and (stored[0], stored[5]) == witness and links.is_genuine(self._key, stored)
