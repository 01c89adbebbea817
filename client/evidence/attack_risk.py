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
from tasks.machine.language import number, say, say_many
from tasks.metrics.membership import advantage, right_of_100


def attack_risk(found: Installation) -> Paper:
    """The paper on epsilon in words."""
    return Paper(
        "attack-risk",
        say("What an attacker could learn of one patient"),
        say("For data protection officers and ethics boards: epsilon as the chance of a right guess. Input for the "
            "risk part of an assessment."),
        [
            Section(say("How to read it"), list(_reading(found))),
            Section(say("What has left so far"), [s for one in found.books.cohorts for s in _spent(found, one)] or [
                said(say("Nothing has been spent: no figure that rests on a patient has left."), _chain(found))
            ]),
            Section(say("What may leave at most"), list(_caps(found))),
            Section(say("What this does not say"), list(_limits(found))),
        ],
    )  # fmt: skip


def odds(epsilon: float) -> str:
    """The factor by which odds can change, for people."""
    if epsilon > math.log(1e12):
        return say("more than 10^12")
    factor = math.exp(epsilon)
    return number(factor, ",.0f" if factor >= 100 else ".3g")


def patients(cohort: str) -> str:
    """A cohort, for people."""
    match cohort:
        case "train":
            return say("Training patients")
        case "validation":
            return say("Validation patients")
        case _:
            return say("Cohort {cohort}", cohort=cohort)


def guess(advantage: float) -> str:
    """An advantage in words."""
    return say(
        "right for at most {number} of 100 patients (advantage {percent} %)",
        number=number(right_of_100(advantage), ".1f"), percent=number(100 * advantage, ".1f"))  # fmt: skip


def _chain(found: Installation) -> str:
    return found.checked("", "Every message that left has a receipt").sources[0]


def _reading(found: Installation) -> Iterator[Sentence]:
    cap, delta = found.settings.policy.max_epsilon_life, delta_cap(found.settings)
    key = found.setting("policy.max_epsilon_life")
    yield said(
        say("The attacker meant here knows everything but one thing: all other patients, the method, the model, and "
            "every message that left. They guess whether one patient was in the cohort, of whom half were; tossing a "
            "coin is right for 50 of 100."),
        found.told("PRIVACY.md", "In words"))  # fmt: skip
    yield said(
        say("Epsilon and delta bound how much better any guess can be: with true alarms TPR and false alarms FPR, "
            "TPR - FPR is at most (e^epsilon - 1 + 2 delta) / (e^epsilon + 1) (Kairouz, Oh and Viswanath, ICML 2015, "
            "theorem 2.1; Humphries et al., CSF 2023). At the cap of {cap} and delta {delta} that is {advantage}.",
            cap=number(cap), delta=number(delta), advantage=number(advantage(cap, delta), ".4f")),
        found.told("PRIVACY.md", "In formulas"), key, found.setting("policy.max_delta"))  # fmt: skip
    yield said(
        say("The ledger knows more than one epsilon: from its mechanisms the bound is computed exactly, as delta at "
            "epsilon 0 (the total variation distance). It is the smaller number of the two below, and holds as well."),
        _chain(found))  # fmt: skip


def _spent(found: Installation, spent: CohortHistory) -> Iterator[Sentence]:
    one, delta, whose = spent.budget, delta_cap(found.settings), patients(spent.budget.cohort)
    rows = [found.row(e) for e in found.books.entries if e.use.cohort == one.cohort]
    keys = rows or [_chain(found)]
    shown = keys if len(keys) <= 6 else [*keys[:3], *keys[-2:]]
    if math.isinf(one.epsilon):
        yield said(
            say("{patients}: something left without noise, so nothing bounds what was learned of them.",
                patients=whose), *shown)  # fmt: skip
        return
    yield said(
        say("{patients}: epsilon {epsilon} at delta {delta} in {orders}; the odds that a patient was there changed by "
            "a factor of at most {odds}.",
            patients=whose, epsilon=number(one.epsilon, ".3f"), delta=number(delta),
            orders=say_many("{n} order", "{n} orders", one.orders), odds=odds(one.epsilon)), *shown)  # fmt: skip
    yield said(
        say("{patients}: by epsilon alone a guess is {guess}; by the ledger's mechanisms it is {sharper}.",
            patients=whose, guess=guess(advantage(one.epsilon, delta)),
            sharper=guess(advantage_of(spent.mechanisms))), *shown)  # fmt: skip
    if one.alone is not None:
        yield said(
            say("{patients}: if all other hospitals of secure sums conspired with the coordinator, epsilon would be "
                "{epsilon}, and by it a guess {guess}.",
                patients=whose, epsilon=number(one.alone, ".3f"), guess=guess(advantage(one.alone, delta))),
            *shown)  # fmt: skip


def _caps(found: Installation) -> Iterator[Sentence]:
    policy, delta = found.settings.policy, delta_cap(found.settings)
    for name, cap, where in (
        ("max_epsilon_study", policy.max_epsilon_study, say("In one study")),
        ("max_epsilon_life", policy.max_epsilon_life, say("In all studies together, ever")),
    ):
        yield said(
            say("{where}: epsilon {cap} at delta {delta} at most, a factor of {odds} on the odds; a guess is {guess} "
                "by epsilon alone.",
                where=where, cap=number(cap), delta=number(delta), odds=odds(cap), guess=guess(advantage(cap, delta)))
            + (say(" As a worst case that protects little; what is reached so far is above.") if cap > 3 else ""),
            found.setting(f"policy.{name}"))  # fmt: skip
    yield found.checked(
        say("No researcher and no coordinator can raise these caps."), "A patient's privacy loss has a limit"
    )


def _limits(found: Installation) -> Iterator[Sentence]:
    yield said(
        say("It is the risk of one patient being found in the cohort; what the model says of many patients, such as "
            "that a finding is frequent here, is what the study is for, and is not hidden."),
        found.told("PRIVACY.md", "What is not protected"))  # fmt: skip
    yield found.checked(
        say("It holds as long as the machine of the trainer, and the ledger on it, are this hospital's own."),
        "Nobody but its owner",
        "Every message that left has a receipt",
    )
    yield missing(
        say("how often a patient is in two hospitals of a study, whose epsilons add up: ask the other hospitals, or "
            "assume it.")
    )  # fmt: skip
