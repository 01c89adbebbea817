"""Which studies and surveys hospital staff have approved. An order of any other is refused.

A decision is an event in the audit log: who approved or revoked which document, and when, with the document's text.
``policy.approvers`` different people must approve, all since the last revocation, which anyone of them or another can
sign. A study that sends orders before it is approved is kept in the folder ``pending`` next to the audit log for
review; the server can fill that folder, so its size is limited.

Documents are kept as text, and digests are of that text, so decisions made under an older release stay readable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.errors import NotApproved, SiteMisconfigured
from client.ledger.account import Earmark
from client.ledger.audit_log import AuditLog, Event, Fact, Kind
from client.ledger.records import Records
from client.oversight.signature import Signature, login_account, require_name, sign, signature_of, why_one_person
from client.site import SiteSettings
from tasks import task as tasks
from tasks.machine.disk import write_private
from tasks.machine.language import joined, later, say, say_many
from tasks.protocol import documents
from tasks.protocol.documents import Document

NOBODY = "nobody"
NOT_APPROVED = later("not approved")

MOST_WAITING = 100
MOST_BYTES = 256 * 1024
FEWEST_DIGITS = 8


@dataclass(frozen=True)
class Decision:
    """What was decided about one study so far.

    Attributes:
        document: its canonical text.
        at: when it was last decided about.
        by: who decided last, as given to the command; ``NOBODY`` when the site approved by itself.
        signatures: the approvals since the last revocation, one a person, the oldest first.
        needed: how many different people must approve.
        revoked: an approval was revoked, and nobody has approved since.
        automatic: nobody was asked; only a simulated hospital does that.
    """

    digest: str
    study: str
    document: str
    at: datetime
    by: str
    signatures: tuple[Signature, ...]
    needed: int
    revoked: bool
    automatic: bool

    @property
    def missing(self) -> int:
        """How many more people must approve."""
        return 0 if self.automatic and self.needed == 1 else max(0, self.needed - len(self.signatures))

    @property
    def approved(self) -> bool:
        return not self.revoked and not self.missing

    @property
    def state(self) -> str:
        """In a word or two, for programs; people are told it in their language."""
        if self.revoked:
            return later("revoked")
        if self.approved:
            return later("approved")
        return later("partly approved") if self.signatures else NOT_APPROVED

    def waits_for(self) -> str:
        """Who is still missing; "" if nobody is."""
        if not self.missing:
            return ""
        others = joined(each.by for each in self.signatures)
        people = say_many("{n} more person must approve", "{n} more people must approve", self.missing)
        if not others:
            return people
        return say("{people}, other than {others} (policy.approvers)", people=people, others=others)


def require(document: Document, audit_log: AuditLog, settings: SiteSettings) -> None:
    """Let only an approved study pass.

    Raises:
        NotApproved: too few people have approved it, so it waits for review from now on; or the approval was revoked.
        NoCohort: a simulated hospital has too little to approve it by itself.
    """
    digest = documents.digest(document)
    decision = decisions(audit_log, settings).get(digest)
    if decision is not None and decision.approved:
        return
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
        return
    if decision is not None and decision.revoked:
        when = f"{decision.at:%Y-%m-%d %H:%M} UTC"
        raise NotApproved(f"the approval of study {document.name} was revoked by {decision.by} at {when}")
    kept = keep(document, settings)
    waits = "" if decision is None else f"{decision.waits_for()}; "
    remedy = f"consilium-site review, then consilium-site approve {digest[:12]}" if kept else "too large to keep"
    raise NotApproved(f"study {document.name}, digest {digest}, is not approved: {waits}{remedy}")


def decisions(audit_log: AuditLog, settings: SiteSettings) -> dict[str, Decision]:
    """Every study that somebody has decided about, by digest, the most recently decided last.

    ``policy.approvers`` counts as it is now: raised, it holds for what was approved before. Lowered, it approves
    nothing by itself: the last approval was signed for the number of its time, which somebody must sign anew.
    """
    found: dict[str, Decision] = {}
    for event in audit_log.events():
        if event.kind in (Kind.APPROVAL, Kind.REVOCATION):
            digest = str(event.facts["digest"])
            found[digest] = _decision(digest, event, found.pop(digest, None), settings.policy.approvers)
    return found


def _decision(digest: str, event: Event, before: Decision | None, approvers: int) -> Decision:
    facts, revoked = event.facts, event.kind == Kind.REVOCATION
    signatures: tuple[Signature, ...] = ()
    if not revoked and not facts["automatic"]:
        earlier, new = (() if before is None else before.signatures), signature_of(event)
        signatures = earlier if _who_is(new, earlier) else (*earlier, new)
    return Decision(
        digest=digest,
        study=str(facts["study"]),
        document=str(facts["document"]),
        at=event.at,
        by=str(facts["by"]),
        signatures=signatures,
        needed=max(approvers, int(facts.get("of") or 1)),
        revoked=revoked,
        automatic=bool(facts["automatic"]),
    )


def _who_is(new: Signature, among: Iterable[Signature]) -> str:
    """Whose signature the new one repeats, and why; "" if it is another person's."""
    reasons = ((one.by, why_one_person(new, one)) for one in among)
    return next((f"{by} ({why})" for by, why in reasons if why), "")


def approve(document: Document, by: str, audit_log: AuditLog, settings: SiteSettings) -> None:
    """Record that a person approves the study. Once enough different people have, it is no longer pending.

    Raises:
        SiteMisconfigured: ``by`` names nobody.
        NotApproved: this person has approved it already, and somebody else must.
    """
    digest, most = documents.digest(document), settings.policy.approvers
    before = decisions(audit_log, settings).get(digest)
    signatures = () if before is None else before.signatures
    repeats = _who_is(Signature(require_name(by), login_account(), datetime.now(UTC)), signatures)
    if repeats and before is not None and len(signatures) < most:
        raise NotApproved(f"{by.strip()} is taken for {repeats} and counts once: {before.waits_for()}")
    _decide(audit_log, Kind.APPROVAL, document.name, documents.canonical(document), by, of=most)
    if decisions(audit_log, settings)[digest].approved:
        _file_of(digest, settings).unlink(missing_ok=True)


def revoke(decision: Decision, by: str, records: Records, settings: SiteSettings) -> list[Earmark]:
    """Record that a person revokes all approvals of a study; its next order is refused, and everybody must approve
    anew. Returns the epsilon that the study had set aside, which is freed; if approved again, it is planned again.

    Raises:
        SiteMisconfigured: ``by`` names nobody.
    """
    _decide(records.audit_log, Kind.REVOCATION, decision.study, decision.document, by)
    _file_of(decision.digest, settings).unlink(missing_ok=True)
    known = decisions(records.audit_log, settings).values()
    if any(other.approved and other.study == decision.study for other in known):
        return []  # another document of that name is still approved, and what is set aside is by name
    return records.ledger.release(decision.study)


def _decide(
    audit_log: AuditLog, kind: Kind, study: str, document: str, by: str, automatic: bool = False, of: int = 1
) -> None:
    facts: dict[str, Fact] = {"study": study, "digest": _digest(document), "automatic": automatic}
    if of > 1:
        facts["of"] = of
    sign(audit_log, kind, by, {**facts, "document": document}, in_person=not automatic)


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
        SiteMisconfigured: they are no digits of a digest, too few, or there is no such digest, or are several.
    """
    if not is_digest(digits):
        raise SiteMisconfigured(
            f"{digits!r} is no digest, which has digits and the letters a to f: consilium-site review and "
            "consilium-site approvals list those of all studies here; a file is read by consilium-site review FILE"
        )
    if len(digits) < FEWEST_DIGITS:
        raise SiteMisconfigured(f"{digits!r} is too short: give at least {FEWEST_DIGITS} digits of the digest")
    matches = sorted(digest for digest in known if digest.startswith(digits.lower()))
    if not matches:
        raise SiteMisconfigured(
            f"no study here has a digest that starts with {digits}: consilium-site review and consilium-site approvals "
            "list those that there are; one that came as a file must be read first: consilium-site review FILE"
        )
    if len(matches) > 1:
        raise SiteMisconfigured(
            f"{len(matches)} studies have a digest that starts with {digits}; give more digits: {', '.join(matches)}"
        )
    return matches[0]


def is_digest(text: str) -> bool:
    """Whether it can be a digest, or its first digits."""
    return bool(text) and set(text) <= set("0123456789abcdefABCDEF")


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
