"""What the papers rest on: checks, rows of ledger and audit log, lines of ``site.yaml`` and of study documents.

A sentence asks for its source by what it is; only what was asked for is listed, and all checks.

Tested in ``tests/client/evidence/test_papers.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from client.ledger.account import LedgerEntry
from client.ledger.accounting import Mechanism
from client.ledger.audit_log import Event, Receipt
from client.ledger.records import Records
from client.oversight import approvals, budget
from client.oversight.approvals import Decision
from client.oversight.budget import CohortBudget, StudyBudget
from client.oversight.settings import every_setting
from client.site import SiteSettings
from client.sources.settings import Settings
from tasks.machine import evidence
from tasks.machine.checklist import Checklist
from tasks.machine.evidence import Basis, Sentence, checks_of, missing, said
from tasks.protocol import documents
from tasks.protocol.documents import Document
from tasks.protocol.study import BadDocument, release

LEDGER, AUDIT = "Rows of the ledger", "Rows of the audit log"


@dataclass(frozen=True)
class CohortHistory:
    """What a cohort has spent, and the mechanisms that it was spent by."""

    budget: CohortBudget
    mechanisms: list[Mechanism]


@dataclass(frozen=True)
class Books:
    """What ledger and audit log say. Every row was verified while it was read."""

    decisions: list[Decision]
    receipts: list[Receipt]
    events: list[Event]
    entries: list[LedgerEntry]
    cohorts: list[CohortHistory]
    studies: list[StudyBudget]

    @classmethod
    def of(cls, records: Records, settings: SiteSettings) -> Books:
        ledger = records.ledger
        return cls(
            decisions=list(approvals.decisions(records.audit_log, settings).values()),
            receipts=records.audit_log.receipts(),
            events=records.audit_log.events(),
            entries=list(ledger.entries()),
            cohorts=[CohortHistory(one, ledger.spent(one.cohort)) for one in budget.by_cohort(ledger, settings)],
            studies=budget.by_study(ledger, settings),
        )


@dataclass
class Installation:
    """Everything that a paper can rest on, and which of it was used."""

    settings: SiteSettings
    site: Path
    checklist: Checklist
    books: Books
    documents: dict[str, list[str]] = field(default_factory=dict)
    """Lines of the study documents that were cited, by the name of their file."""
    _used: dict[str, Basis] = field(default_factory=dict)
    _lines: dict[str, int] | None = None

    def checked(self, text: str, *promises: str) -> Sentence:
        """A sentence that rests on all checks whose claims begin so; missing where none of them is of this machine."""
        keys = checks_of(self.checklist, promises)
        if not keys:
            return missing(
                f"no check on this machine says whether this holds: {text} Run this on the other one as well."
            )
        return said(text, *keys)

    def setting(self, name: str) -> str:
        """The key of a line of ``site.yaml``, or of the default where it has none; ``name`` is its path, with dots."""
        if self._lines is None:
            root = yaml.compose(self.site.read_text("utf-8"), Loader=yaml.SafeLoader)
            self._lines = dict(_lines(root)) if root is not None else {}
        line = self._lines.get(name)
        value: object = self.settings
        for part in name.split("."):
            value = value[int(part)] if isinstance(value, list) else getattr(value, part, None)
        if line is None:
            text = f"{name} is not in site.yaml: release {release()} takes {value}"
            return self._use(Basis(f"Y-{name.replace('_', '-')}", "Lines of site.yaml", text))
        text = f"site.yaml, line {line}: {name}: {'…' if isinstance(value, Settings) else value}"
        return self._use(Basis(f"Y{line}", "Lines of site.yaml", text, f"sed -n {line}p {self.site.name}"))

    def line(self, decision: Decision, name: str) -> str:
        """The key of the line of a study document that has this setting.

        Raises:
            KeyError: it has none.
        """
        file = f"{decision.digest[:12]}.txt"
        lines = self.documents.setdefault(file, every_setting(documents.read(decision.document)))
        number = next((n for n, line in enumerate(lines, 1) if line.startswith((f"{name} = ", f"{name}."))), 0)
        if not number:
            raise KeyError(name)
        text = f"{decision.study}, documents/{file}, line {number}: {lines[number - 1]}"
        see = f"consilium-site review {decision.digest[:12]}"
        return self._use(Basis(f"D{decision.digest[:8]}.{number}", "Lines of study documents", text, see))

    def row(self, entry: LedgerEntry) -> str:
        """The key of a row of the ledger."""
        use, mechanism = entry.use, entry.mechanism
        text = (
            f"ledger row {entry.reserved}, {entry.reserved_at[:16]} UTC: {use.study}, round {use.round}, "
            f"{use.cohort}: noise "
            f"multiplier {mechanism.noise_multiplier:g}, sampling rate {mechanism.sample_rate:g}, {mechanism.count} "
            f"time(s); {'answered' if entry.committed is not None else 'not answered, and spent all the same'}"
        )
        return self._use(Basis(f"L{entry.reserved}", LEDGER, text, "consilium-site ledger verify"))

    def receipt(self, receipt: Receipt) -> str:
        """The key of a receipt, a row of the audit log."""
        at = "" if receipt.at is None else f", {receipt.at:%Y-%m-%d %H:%M} UTC"
        text = (
            f"audit log row {receipt.seq}{at}: {receipt.message} of {receipt.study}, round {receipt.round}, "
            f"{receipt.bytes:,} bytes, SHA-256 {receipt.sha256[:16]}"
        )
        return self._use(Basis(f"A{receipt.seq}", AUDIT, text, f"consilium-site audit --study {receipt.study}"))

    def event(self, event: Event) -> str:
        """The key of an event, a row of the audit log."""
        by = str(event.facts.get("by", ""))
        account = f" under the login account {event.facts['account']}" if event.facts.get("account") else ""
        of = f" of {event.facts['study']}" if "study" in event.facts else ""
        text = f"audit log row {event.seq}, {event.at:%Y-%m-%d %H:%M} UTC: {event.kind}{of}" + (
            f" by {by}{account}" if by else ""
        )
        return self._use(Basis(f"A{event.seq}", AUDIT, text, f"consilium-site audit --kind {event.kind}"))

    def told(self, file: str, section: str) -> str:
        """The key of a section of a page that comes with the release, in ``client/``."""
        text = f"client/{file} of release {release()}, section “{section}”"
        return self._use(Basis(f"P-{section.replace(' ', '-')}", "Pages of the release", text))

    def sources(self) -> list[Basis]:
        """All checks, and what else was used, in the order of its place."""
        return [*evidence.of_checks(self.checklist), *sorted(self._used.values(), key=_place)]

    def _use(self, source: Basis) -> str:
        self._used[source.key] = source
        return source.key


def readable(decision: Decision) -> Document | None:
    """The document, if this release can read it."""
    try:
        return documents.read(decision.document)
    except BadDocument:
        return None


def day(at: datetime | None) -> str:
    """A day in UTC, for people."""
    return "never" if at is None else f"{at.astimezone(UTC):%Y-%m-%d}"


def _place(source: Basis) -> tuple[str, str, int]:
    """By group, document and number."""
    head, _, number = source.key.rpartition(".") if "." in source.key else (source.key[:1], "", source.key[1:])
    return source.group, head, int(number) if number.isdecimal() else 0


def _lines(node: Node, above: str = "") -> Iterator[tuple[str, int]]:
    """The line of every setting, by its path."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            name = f"{above}{key.value}"
            yield name, key.start_mark.line + 1
            yield from _lines(value, f"{name}.")
    elif isinstance(node, SequenceNode):
        for number, value in enumerate(node.value):
            yield f"{above}{number}", value.start_mark.line + 1
            yield from _lines(value, f"{above}{number}.")
