"""What a ledger's rows add up to: which study has spent what on which cohort, and what is set aside for it.

    genesis                the terms on which the sums depend, see ``client.ledger.terms``
    reserved, committed    one order; its mechanism counts as spent from the reservation on. Of a secure sum there is a
                           second one, ``alone``: this hospital's part of the noise without all others'. There are two
                           sums over everything, then: against the coordinator with a few hospitals, and if all of them
                           conspire; what leaves with the whole noise is the same in both
    planned                everything a study will still need of a cohort: set aside until it is reserved
    released               the study was revoked: what it had set aside is freed
    rebased                new terms from here on; if people may have changed sides, every earlier row counts on both
                           cohorts. Composing the two is a bound for those who moved and those who did not
    acknowledged           rows were lost whose hash the coordinator has seen; what they may have spent counts on both
                           cohorts for life, and in every study recorded so far

Cohorts are the sides of the split; who is on either side is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from client.ledger.accounting import Mechanism
from client.ledger.links import Row
from client.ledger.terms import Terms


@dataclass(frozen=True)
class Use:
    """One order: which study uses which cohort in which round."""

    cohort: str
    study: str
    round: int
    order_digest: str
    attempt: int = 0
    """Of a secure sum; 0 for none."""


@dataclass(frozen=True)
class LedgerEntry:
    """One reservation, and its commit if there was one.

    Attributes:
        reserved, committed: numbers of rows.
        reserved_at, committed_at: UTC in ISO 8601.
        alone: what the order costs if all other hospitals of the sum conspire; ``mechanism`` where there is no sum.
    """

    reserved: int
    reserved_at: str
    use: Use
    mechanism: Mechanism
    alone: Mechanism
    committed: int | None = None
    committed_at: str | None = None
    reply_sha256: str | None = None
    reply_bytes: int | None = None


@dataclass(frozen=True)
class Earmark:
    """What a study has set aside on a cohort and not reserved yet, and the delta it was planned for; ``alone`` is as in
    ``LedgerEntry``."""

    study: str
    cohort: str
    mechanisms: list[Mechanism]
    alone: list[Mechanism]
    delta: float

    def of(self, alone: bool) -> list[Mechanism]:
        """One of the two."""
        return self.alone if alone else self.mechanisms


@dataclass(frozen=True)
class _Charge:
    row: int
    cohort: str
    mechanism: Mechanism


@dataclass
class Account:
    """The sums of one ledger, updated row by row.

    Attributes:
        id: the ledger's own, random.
        entries: by the number of the reserving row, oldest first.
        terms: those that hold now.
        acknowledged: hashes of rows that are lost, as somebody has signed.
    """

    id: str = ""
    entries: dict[int, LedgerEntry] = field(default_factory=dict)
    terms: Terms | None = None
    acknowledged: set[str] = field(default_factory=set)
    _earmarks: dict[tuple[str, str], Earmark] = field(default_factory=dict)
    _charges: list[_Charge] = field(default_factory=list)
    _moved: int = -1
    """The last row at which people may have changed sides."""

    def take(self, row: Row) -> None:
        """Add a row; rows of other kinds count nothing."""
        kinds = {
            "genesis": self._begun,
            "reserved": self._reserved,
            "committed": self._committed,
            "planned": self._planned,
            "released": self._released,
            "rebased": self._rebased,
            "acknowledged": self._acknowledged,
        }
        if row.kind in kinds:
            kinds[row.kind](row, row.body)

    def reservations(self, cohort: str, study: str) -> list[LedgerEntry]:
        """A study's reservations on a cohort, oldest first."""
        return [e for e in self.entries.values() if (e.use.cohort, e.use.study) == (cohort, study)]

    def spent(self, cohort: str, study: str | None = None, *, alone: bool = False) -> list[Mechanism]:
        """Everything that counts on a cohort, for one study or for life, oldest first; ``alone``: if all other
        hospitals of secure sums conspire."""
        entries = [e for e in self.entries.values() if study in (None, e.use.study)]
        begun = min((e.reserved for e in entries), default=None)
        uses = [
            (e.reserved, e.alone if alone else e.mechanism)
            for e in entries
            if self._counts(e.reserved, e.use.cohort, cohort)
        ]
        uses += [
            (charge.row, charge.mechanism)
            for charge in self._charges
            if self._counts(charge.row, charge.cohort, cohort)
            and (study is None or (begun is not None and begun < charge.row))
        ]
        return [mechanism for _, mechanism in sorted(uses, key=lambda pair: pair[0])]

    def everything(self) -> list[Mechanism]:
        """What was spent on any cohort, once each: what would count on every cohort if anyone changed sides now."""
        return [*(e.mechanism for e in self.entries.values()), *(charge.mechanism for charge in self._charges)]

    def earmarked(self, cohort: str, study: str) -> list[Mechanism]:
        """What a study has set aside on a cohort and not reserved yet."""
        mark = self._earmarks.get((cohort, study))
        return [] if mark is None else mark.mechanisms

    def has_sums(self, cohort: str) -> bool:
        """Whether anything on a cohort was, or is to be, a part of a secure sum."""
        marks = any(mark.alone != mark.mechanisms for mark in self._earmarks.values() if mark.cohort == cohort)
        return marks or any(
            e.alone != e.mechanism for e in self.entries.values() if self._counts(e.reserved, e.use.cohort, cohort)
        )

    def earmarks(self, cohort: str | None = None, without: str | None = None) -> list[Earmark]:
        """Everything set aside and not reserved yet, on one cohort or all, without that of one study."""
        marks = (mark for mark in self._earmarks.values() if mark.mechanisms)
        return [m for m in marks if cohort in (None, m.cohort) and m.study != without]

    def earmark(self, cohort: str, study: str) -> Earmark | None:
        """All that a study has set aside on a cohort; ``None`` if it has not planned its use."""
        return self._earmarks.get((cohort, study))

    def has_planned(self, cohort: str, study: str) -> bool:
        """Whether a study has planned its use of a cohort, and was not released since."""
        return (cohort, study) in self._earmarks

    def _counts(self, row: int, touched: str, cohort: str) -> bool:
        return touched == cohort or row < self._moved

    def _begun(self, row: Row, body: dict[str, Any]) -> None:
        self.id = body["id"]
        if body.get("terms") is not None:
            self._hold(Terms(**body["terms"]))

    def _hold(self, terms: Terms) -> None:
        self.terms = terms

    def _reserved(self, row: Row, body: dict[str, Any]) -> None:
        use = Use(body["cohort"], body["study"], body["round"], body["order_digest"], body.get("attempt", 0))
        mechanism = Mechanism(**body["mechanism"])
        entry = LedgerEntry(
            row.seq, row.at, use, mechanism, alone=Mechanism(**body["alone"]) if "alone" in body else mechanism
        )
        self.entries[row.seq] = entry
        mark = self._earmarks.get((use.cohort, use.study))
        if mark is not None:
            left = without_first(mark.mechanisms, entry.mechanism.count)
            alone = left if mark.alone == mark.mechanisms else without_first(mark.alone, entry.mechanism.count)
            self._earmarks[use.cohort, use.study] = replace(mark, mechanisms=left, alone=alone)

    def _committed(self, row: Row, body: dict[str, Any]) -> None:
        self.entries[body["reserved"]] = replace(
            self.entries[body["reserved"]],
            committed=row.seq,
            committed_at=row.at,
            reply_sha256=body["sha256"],
            reply_bytes=body["bytes"],
        )

    def _planned(self, row: Row, body: dict[str, Any]) -> None:
        mechanisms = [Mechanism(**mechanism) for mechanism in body["mechanisms"]]
        alone = [Mechanism(**mechanism) for mechanism in body.get("alone", [])] or mechanisms
        mark = Earmark(body["study"], body["cohort"], mechanisms, alone, body["delta"])
        self._earmarks[mark.cohort, mark.study] = mark

    def _released(self, row: Row, body: dict[str, Any]) -> None:
        for cohort, study in list(self._earmarks):
            if study == body["study"]:
                del self._earmarks[cohort, study]

    def _rebased(self, row: Row, body: dict[str, Any]) -> None:
        self._hold(Terms(**body["terms"]))
        if body["moved"]:
            self._moved = row.seq

    def _acknowledged(self, row: Row, body: dict[str, Any]) -> None:
        self.acknowledged.add(body["hash"])
        self._charges += [_Charge(row.seq, name, Mechanism(**mechanism)) for name, mechanism in body["charges"].items()]


def without_first(mechanisms: Sequence[Mechanism], count: int) -> list[Mechanism]:
    """What is left of a sequence after its first ``count`` applications."""
    left = []
    for mechanism in mechanisms:
        gone = min(count, mechanism.count)
        count -= gone
        if mechanism.count > gone:
            left.append(replace(mechanism, count=mechanism.count - gone))
    return left
