"""The hospital's privacy ledger: what was done to which cohort, written down before it is done.

An order is *reserved* before training starts: its mechanism is entered, and the entry stands whatever happens next. It
is *committed* together with the reply when the work is done, before the reply is sent. So a crash spends the
reservation and forgets nothing, and the same order asked twice gets the stored reply, with no second spending.
Entries are never changed or removed; the database itself refuses it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from client.accounting import Mechanism, epsilon_of
from client.errors import BudgetExhausted
from tasks.wire import EvaluateOrder, TrainOrder, digest

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    entry INTEGER PRIMARY KEY, at TEXT NOT NULL, cohort TEXT NOT NULL, study TEXT NOT NULL, round INTEGER NOT NULL,
    order_digest TEXT NOT NULL, noise_multiplier REAL NOT NULL, sample_rate REAL NOT NULL, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS replies (
    order_digest TEXT PRIMARY KEY, at TEXT NOT NULL, cohort TEXT NOT NULL, study TEXT NOT NULL, reply BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_stay_as_they_are BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""
_ROUNDING = 1e-6

Plan = Callable[[list[Mechanism]], Mechanism]
"""From what the study has spent on the cohort to the mechanism that the next order will use."""


@dataclass(frozen=True)
class Caps:
    """Most epsilon that one study, and all studies together, may spend on a cohort, at delta."""

    study: float
    life: float
    delta: float


class Ledger:
    """The ledger file of one hospital. A context manager; one use at a time and process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def stored_reply(self, order: TrainOrder | EvaluateOrder) -> bytes | None:
        """The reply to this very order, if it was committed and no later order of its study has replaced it."""
        row = self._db.execute("SELECT reply FROM replies WHERE order_digest = ?", (digest(order),)).fetchone()
        return None if row is None else bytes(row[0])

    def spent(self, cohort: str, study: str | None = None) -> list[Mechanism]:
        """What was entered for a cohort, by one study or by all, oldest first."""
        query = "SELECT noise_multiplier, sample_rate, count FROM entries WHERE cohort = ?"
        query, values = (query, (cohort,)) if study is None else (query + " AND study = ?", (cohort, study))
        return [Mechanism(*row) for row in self._db.execute(query + " ORDER BY entry", values)]

    def reserve(self, order: TrainOrder | EvaluateOrder, plan: Plan, caps: Caps) -> Mechanism:
        """Enter the order's mechanism, if it stays within the caps. Returns the mechanism.

        Planning, checking and entering are one transaction: two processes cannot both take the last of the budget.

        Raises:
            BudgetExhausted: a cap would be passed; nothing was entered.
        """
        cohort = cohort_of(order)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            of_study = self.spent(cohort, order.study)
            mechanism = plan(of_study)
            _check(cohort, "this study", epsilon_of([*of_study, mechanism], caps.delta), caps.study)
            _check(cohort, "life", epsilon_of([*self.spent(cohort), mechanism], caps.delta), caps.life)
            self._db.execute(
                "INSERT INTO entries (at, cohort, study, round, order_digest, noise_multiplier, sample_rate, count) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (_now(), cohort, order.study, order.round, digest(order), *_columns(mechanism)),
            )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return mechanism

    def commit(self, order: TrainOrder | EvaluateOrder, reply: bytes) -> None:
        """Store the reply; replies to the study's earlier orders on the cohort are no longer needed and go."""
        cohort = cohort_of(order)
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("DELETE FROM replies WHERE cohort = ? AND study = ?", (cohort, order.study))
        values = (digest(order), _now(), cohort, order.study, reply)
        self._db.execute("INSERT INTO replies VALUES (?, ?, ?, ?, ?)", values)
        self._db.execute("COMMIT")


def cohort_of(order: TrainOrder | EvaluateOrder) -> str:
    """Whose privacy an order spends: training and validation patients of a task are disjoint people."""
    return f"{order.task}/{'train' if isinstance(order, TrainOrder) else 'validation'}"


def _columns(mechanism: Mechanism) -> tuple[float, float, int]:
    return mechanism.noise_multiplier, mechanism.sample_rate, mechanism.count


def _check(cohort: str, what: str, epsilon: float, cap: float) -> None:
    if epsilon > cap + _ROUNDING:
        raise BudgetExhausted(f"{cohort}: epsilon for {what} would be {epsilon:.3f}, the cap is {cap:g}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
