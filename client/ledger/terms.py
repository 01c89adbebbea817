"""The terms that a ledger's sums depend on, kept in the ledger itself: a row that nobody without the key can change.

``site.yaml`` can be edited, but the ledger's two cohorts stay disjoint only while the split and the issuers of patient
numbers stay the same. So every order is checked against these terms, and new terms apply only after a person has signed
them (``Ledger.rebase``). The key of the split also seals ledger and audit log, so a file that opens was made with it.

Tested in ``tests/client/ledger/test_account.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Terms:
    """What must stay the same.

    Attributes:
        validation_fraction: where the split lies.
        issuers: by task, in order of the alphabet: who numbers the patients.
        max_epsilon_study, max_epsilon_life, max_delta: the caps.
        public_size: declared; bounds delta.
        simulated: no real hospital.
        max_epsilon_alone, max_epsilon_alone_life: caps of what the other hospitals of secure sums could learn together;
            ``None`` where there are no such sums.
    """

    validation_fraction: float
    issuers: dict[str, list[str]]
    max_epsilon_study: float
    max_epsilon_life: float
    max_delta: float
    public_size: int | None
    simulated: bool
    max_epsilon_alone: float | None = None
    max_epsilon_alone_life: float | None = None

    def body(self) -> dict[str, Any]:
        """The terms as a ledger row holds them."""
        return asdict(self)


def known_issuers(terms: Terms) -> set[str]:
    """All issuers, of any task."""
    return {issuer for names in terms.issuers.values() for issuer in names}


def differences(was: Terms, now: Terms) -> Iterator[str]:
    """A phrase for each term that has changed."""
    for field in fields(Terms):
        old, new = getattr(was, field.name), getattr(now, field.name)
        if old != new and field.name != "issuers":
            yield f"{field.name} is {old} in the ledger and {new} in site.yaml"
    for task in sorted(was.issuers.keys() | now.issuers.keys()):
        before, after = was.issuers.get(task, []), now.issuers.get(task, [])
        if before != after:
            yield f"issuers of {task} are {_named(before)} in the ledger and {_named(after)} in site.yaml"


def may_have_moved(was: Terms, now: Terms) -> bool:
    """Whether anyone may be on the other side of the split under the new terms.

    The side follows from key, issuer, PatientID and the fraction. So people move when the fraction changes, or with an
    issuer that the previous terms did not have for that task or at all: it may number people whom another issuer has
    numbered in the meantime, even if it was known earlier. Nobody moves when an issuer is removed, when a known issuer
    gets images of a new task, or when a cap changes.
    """
    gained = any(set(names) - set(was.issuers.get(task, names)) for task, names in now.issuers.items())
    new = known_issuers(now) - known_issuers(was)
    return now.validation_fraction != was.validation_fraction or gained or bool(new)


def _named(issuers: list[str]) -> str:
    return ", ".join(issuers) or "none"
