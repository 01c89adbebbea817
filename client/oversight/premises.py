"""What must hold before an order may use any patient's data: site.yaml has the ledger's terms, and the ledger has every
row that others have seen in it.

Either fails only through an act of hospital staff, or of someone with access to their disk. Only they can fix it: by
restoring what was there, or by signing what it costs to continue.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from client.errors import LedgerBehind, SiteError, SiteMisconfigured, TermsChanged
from client.ledger import accounting
from client.ledger.audit_log import Fact, Kind
from client.ledger.database import Outlives
from client.ledger.ledger import Ledger
from client.ledger.records import Records, open_records
from client.ledger.terms import Terms, differences, may_have_moved
from client.oversight.signature import require_name, sign
from client.site import SiteSettings, delta_cap, secret

FEWEST_DIGITS = 8


@dataclass(frozen=True)
class TermsChange:
    """Terms that differ from the ledger's.

    Attributes:
        differs: a phrase for each.
        moves: somebody may be on the other side of the split; then what was spent so far counts on both.
    """

    differs: list[str]
    moves: bool


def terms_of(settings: SiteSettings) -> Terms:
    """The terms of ``site.yaml``: everything that the ledger's sums depend on."""
    issuers: dict[str, set[str]] = {}
    for source in settings.sources:
        issuers.setdefault(source.task, set()).add(source.issuer)
    policy, sums = settings.policy, settings.policy.secure_sum
    return Terms(
        validation_fraction=settings.validation_fraction,
        issuers={task: sorted(names) for task, names in sorted(issuers.items())},
        max_epsilon_study=policy.max_epsilon_study,
        max_epsilon_life=policy.max_epsilon_life,
        max_delta=policy.max_delta,
        public_size=settings.public_size,
        simulated=settings.simulated,
        max_epsilon_alone=None if sums is None else sums.max_epsilon_alone,
        max_epsilon_alone_life=None if sums is None else sums.max_epsilon_alone_life,
    )


def outlives(settings: SiteSettings) -> Outlives:
    """What a commit to ledger or audit log outlives.

    A simulated hospital's need not outlive a power failure: what that takes is of nobody, and hundreds of hospitals on
    one disk would spend their rounds waiting for it. If one of the two files has lost more than the other, the study is
    refused as one with a ledger that was rolled back, and is played anew.
    """
    return Outlives.KILL if settings.simulated else Outlives.POWER_FAILURE


def change_of(settings: SiteSettings, ledger: Ledger) -> TermsChange | None:
    """How ``site.yaml`` differs from the ledger's terms; ``None`` if it does not."""
    account, now = ledger.account(), terms_of(settings)
    if account.terms is None:
        return TermsChange(["the ledger does not record split, issuers and caps"], moves=True)
    if account.terms == now:
        return None
    return TermsChange(list(differences(account.terms, now)), may_have_moved(account.terms, now))


def require_terms(settings: SiteSettings, ledger: Ledger) -> None:
    """Pass if ``site.yaml`` has the ledger's terms.

    Raises:
        TermsChanged: with every difference.
    """
    change = change_of(settings, ledger)
    if change is not None:
        raise TermsChanged(
            f"the terms of {settings.ledger} have changed: {'; '.join(change.differs)}. No order is answered. "
            "Restore site.yaml; or, if the change is intended, review its cost and sign it: "
            "consilium-site ledger rebase --by NAME"
        )


def not_answering(settings: SiteSettings) -> str:
    """Why no order is answered before somebody signs something; "" if nothing of the kind is known here: the gateway's
    machine has no ledger."""
    if not (settings.ledger.exists() and settings.key.exists()):
        return ""
    try:
        with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
            require_terms(settings, records.ledger)
    except SiteError as error:
        return str(error)
    return ""


def rebase(settings: SiteSettings, records: Records, by: str) -> TermsChange:
    """Adopt the terms of ``site.yaml`` in the ledger, in a person's name; the audit log is written first.

    Raises:
        SiteMisconfigured: nothing has changed, or a real hospital would become a simulated one or the reverse.
    """
    change, was = change_of(settings, records.ledger), records.ledger.account().terms
    if change is None:
        raise SiteMisconfigured("site.yaml has the ledger's terms: nothing to rebase")
    if was is not None and was.simulated != settings.simulated:
        raise SiteMisconfigured(
            "ledger and audit log of a real hospital cannot be used for a simulated one, nor the reverse: restore "
            "`simulated`, or set up the other hospital in a separate folder, with its own key and catalog"
        )
    terms = terms_of(settings)
    facts: dict[str, Fact] = {"terms": _digest(terms.body()), "differences": len(change.differs)}
    sign(records.audit_log, Kind.REBASE, by, {**facts, "both_cohorts": change.moves})
    records.ledger.rebase(terms)
    return change


_MOST_LOST = 20
"""Most missing entries that are recorded: nobody has lost more, and orders must not be able to fill the audit log."""


def require_not_behind(seen: str | None, study: str, records: Records) -> None:
    """Pass if the ledger has the row that the server saw last. A missing one is entered in the audit log.

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
        f"the coordinator has seen entry {seen[:12]}, which is missing from this hospital's ledger: ledger and audit "
        "log were restored from an older backup, replaced, or another copy of them has answered orders. What was spent "
        "since is missing here, so no order is answered. Stop the other copy if there is one, and restore the newest "
        "backup. If no backup has that entry, the data protection officer decides what its loss costs: consilium-site "
        f"ledger acknowledge {seen[:12]} --spent-training EPSILON --spent-validation EPSILON --by NAME. (Ask the "
        "coordinator first: whoever sends orders could have invented the entry.)"
    )


def lost_heads(records: Records) -> list[str]:
    """Hashes that the server has seen in the ledger and that are not in it, the newest last."""
    seen = dict.fromkeys(str(event.facts["seen"]) for event in records.audit_log.events(Kind.LEDGER_BEHIND))
    return [hash for hash in seen if not records.ledger.contains(hash)]


def acknowledge(settings: SiteSettings, records: Records, digits: str, spent: Mapping[str, float], by: str) -> str:
    """Record that an entry is permanently lost, and charge each cohort with what it may have spent. The audit log is
    written first. Returns the entry's hash.

    Args:
        digits: the first of its hash; an order must have named it.
        spent: epsilon by cohort, 0 for none.

    Raises:
        SiteMisconfigured: no such entry is missing, or an epsilon is out of range.
    """
    matches = [hash for hash in lost_heads(records) if hash.startswith(digits.lower())]
    if len(digits) < FEWEST_DIGITS or len(matches) != 1:
        raise SiteMisconfigured(
            f"{digits!r} matches {len(matches)} missing entries; give {FEWEST_DIGITS} or more of the digits that "
            "`consilium-site audit --kind ledger_behind` shows"
        )
    delta = delta_cap(settings)
    try:
        charges = {cohort: accounting.gaussian_of(epsilon, delta) for cohort, epsilon in spent.items() if epsilon != 0}
    except ValueError as error:
        raise SiteMisconfigured(f"{error}; 0 means that nothing was spent") from None
    facts: dict[str, Fact] = {"lost": matches[0], **{f"epsilon_{cohort}": epsilon for cohort, epsilon in spent.items()}}
    sign(records.audit_log, Kind.ACKNOWLEDGEMENT, require_name(by), facts)
    records.ledger.acknowledge(matches[0], charges)
    return matches[0]


def policy_digest(settings: SiteSettings) -> str:
    """SHA-256 of the policy and all terms, stored in each receipt: what was allowed when the message left."""
    return _digest([settings.policy.model_dump_json(), terms_of(settings).body()])


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
