"""The hospital's privacy ledger: what is done with which cohort, entered before it is done.

An order is *reserved* before training starts: its mechanism is entered, and the entry stays whatever happens next. It
is *committed* together with the reply when the work is done, before the reply is sent. So a crash spends the
reservation, and nothing goes uncounted. What happens when the same order comes again:

    committed, reply kept        the stored reply, byte for byte; nothing is spent
    reserved, never committed    a new reservation in addition to the old one: someone may have seen the noise of the
                                 lost run, and nobody can prove otherwise
    committed, reply replaced    ``AlreadyAnswered``: training again would release the same round a second time. Only a
                                 server that was rolled back asks for it, and could do so endlessly
    part of a secure sum         its round and attempt name a one-time pad, and only ever rise: an order with those of
                                 an earlier reservation, or older ones, is refused with ``TagUsed`` unless its reply is
                                 kept

With its first order a study sets aside everything it will need, on both cohorts; for all other studies that counts as
spent. So either a study is refused as a whole, before it costs anything, or its budget lasts to the end.

Replies may be tens of megabytes, so only a study's newest reply on a cohort is kept, next to the chain; its SHA-256 is
in the chain. Every sum is made from rows verified by the object that makes it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from client.errors import AlreadyAnswered, BudgetExhausted, LedgerBroken, LedgerTampered, TagUsed
from client.ledger.account import Account, Earmark, LedgerEntry, Use
from client.ledger.accounting import Mechanism, epsilon_of
from client.ledger.chain import RESTORE, Chain
from client.ledger.database import Outlives
from client.ledger.links import Head
from client.ledger.terms import Terms, may_have_moved
from tasks.machine.language import number, say

_PURPOSE = "ledger"
_REPLIES = "CREATE TABLE replies (committed INTEGER PRIMARY KEY, reply BLOB NOT NULL) STRICT"
_ROUNDING = 1e-6
_OTHER_REPLY = "the stored reply is not the one that was committed"


@dataclass(frozen=True)
class Caps:
    """Most epsilon that one study, and all studies together, may spend on a cohort, at delta; and the same if all other
    hospitals of secure sums conspire."""

    study: float
    life: float
    delta: float
    study_alone: float = math.inf
    life_alone: float = math.inf


@dataclass(frozen=True)
class Planned:
    """What an order will use, and what its study needs from here on.

    Attributes:
        now: the order's own mechanism.
        needed: by cohort all that the study still needs, in the order of its use and with ``now`` in it; nothing is set
            aside on a cohort that is not named.
        now_alone, needed_alone: the same of secure sums, if all other hospitals conspire; ``None``, and no cohort,
            where there is no sum.
    """

    now: Mechanism
    needed: dict[str, list[Mechanism]] = field(default_factory=dict)
    now_alone: Mechanism | None = None
    needed_alone: dict[str, list[Mechanism]] = field(default_factory=dict)


class Ledger:
    """The ledger file of one hospital. A context manager, for one thread; several processes may have it open.

    >>> from tempfile import TemporaryDirectory
    >>> folder, caps = TemporaryDirectory(), Caps(study=8.0, life=20.0, delta=1e-4)
    >>> ledger = Ledger.create(Path(folder.name) / "ledger.sqlite", secret=bytes(32))
    >>> first = Use(cohort="breast_ultrasound/train", study="demo-1", round=1, order_digest="ab12")
    >>> with ledger.planning(first):  # before training starts
    ...     ledger.reserve(first, Planned(Mechanism(noise_multiplier=2.0, sample_rate=0.1, count=10)), caps)
    >>> ledger.commit(first, b"the report")  # before it is sent
    >>> ledger.stored_reply(first)
    b'the report'
    >>> f"epsilon {epsilon_of(ledger.spent(first.cohort), caps.delta):.2f}"
    'epsilon 0.63'
    >>> second = Use(first.cohort, "demo-1", round=2, order_digest="cd34")
    >>> with ledger.planning(second):
    ...     ledger.reserve(second, Planned(Mechanism(noise_multiplier=0.5, sample_rate=0.1, count=100)), caps)
    Traceback (most recent call last):
    client.errors.BudgetExhausted: breast_ultrasound/train: epsilon for study demo-1 would be 27.176, the cap is 8
    >>> folder.cleanup()
    """

    def __init__(self, chain: Chain, witness: Callable[[], Head] | None) -> None:
        """Use ``create`` or ``open``."""
        self._chain, self._witness = chain, witness
        self._account = Account()
        self._read: Head | None = None

    @classmethod
    def create(
        cls, path: Path, secret: bytes, terms: Terms | None = None, witness: Callable[[], Head] | None = None
    ) -> Self:
        """A new ledger that holds only its terms. ``witness``: see ``open``.

        Raises:
            LedgerBroken: there is one already.
        """
        facts = {"terms": None if terms is None else terms.body()}
        return cls(Chain.create(path, secret, _PURPOSE, facts, _REPLIES), witness)

    @classmethod
    def open(
        cls,
        path: Path,
        secret: bytes,
        witness: Callable[[], Head] | None = None,
        outlives: Outlives = Outlives.POWER_FAILURE,
    ) -> Self:
        """An existing ledger; never makes one.

        Args:
            witness: gives the audit log's head; every new row notes it, so that one that was cut off is noticed.
            outlives: what a transaction outlives.

        Raises:
            LedgerMissing, LedgerTampered, LedgerUnwritable: see ``Chain.open``.
        """
        return cls(Chain.open(path, secret, _PURPOSE, outlives), witness)

    def check(self) -> None:
        """See ``Chain.check``."""
        self._chain.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._chain.close()

    def stored_reply(self, use: Use) -> bytes | None:
        """The reply to this very order, if it was committed and no later order of its study has replaced it.

        Raises:
            LedgerTampered: the stored bytes are not those that were committed.
        """
        answers = [(seq, entry) for seq, entry in self._by_commit() if entry.use == use]
        if not answers:
            return None
        seq, entry = answers[-1]
        reply = self._reply(seq)
        if reply is not None and not _is_reply_of(entry, reply):
            raise LedgerTampered(f"the ledger {self._chain.path}: row {seq}: {_OTHER_REPLY}. {RESTORE}")
        return reply

    @contextmanager
    def planning(self, use: Use) -> Iterator[Account]:
        """A block in which an order is planned from what all rows add up to, and then reserved; see ``reserve``.

        Planning, checking and entering are one transaction: two processes cannot both take the last of the budget.
        When the block ends, the entry is on the disk; whatever it raises, nothing was entered.

            with ledger.planning(use) as account:
                ledger.reserve(use, plan_from(account), caps)

        Raises:
            AlreadyAnswered: the order was committed before; ``stored_reply`` may have the reply.
            TagUsed: of a secure sum, the round and attempt, or later ones, were reserved before.
            LedgerBroken: a row was altered, or the disk does not accept the entry.
        """
        with self._chain.transaction():
            account = self.account()
            _refuse_answered(account.entries.values(), use)
            refuse_used_tag(account, use)
            yield account

    def reserve(self, use: Use, planned: Planned, caps: Caps) -> None:
        """Enter what was planned for an order, if everything the study needs stays within the caps.

        Raises:
            BudgetExhausted: a cap would be exceeded, now or before the end of the study.
            RuntimeError: not in ``planning``, so another process could take the same budget.
        """
        account = self.account()
        needed, alone = planned.needed.get(use.cohort, [planned.now]), planned.needed_alone.get(use.cohort)
        require_within(account, (use.cohort, use.study), needed, alone, caps)
        for cohort, needed in planned.needed.items():
            alone = planned.needed_alone.get(cohort, needed)
            self._set_aside(account, Earmark(use.study, cohort, needed, alone, caps.delta))
        self._chain.append("reserved", {**_reservation(use, planned), **self._seen()})

    def _set_aside(self, account: Account, mark: Earmark) -> None:
        """Enter what a study needs, unless exactly that is set aside already."""
        if account.earmark(mark.cohort, mark.study) != mark:
            body = asdict(mark)
            if mark.alone == mark.mechanisms:
                del body["alone"]
            self._chain.append("planned", {**body, **self._seen()})

    def release(self, study: str) -> list[Earmark]:
        """Free what a study has set aside and not reserved. Returns what that was; if nothing, no row is entered."""
        with self._chain.transaction():
            freed = [mark for mark in self.account().earmarks() if mark.study == study]
            if freed:
                self._chain.append("released", {"study": study, **self._seen()})
        return freed

    def rebase(self, terms: Terms) -> bool:
        """Enter new terms. Returns whether anyone may have changed sides; then everything spent before counts on both
        cohorts, see ``client.ledger.account``."""
        with self._chain.transaction():
            account = self.account()
            moved = account.terms is None or may_have_moved(account.terms, terms)
            self._chain.append("rebased", {"terms": terms.body(), "moved": moved, **self._seen()})
        return moved

    def acknowledge(self, lost: str, charges: Mapping[str, Mechanism]) -> None:
        """Record that the row with this hash is lost, and what the lost rows may have spent, by cohort."""
        body = {"hash": lost, "charges": {cohort: asdict(mechanism) for cohort, mechanism in charges.items()}}
        with self._chain.transaction():
            self._chain.append("acknowledged", {**body, **self._seen()})

    def contains(self, hash: str) -> bool:
        """Whether the ledger has a row with this hash, or its loss was acknowledged."""
        return self._chain.contains(hash) or hash in self.account().acknowledged

    def commit(self, use: Use, reply: bytes) -> None:
        """Close the newest open reservation of the order and store the reply in place of the study's earlier one.

        Raises:
            ValueError: the order has no open reservation.
            LedgerBroken: see ``reserve``.
        """
        with self._chain.transaction():
            entries = self.entries()
            open_reservations = [e.reserved for e in entries if e.use == use and e.committed is None]
            if not open_reservations:
                raise ValueError(f"round {use.round} of study {use.study} was not reserved on {use.cohort}")
            facts = {
                "reserved": open_reservations[-1],
                "sha256": hashlib.sha256(reply).hexdigest(),
                "bytes": len(reply),
            }
            row = self._chain.append("committed", {**facts, **self._seen()})
            for entry in entries:
                if entry.committed is not None and _line(entry.use) == _line(use):
                    self._chain.execute("DELETE FROM replies WHERE committed = ?", entry.committed)
            self._chain.execute("INSERT INTO replies VALUES (?, ?)", row.seq, reply)

    def spent(self, cohort: str, study: str | None = None, *, alone: bool = False) -> list[Mechanism]:
        """What counts on a cohort, for one study or for life, oldest first; see ``client.ledger.account``."""
        return self.account().spent(cohort, study, alone=alone)

    def entries(self) -> list[LedgerEntry]:
        """Every reservation, oldest first.

        Raises:
            LedgerTampered: a row is not as it was written.
        """
        return list(self.account().entries.values())

    def account(self) -> Account:
        """What all rows add up to. It is cached and updated with new rows.

        Raises:
            LedgerTampered: a row is not as it was written.
        """
        for row in self._chain.rows(after=self._read):
            self._account.take(row)
            self._read = Head(row.seq, row.hash)
        return self._account

    def cohorts(self) -> list[str]:
        """Cohorts that were ever used, in alphabetical order."""
        return sorted({entry.use.cohort for entry in self.entries()})

    def studies(self) -> list[str]:
        """Studies that ever used a cohort, in alphabetical order."""
        return sorted({entry.use.study for entry in self.entries()})

    def head(self) -> Head:
        """Number and hash of the last row."""
        return self._chain.head()

    def require_not_older_than(self, witness: Head) -> None:
        """Refuse a ledger that lacks a row seen in it before.

        Raises:
            LedgerRolledBack: see ``Chain.require``.
        """
        self._chain.require(witness)

    def last_seen_audit_log(self) -> Head | None:
        """The audit log's head in the newest row."""
        seen = (row.body["audit_log"] for row in self._chain.backwards() if "audit_log" in row.body)
        return next((Head(*head) for head in seen), None)

    def audit_log_was_lost(self, head: Head) -> None:
        """Record that a new audit log starts at the given head."""
        with self._chain.transaction():
            self._chain.append("audit_log_lost", {"audit_log": list(head)})

    def verify(self, witness: Head | None = None) -> list[str]:
        """All faults, row by row, in the chain and the stored replies, and against a witness at the end."""
        faults = [str(fault) for fault in self._chain.verify(witness)]
        try:
            return faults or list(self._faults_of_replies())
        except LedgerBroken as error:
            return [str(error)]

    def backup(self, target: Path) -> None:
        """Copy to a new file, with replies; see ``Chain.backup``. ``Records.backup`` copies ledger and audit log."""
        self._chain.backup(target)

    def hold(self) -> AbstractContextManager[None]:
        """Block all other writers in the meantime."""
        return self._chain.transaction()

    def _seen(self) -> dict[str, list[object]]:
        return {} if self._witness is None else {"audit_log": list(self._witness())}

    def _reply(self, committed: int) -> bytes | None:
        rows = self._chain.execute("SELECT reply FROM replies WHERE committed = ?", committed)
        return rows[0][0] if rows else None

    def _faults_of_replies(self) -> Iterator[str]:
        newest = {_line(entry.use): (seq, entry) for seq, entry in self._by_commit()}
        expected = dict(newest.values())
        stored = {seq for (seq,) in self._chain.execute("SELECT committed FROM replies")}
        yield from (f"row {seq}: its reply is missing" for seq in sorted(expected.keys() - stored))
        yield from (f"row {seq}: a stored reply belongs to no order" for seq in sorted(stored - expected.keys()))
        for seq in sorted(stored & expected.keys()):
            if not _is_reply_of(expected[seq], self._reply(seq)):
                yield f"row {seq}: {_OTHER_REPLY}"

    def _by_commit(self) -> list[tuple[int, LedgerEntry]]:
        """Committed entries with the number of the committing row, in the order of the commits."""
        return sorted(((e.committed, e) for e in self.entries() if e.committed is not None), key=lambda pair: pair[0])


def _refuse_answered(entries: Iterable[LedgerEntry], use: Use) -> None:
    for entry in entries:
        if entry.use.order_digest == use.order_digest and entry.committed is not None:
            raise AlreadyAnswered(
                f"round {use.round} of study {use.study} on {use.cohort} was answered at {entry.committed_at} (row "
                f"{entry.committed}), and later rounds have replaced the reply. It is not computed a second time. "
                "The server was rolled back: it must resume from its newest checkpoint, or start a new study"
            )


def refuse_used_tag(account: Account, use: Use) -> None:
    """Pass if an order is no part of a secure sum, or one of a later round or attempt than all before it.

    Raises:
        TagUsed: it is not.
    """
    if not use.attempt:
        return
    reserved = account.reservations(use.cohort, use.study)
    before = max(((e.use.round, e.use.attempt) for e in reserved), default=(0, 0))
    if (use.round, use.attempt) <= before:
        raise TagUsed(
            f"round {use.round}, attempt {use.attempt} of study {use.study} on {use.cohort}: round {before[0]}, "
            f"attempt {before[1]} was reserved before, and its reply is not kept. A pad serves for one message: the "
            "server must begin another attempt"
        )


def _reservation(use: Use, planned: Planned) -> dict[str, object]:
    """The facts of a row; those of secure sums stand only where there is one."""
    body: dict[str, object] = {**asdict(use), "mechanism": asdict(planned.now)}
    if planned.now_alone is not None:
        return body | {"alone": asdict(planned.now_alone)}
    del body["attempt"]
    return body


def _line(use: Use) -> tuple[str, str]:
    """Whose newest reply is kept."""
    return use.study, use.cohort


def _is_reply_of(entry: LedgerEntry, reply: bytes | None) -> bool:
    return isinstance(reply, bytes) and hashlib.sha256(reply).hexdigest() == entry.reply_sha256


def require_within(
    account: Account,
    use: tuple[str, str],
    needed: list[Mechanism],
    needed_alone: list[Mechanism] | None,
    caps: Caps,
) -> None:
    """Pass if everything that a study still needs of a cohort stays within the caps.

    Args:
        use: cohort and study.
        needed_alone: of secure sums, if all other hospitals conspire; ``None`` where there are none.

    Raises:
        BudgetExhausted: a cap would be exceeded.
    """
    _check_both(account, use, needed, caps, alone=False)
    if needed_alone is not None or account.has_sums(use[0]):
        _check_both(account, use, needed if needed_alone is None else needed_alone, caps, alone=True)


def _check_both(account: Account, use: tuple[str, str], needed: list[Mechanism], caps: Caps, *, alone: bool) -> None:
    """For the study, and for life together with what others have set aside."""
    cohort, study = use
    study_cap, life_cap = (caps.study_alone, caps.life_alone) if alone else (caps.study, caps.life)
    of_study = [*account.spent(cohort, study, alone=alone), *needed]
    of_study_words = (
        say("{cohort}: epsilon for study {study} if all other hospitals conspire", cohort=cohort, study=study)
        if alone
        else say("{cohort}: epsilon for study {study}", cohort=cohort, study=study)
    )
    _check(of_study_words, of_study, study_cap, caps.delta)
    earmarks = account.earmarks(cohort, without=study)
    set_aside = [mechanism for mark in earmarks for mechanism in mark.of(alone)]
    life = [*account.spent(cohort, alone=alone), *needed, *set_aside]
    of_life_words = (
        say("{cohort}: lifetime epsilon if all other hospitals conspire", cohort=cohort)
        if alone
        else say("{cohort}: lifetime epsilon", cohort=cohort)
    )
    _check(of_life_words, life, life_cap, min([caps.delta, *(mark.delta for mark in earmarks)]))


def _check(what: str, mechanisms: list[Mechanism], cap: float, delta: float) -> None:
    if cap == math.inf:
        return
    epsilon = epsilon_of(mechanisms, delta)
    if not epsilon <= cap + _ROUNDING:  # so that NaN is refused
        raise BudgetExhausted(
            say(
                "{what} would be {epsilon}, the cap is {cap}",
                what=what,
                epsilon=number(epsilon, ".3f"),
                cap=number(cap),
            )
        )
