"""What the sums of a ledger rest on, as it stands in the ledger itself: a row that nobody without the key can change.

``site.yaml`` can be edited; the ledger's two cohorts mean different people only as long as the split and the names of
those who number the patients stay what they were. So every order is held against these terms, and other ones hold only
after a person has said so (``Ledger.rebase``). The key of the split is the one with which the books are sealed, so a
book that opens was made with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Terms:
    """What is held fixed.

    Attributes:
        validation_fraction: where the split lies.
        issuers: by task, in order of the alphabet: who numbers the patients.
        max_epsilon_study, max_epsilon_life, max_delta: the caps.
        public_size: declared; bounds delta.
        simulated: no real hospital.
    """

    validation_fraction: float
    issuers: dict[str, list[str]]
    max_epsilon_study: float
    max_epsilon_life: float
    max_delta: float
    public_size: int | None
    simulated: bool

    def body(self) -> dict[str, Any]:
        """As a row of the ledger has them."""
        return asdict(self)


def known_issuers(terms: Terms) -> set[str]:
    """All issuers, of whatever task."""
    return {issuer for names in terms.issuers.values() for issuer in names}


def differences(was: Terms, now: Terms) -> Iterator[str]:
    """A phrase for each term that is not what it was."""
    for field in fields(Terms):
        old, new = getattr(was, field.name), getattr(now, field.name)
        if old != new and field.name != "issuers":
            yield f"{field.name} is {old} in the ledger and {new} in site.yaml"
    for task in sorted(was.issuers.keys() | now.issuers.keys()):
        before, after = was.issuers.get(task, []), now.issuers.get(task, [])
        if before != after:
            yield f"issuers of {task} are {_named(before)} in the ledger and {_named(after)} in site.yaml"


def may_have_moved(was: Terms, now: Terms) -> bool:
    """Whether somebody may be on the other side of the split under the new terms.

    The side follows from key, issuer and PatientID, and from the fraction. So people move with the fraction, and with
    an issuer that the terms just before did not have, of the same task or at all: it may number people whom another
    one has numbered meanwhile, also if it was known before that. Nobody moves when an issuer is gone, when one that is
    known gets images of a task that is new, or with any cap.
    """
    gained = any(set(names) - set(was.issuers.get(task, names)) for task, names in now.issuers.items())
    new = known_issuers(now) - known_issuers(was)
    return now.validation_fraction != was.validation_fraction or gained or bool(new)


def _named(issuers: list[str]) -> str:
    return ", ".join(issuers) or "none"
