"""With whom this hospital adds up: only with peers that its own ``site.yaml`` names by their fingerprints.

The coordinator passes keys on and could put its own in their place. So nothing here is believed that is not signed by a
key which both the approved study and ``policy.secure_sum.peers`` name.

Tested in ``tests/client/test_secure_orders.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from client.errors import PeersRefused
from client.secure_sum import own_key
from client.secure_sum.own_key import OwnKey
from client.site import SiteSettings
from tasks.machine.language import say
from tasks.protocol import study as studies
from tasks.protocol import sum_key
from tasks.protocol.study import SecureSumTerms, StudyDocument
from tasks.protocol.sum_key import BadSumKey, SumKey
from tasks.protocol.wire import SumAttempt


def objections(document: StudyDocument, settings: SiteSettings) -> Iterator[str]:
    """Why this hospital would not add up with the peers that a study names; none where there are no sums.

    Raises:
        SiteMisconfigured: this hospital has no key for sums.
    """
    terms, policy = document.secure_sum, settings.policy.secure_sum
    if terms is None or policy is None:
        return
    own = own_key.fingerprint(settings)
    if terms.peers.get(settings.name) != own:
        yield say(
            "it knows {hospital} by the key {known}, this one's is {own}",
            hospital=settings.name,
            known=terms.peers.get(settings.name) or say("of nobody"),
            own=own,
        )
    for name, fingerprint in sorted(terms.peers.items()):
        if name != settings.name and fingerprint not in policy.peers:
            yield say(
                "{hospital} has the key {key}, which is not in policy.secure_sum.peers", hospital=name, key=fingerprint
            )


def require(attempt: SumAttempt, document: StudyDocument, own: OwnKey, settings: SiteSettings) -> None:
    """Pass if all on the roster are peers, this hospital among them with its own key, and there are enough. The policy
    has accepted the study's peers before (``objections``).

    Raises:
        PeersRefused: listing everything that is wrong.
    """
    terms, policy = document.secure_sum, settings.policy.secure_sum
    if terms is None or policy is None:
        raise PeersRefused("the study has no secure sums, or policy.secure_sum is missing")
    wrong = list(_wrong_roster(attempt, document, terms))
    fewest = max(terms.least_hospitals, policy.least_hospitals)
    if len(attempt.roster) < fewest:
        wrong.append(f"{len(attempt.roster)} hospitals are on the roster, at least {fewest} must be")
    shown = next((each.key for each in attempt.roster if each.hospital == settings.name), None)
    if shown is None:
        wrong.append(f"{settings.name} itself is not on the roster")
    elif shown != own.public:
        wrong.append(f"the roster has another key of {settings.name} than this one")
    if wrong:
        raise PeersRefused("; ".join(wrong))


def _wrong_roster(attempt: SumAttempt, document: StudyDocument, terms: SecureSumTerms) -> Iterator[str]:
    digest = studies.digest(document)
    for each in attempt.roster:
        if each.hospital not in terms.peers:
            yield f"{each.hospital} is not part of the study"
        elif not (found := _signed_by(each, digest)):
            yield f"the sum key of {each.hospital} is not signed for this study"
        elif found != (pinned := terms.peers[each.hospital]):
            yield f"the sum key of {each.hospital} is signed by {found}, the study names {pinned}"


@lru_cache(maxsize=1 << 12)  # the same keys come in every order of a study
def _signed_by(key: SumKey, study_digest: str) -> str:
    """The fingerprint behind a sum key; "" where a signature is wrong."""
    try:
        return sum_key.fingerprint_of(key, study_digest)
    except BadSumKey:
        return ""
