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
from tasks.machine.language import day as written
from tasks.machine.language import later, moment, number, say
from tasks.protocol import documents
from tasks.protocol.documents import Document
from tasks.protocol.study import BadDocument, release

LEDGER, AUDIT = later("Rows of the ledger"), later("Rows of the audit log")
SETTINGS = later("Lines of site.yaml")


ANSWERED, NOT_ANSWERED = later("answered"), later("not answered, and spent all the same")


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
                say(
                    "no check on this machine says whether this holds: {text} Run this on the other one as well.",
                    text=text,
                )
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
            text = say(
                "{name} is not in site.yaml: release {release} takes {value}",
                name=name, release=release(), value=value)  # fmt: skip
            return self._use(Basis(f"Y-{name.replace('_', '-')}", say(SETTINGS), text))
        text = say(
            "site.yaml, line {line}: {name}: {value}",
            line=line, name=name, value="…" if isinstance(value, Settings) else value)  # fmt: skip
        return self._use(Basis(f"Y{line}", say(SETTINGS), text, f"sed -n {line}p {self.site.name}"))

    def line(self, decision: Decision, name: str) -> str:
        """The key of the line of a study document that has this setting.

        Raises:
            KeyError: it has none.
        """
        file = f"{decision.digest[:12]}.txt"
        lines = self.documents.setdefault(file, every_setting(documents.read(decision.document)))
        place = next((n for n, line in enumerate(lines, 1) if line.startswith((f"{name} = ", f"{name}."))), 0)
        if not place:
            raise KeyError(name)
        text = say(
            "{study}, documents/{file}, line {line}: {text}",
            study=decision.study, file=file, line=place, text=lines[place - 1])  # fmt: skip
        see = f"consilium-site review {decision.digest[:12]}"
        return self._use(Basis(f"D{decision.digest[:8]}.{place}", say("Lines of study documents"), text, see))

    def row(self, entry: LedgerEntry) -> str:
        """The key of a row of the ledger."""
        use, mechanism = entry.use, entry.mechanism
        text = say(
            "ledger row {row}, {at} UTC: {study}, round {round}, {cohort}: noise multiplier {noise}, sampling rate "
            "{rate}, times {count}; {answered}",
            row=entry.reserved, at=moment(datetime.fromisoformat(entry.reserved_at)), study=use.study, round=use.round,
            cohort=use.cohort, noise=number(mechanism.noise_multiplier), rate=number(mechanism.sample_rate),
            count=mechanism.count,
            answered=say(NOT_ANSWERED if entry.committed is None else ANSWERED))  # fmt: skip
        return self._use(Basis(f"L{entry.reserved}", say(LEDGER), text, "consilium-site ledger verify"))

    def receipt(self, receipt: Receipt) -> str:
        """The key of a receipt, a row of the audit log."""
        text = say(
            "audit log row {row}, {at}: {message} of {study}, round {round}, {bytes} bytes, SHA-256 {digest}",
            row=receipt.seq, at="-" if receipt.at is None else f"{moment(receipt.at)} UTC", message=receipt.message,
            study=receipt.study, round=receipt.round, bytes=number(receipt.bytes, ","),
            digest=receipt.sha256[:16])  # fmt: skip
        return self._use(Basis(f"A{receipt.seq}", say(AUDIT), text, f"consilium-site audit --study {receipt.study}"))

    def event(self, event: Event) -> str:
        """The key of an event, a row of the audit log."""
        text = say(
            "audit log row {row}, {at}: {facts}",
            row=event.seq, at=f"{moment(event.at)} UTC", facts=", ".join(_facts(event)))  # fmt: skip
        return self._use(Basis(f"A{event.seq}", say(AUDIT), text, f"consilium-site audit --kind {event.kind}"))

    def told(self, file: str, section: str) -> str:
        """The key of a section of a page that comes with the release, in ``client/``."""
        text = say(
            "client/{file} of release {release}, section “{section}”",
            file=file, release=release(), section=section)  # fmt: skip
        return self._use(Basis(f"P-{section.replace(' ', '-')}", say("Pages of the release"), text))

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
    return say("never") if at is None else written(at.astimezone(UTC))


def _facts(event: Event) -> Iterator[str]:
    """What an event says of itself: its kind, its study, and who did it under which login account."""
    yield event.kind
    if "study" in event.facts:
        yield str(event.facts["study"])
    if event.facts.get("by"):
        yield say("by {name}", name=event.facts["by"])
        if event.facts.get("account"):
            yield say("login account {account}", account=event.facts["account"])


def _place(source: Basis) -> tuple[str, str, int]:
    """By group, document and number."""
    head, _, place = source.key.rpartition(".") if "." in source.key else (source.key[:1], "", source.key[1:])
    return source.group, head, int(place) if place.isdecimal() else 0


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
