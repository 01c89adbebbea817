"""Which studies and surveys hospital staff have approved. An order of any other is refused.

A decision is an event in the audit log: who approved or revoked which document, and when, with the document's text. The
last event for a digest counts. A study that sends orders before it is approved is kept in the folder ``pending`` next
to the audit log for review; the server can fill that folder, so its size is limited.

Documents are kept as text, and digests are of that text, so decisions made under an older release stay readable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from client.errors import NotApproved, SiteMisconfigured
from client.ledger.account import Earmark
from client.ledger.audit_log import AuditLog, Event, Fact, Kind
from client.ledger.records import Records
from client.oversight.signature import sign
from client.site import SiteSettings
from tasks import task as tasks
from tasks.machine.disk import write_private
from tasks.protocol import documents
from tasks.protocol.documents import Document

NOBODY = "nobody"

MOST_WAITING = 100
MOST_BYTES = 256 * 1024
FEWEST_DIGITS = 8


@dataclass(frozen=True)
class Decision:
    """The latest decision on one study.

    Attributes:
        document: its canonical text.
        by: who, as given to the command; ``NOBODY`` when the site approved by itself.
        approved: false when the approval was revoked.
        automatic: nobody was asked; only a simulated hospital does that.
    """

    digest: str
    study: str
    document: str
    at: datetime
    by: str
    approved: bool
    automatic: bool


def require(document: Document, audit_log: AuditLog, settings: SiteSettings) -> None:
    """Let only an approved study pass.

    Raises:
        NotApproved: nobody has approved it, so it waits for review from now on; or the approval was revoked.
        NoCohort: a simulated hospital has too little to approve it by itself.
    """
    digest = documents.digest(document)
    decision = decisions(audit_log).get(digest)
    if decision is None and settings.simulated and settings.policy.auto_approve:
        from client.cohort.enough import require_enough  # takes seconds, which who revokes need not wait for

        require_enough(settings, tasks.get(document.task))
        _decide(
            audit_log,
            Kind.APPROVAL,
            study=document.name,
            document=documents.canonical(document),
            by=NOBODY,
            automatic=True,
        )
    elif decision is None:
        kept = keep(document, settings)
        remedy = f"consilium-site review, then consilium-site approve {digest[:12]}" if kept else "too large to keep"
        raise NotApproved(f"study {document.name}, digest {digest}, is not approved: {remedy}")
    elif not decision.approved:
        when = f"{decision.at:%Y-%m-%d %H:%M} UTC"
        raise NotApproved(f"the approval of study {document.name} was revoked by {decision.by} at {when}")


def decisions(audit_log: AuditLog) -> dict[str, Decision]:
    """The latest decision on every decided study, by digest, the newest last."""
    last: dict[str, Decision] = {}
    for event in audit_log.events():
        if event.kind in (Kind.APPROVAL, Kind.REVOCATION):
            digest = str(event.facts["digest"])
            last.pop(digest, None)
            last[digest] = _decision(digest, event)
    return last


def _decision(digest: str, event: Event) -> Decision:
    facts, approved = event.facts, event.kind == Kind.APPROVAL
    what, by = (digest, str(facts["study"]), str(facts["document"])), str(facts["by"])
    return Decision(*what, event.at, by, approved, bool(facts["automatic"]))


def approve(document: Document, by: str, audit_log: AuditLog, settings: SiteSettings) -> None:
    """Record that a person approves the study; it is no longer pending.

    Raises:
        SiteMisconfigured: ``by`` names nobody.
    """
    _decide(audit_log, Kind.APPROVAL, document.name, documents.canonical(document), by)
    _file_of(documents.digest(document), settings).unlink(missing_ok=True)


def revoke(decision: Decision, by: str, records: Records) -> list[Earmark]:
    """Record that a person revokes an approval; the study's next order is refused. Returns the epsilon that the study
    had set aside, which is freed; if approved again, the study is planned again.

    Raises:
        SiteMisconfigured: ``by`` names nobody.
    """
    _decide(records.audit_log, Kind.REVOCATION, decision.study, decision.document, by)
    if any(other.approved and other.study == decision.study for other in decisions(records.audit_log).values()):
        return []  # another document of that name is still approved, and what is set aside is by name
    return records.ledger.release(decision.study)


def _decide(audit_log: AuditLog, kind: Kind, study: str, document: str, by: str, automatic: bool = False) -> None:
    facts: dict[str, Fact] = {"study": study, "digest": _digest(document), "automatic": automatic}
    sign(audit_log, kind, by, {**facts, "document": document})


def keep(document: Document, settings: SiteSettings) -> bool:
    """Keep a study as pending, in place of the oldest one if there are too many. False if it is too large to keep."""
    text = documents.canonical(document).encode()
    if len(text) > MOST_BYTES:
        return False
    write_private(_file_of(documents.digest(document), settings), text)
    for old in _files(settings)[:-MOST_WAITING]:
        old.unlink(missing_ok=True)
    return True


def waiting(settings: SiteSettings) -> dict[str, str]:
    """Text of the pending studies, by digest, the most recently ordered last.

    Raises:
        SiteMisconfigured: a file in ``pending`` is not what its name says.
    """
    texts = {path.stem: path.read_bytes().decode("utf-8", "replace") for path in _files(settings)}
    if wrong := [digest for digest, text in texts.items() if _digest(text) != digest]:
        paths = ", ".join(str(_file_of(digest, settings)) for digest in wrong)
        raise SiteMisconfigured(
            f"content does not match the file name: {paths}; delete it, and the study's next order brings it again"
        )
    return texts


def one_of(digits: str, known: Iterable[str]) -> str:
    """The one digest that starts with these digits.

    Raises:
        NotApproved: too few digits, no such digest, or several.
    """
    if len(digits) < FEWEST_DIGITS:
        raise NotApproved(f"{digits!r} is too short: give at least {FEWEST_DIGITS} digits of the digest")
    matches = sorted(digest for digest in known if digest.startswith(digits.lower()))
    if not matches:
        raise NotApproved(f"no study here has a digest that starts with {digits}; run: consilium-site review FILE")
    if len(matches) > 1:
        raise NotApproved(f"{len(matches)} studies have a digest that starts with {digits}: {', '.join(matches)}")
    return matches[0]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file_of(digest: str, settings: SiteSettings) -> Path:
    return settings.audit_log.parent / "pending" / f"{digest}.json"


def _files(settings: SiteSettings) -> list[Path]:
    """The files in ``pending``, oldest first."""
    dated = []
    for path in (settings.audit_log.parent / "pending").glob("[0-9a-f]*.json"):
        with suppress(FileNotFoundError):  # somebody has decided about it this very moment
            dated.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(dated)]
