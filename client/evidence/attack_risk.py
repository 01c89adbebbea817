"""What epsilon means for one patient, in words: how often a guess that they were there could be right.

Tested in ``tests/client/evidence/test_papers.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from client.evidence.installation import CohortHistory, Installation
from client.ledger.accounting import advantage_of
from client.site import delta_cap
from tasks.machine.evidence import Paper, Section, Sentence, missing, said
from tasks.metrics.membership import advantage, right_of_100


def attack_risk(found: Installation) -> Paper:
    """The paper on epsilon in words."""
    return Paper(
        "attack-risk",
        "What an attacker could learn of one patient",
        "For data protection officers and ethics boards: epsilon as the chance of a right guess. Input for the risk "
        "part of an assessment.",
        [
            Section("How to read it", list(_reading(found))),
            Section("What has left so far", [s for spent in found.books.cohorts for s in _spent(found, spent)] or [
                said("Nothing has been spent: no figure that rests on a patient has left.", _chain(found))
            ]),
            Section("What may leave at most", list(_caps(found))),
            Section("What this does not say", list(_limits(found))),
        ],
    )  # fmt: skip


def odds(epsilon: float) -> str:
    """The factor by which odds can change, for people."""
    if epsilon > math.log(1e12):
        return "more than 10^12"
    factor = math.exp(epsilon)
    return f"{factor:,.0f}" if factor >= 100 else f"{factor:.3g}"


def patients(cohort: str) -> str:
    """A cohort, for people."""
    return {"train": "Training patients", "validation": "Validation patients"}.get(cohort, f"Cohort {cohort}")


def guess(advantage: float) -> str:
    """An advantage in words."""
    percent = 100 * advantage
    return f"right for at most {right_of_100(advantage):.1f} of 100 patients (advantage {percent:.1f} %)"


def _chain(found: Installation) -> str:
    return found.checked("", "Every message that left has a receipt").sources[0]


def _reading(found: Installation) -> Iterator[Sentence]:
    cap, delta = found.settings.policy.max_epsilon_life, delta_cap(found.settings)
    key = found.setting("policy.max_epsilon_life")
    yield said(
        "The attacker meant here knows everything but one thing: all other patients, the method, the model, and every "
        "message that left. They guess whether one patient was in the cohort, of whom half were; tossing a coin is "
        "right for 50 of 100.",
        found.told("PRIVACY.md", "In words"))  # fmt: skip
    yield said(
        "Epsilon and delta bound how much better any guess can be: with true alarms TPR and false alarms FPR, TPR - "
        "FPR "
        "is at most (e^epsilon - 1 + 2 delta) / (e^epsilon + 1) (Kairouz, Oh and Viswanath, ICML 2015, theorem 2.1; "
        f"Humphries et al., CSF 2023). At the cap of {cap:g} and delta {delta:g} that is {advantage(cap, delta):.4f}.",
        found.told("PRIVACY.md", "In formulas"), key, found.setting("policy.max_delta"))  # fmt: skip
    yield said(
        "The ledger knows more than one epsilon: from its mechanisms the bound is computed exactly, as delta at "
        "epsilon 0 "
        "(the total variation distance). It is the smaller number of the two below, and holds as well.",
        _chain(found),
    )


def _spent(found: Installation, spent: CohortHistory) -> Iterator[Sentence]:
    one, delta = spent.budget, delta_cap(found.settings)
    rows = [found.row(e) for e in found.books.entries if e.use.cohort == one.cohort]
    keys = rows or [_chain(found)]
    shown = keys if len(keys) <= 6 else [*keys[:3], *keys[-2:]]
    orders = f"{one.orders} order{'s' if one.orders != 1 else ''}"
    if math.isinf(one.epsilon):
        yield said(
            f"{patients(one.cohort)}: something left without noise, so nothing bounds what was learned of them.", *shown
        )
        return
    yield said(
        f"{patients(one.cohort)}: epsilon {one.epsilon:.3f} at delta {delta:g} in {orders}; the odds that a patient "
        f"was there changed by a factor of at most {odds(one.epsilon)}.", *shown)  # fmt: skip
    yield said(
        f"{patients(one.cohort)}: by epsilon alone a guess is {guess(advantage(one.epsilon, delta))}; by the ledger's "
        f"mechanisms it is {guess(advantage_of(spent.mechanisms))}.", *shown)  # fmt: skip
    if one.alone is not None:
        yield said(
            f"{patients(one.cohort)}: if all other hospitals of secure sums conspired with the coordinator, epsilon "
            f"would be {one.alone:.3f}, and by it a guess {guess(advantage(one.alone, delta))}.", *shown)  # fmt: skip


def _caps(found: Installation) -> Iterator[Sentence]:
    policy, delta = found.settings.policy, delta_cap(found.settings)
    for name, cap, what in (
        ("max_epsilon_study", policy.max_epsilon_study, "one study"),
        ("max_epsilon_life", policy.max_epsilon_life, "all studies together, ever"),
    ):
        yield said(
            f"In {what}: epsilon {cap:g} at delta {delta:g} at most, a factor of {odds(cap)} on the odds; a guess is "
            f"{guess(advantage(cap, delta))} by epsilon alone."
            + (" As a worst case that protects little; what is reached so far is above." if cap > 3 else ""),
            found.setting(f"policy.{name}"),
        )
    yield found.checked(
        "No researcher and no coordinator can raise these caps.", "A patient's privacy loss has a limit"
    )


def _limits(found: Installation) -> Iterator[Sentence]:
    yield said(
        "It is the risk of one patient being found in the cohort; what the model says of many patients, such as that a "
        "finding is frequent here, is what the study is for, and is not hidden.",
        found.told("PRIVACY.md", "What is not protected"))  # fmt: skip
    yield found.checked(
        "It holds as long as the machine of the trainer, and the ledger on it, are this hospital's own.",
        "Nobody but its owner",
        "Every message that left has a receipt",
    )
    yield missing(
        "how often a patient is in two hospitals of a study, whose epsilons add up: ask the other hospitals, or "
        "assume it."
    )
