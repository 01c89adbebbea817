"""What must hold before an order may touch anybody: the terms on which the ledger's sums rest, and a ledger that is not
behind what others have seen of it.

Both fail by an act of the hospital's own people, or of whoever has their disk, and only they can mend it: by putting
things back, or by signing what it costs to go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from client.errors import LedgerBehind, SiteMisconfigured, TermsChanged
from client.ledger import accounting
from client.ledger.audit_log import Fact, Kind
from client.ledger.ledger import Ledger
from client.ledger.records import Records
from client.ledger.terms import Terms, differences, may_have_moved
from client.oversight.signature import require_name, sign
from client.site import SiteSettings, delta_cap

FEWEST_DIGITS = 8


@dataclass(frozen=True)
class TermsChange:
    """Other terms than the ledger's.

    Attributes:
        differs: a phrase for each.
        moves: somebody may be on the other side of the split; then what was spent so far counts on both.
    """

    differs: list[str]
    moves: bool


def terms_of(settings: SiteSettings) -> Terms:
    """What ``site.yaml`` says of all that the sums rest on."""
    issuers: dict[str, set[str]] = {}
    for source in settings.sources:
        issuers.setdefault(source.task, set()).add(source.issuer)
    policy = settings.policy
    return Terms(
        validation_fraction=settings.validation_fraction,
        issuers={task: sorted(names) for task, names in sorted(issuers.items())},
        max_epsilon_study=policy.max_epsilon_study,
        max_epsilon_life=policy.max_epsilon_life,
        max_delta=policy.max_delta,
        public_size=settings.public_size,
        simulated=settings.simulated,
    )


def change_of(settings: SiteSettings, ledger: Ledger) -> TermsChange | None:
    """How ``site.yaml`` differs from the ledger's terms; ``None`` if it does not."""
    account, now = ledger.account(), terms_of(settings)
    if account.terms is None:
        return TermsChange(["the ledger does not say on which split, issuers and caps its sums rest"], moves=True)
    if account.terms == now:
        return None
    return TermsChange(list(differences(account.terms, now)), may_have_moved(account.terms, now))


def require_terms(settings: SiteSettings, ledger: Ledger) -> None:
    """Pass if ``site.yaml`` says what the ledger's sums rest on.

    Raises:
        TermsChanged: with every difference.
    """
    change = change_of(settings, ledger)
    if change is not None:
        raise TermsChanged(
            f"what the sums of {settings.ledger} rest on has changed: {'; '.join(change.differs)}. No order is "
            "answered. Put site.yaml back; or, if the change is meant, see what it costs and sign it: "
            "consilium-site ledger rebase --by NAME"
        )


def rebase(settings: SiteSettings, records: Records, by: str) -> TermsChange:
    """Make what ``site.yaml`` says the ledger's terms, in a person's name; the audit log is told first.

    Raises:
        SiteMisconfigured: nothing has changed, or a real hospital would become a simulated one or the reverse.
    """
    change, was = change_of(settings, records.ledger), records.ledger.account().terms
    if change is None:
        raise SiteMisconfigured("site.yaml says what the ledger says: there is nothing to rebase")
    if was is not None and was.simulated != settings.simulated:
        raise SiteMisconfigured(
            "books of a real hospital never become those of a simulated one, nor the reverse: put `simulated` back, or "
            "found the other hospital in a folder of its own, with a key and a catalog of its own"
        )
    terms = terms_of(settings)
    told: dict[str, Fact] = {"terms": _digest(terms.body()), "differences": len(change.differs)}
    sign(records.audit_log, Kind.REBASE, by, {**told, "both_cohorts": change.moves})
    records.ledger.rebase(terms)
    return change


_MOST_LOST = 20
"""So many missing entries are noted: nobody has lost more, and orders must not be able to fill the audit log."""


def require_not_behind(seen: str | None, study: str, records: Records) -> None:
    """Pass if the row is in the ledger that the server saw last. The audit log keeps what is missing.

    Args:
        seen: its hash, from the order; ``None`` when the server has seen none.

    Raises:
        LedgerBehind: it is not.
    """
    if seen is None or records.ledger.contains(seen):
        return
    lost = lost_heads(records)
    if seen not in lost and len(lost) < _MOST_LOST:
        records.audit_log.append_event(Kind.LEDGER_BEHIND, {"study": study, "seen": seen})
    raise LedgerBehind(
        f"the coordinator has seen entry {seen[:12]} of this hospital's ledger, which is not in it: ledger and audit "
        "log were put back to an older state, replaced by new ones, or are a copy beside which another one has "
        "answered. "
        "What they have spent is missing here, so nothing is answered. Stop the other copy if there is one, and "
        "restore the newest backup. If no backup has that entry, the data protection officer decides what its loss "
        f"counts for: consilium-site ledger acknowledge {seen[:12]} --spent-training EPSILON --spent-validation "
        "EPSILON --by NAME. (Ask the coordinator first: whoever sends orders could have invented the entry.)"
    )


def lost_heads(records: Records) -> list[str]:
    """Hashes that somebody has seen in the ledger and that are not there, the newest at the end."""
    seen = dict.fromkeys(str(event.facts["seen"]) for event in records.audit_log.events(Kind.LEDGER_BEHIND))
    return [hash for hash in seen if not records.ledger.contains(hash)]


def acknowledge(settings: SiteSettings, records: Records, digits: str, spent: Mapping[str, float], by: str) -> str:
    """Enter that an entry is lost for good, and charge either cohort with what it may have spent. The audit log is told
    first. Returns the entry's hash.

    Args:
        digits: the first of its hash; an order must have named it.
        spent: epsilon by cohort, 0 for none.

    Raises:
        SiteMisconfigured: no such entry is missing, or an epsilon is out of range.
    """
    found = [hash for hash in lost_heads(records) if hash.startswith(digits.lower())]
    if len(digits) < FEWEST_DIGITS or len(found) != 1:
        raise SiteMisconfigured(
            f"{digits!r} names {len(found)} entries that are missed here; give {FEWEST_DIGITS} or more of the digits "
            "that `consilium-site audit --kind books_behind` shows"
        )
    delta = delta_cap(settings)
    try:
        charges = {cohort: accounting.gaussian_of(epsilon, delta) for cohort, epsilon in spent.items() if epsilon != 0}
    except ValueError as error:
        raise SiteMisconfigured(f"{error}; 0 says that nothing was spent") from None
    facts: dict[str, Fact] = {"lost": found[0], **{f"epsilon_{cohort}": epsilon for cohort, epsilon in spent.items()}}
    sign(records.audit_log, Kind.ACKNOWLEDGEMENT, require_name(by), facts)
    records.ledger.acknowledge(found[0], charges)
    return found[0]


def policy_digest(settings: SiteSettings) -> str:
    """SHA-256 of the policy and of all terms, which each receipt names: what was allowed when it left."""
    return _digest([settings.policy.model_dump_json(), terms_of(settings).body()])


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
