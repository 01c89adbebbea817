"""How the secure sums of a study are paid for: with one noise that all hospitals know, on two accounts.

The noise of the sum follows from the study document alone: the least with which all steps (or histograms) and the spare
attempts stay within the study's epsilon. It cannot follow from one hospital's books, as it does where each adds the
whole noise, because each relies on what the others add. So a hospital checks it against its own caps, and takes part or
does not:

    as agreed            the sum's noise: what the coordinator and up to ``colluding`` hospitals can learn together
    if all others lie    this hospital's own share, noise / sqrt(H - t): what they can learn if no other adds noise

Every attempt is charged, whatever becomes of it: nobody can prove that a reply did not arrive. Plans take the full
roster, of which each hospital's share is the smallest; an attempt with fewer hospitals is charged with its own, larger
one.
"""

from __future__ import annotations

from dataclasses import dataclass

from client.errors import BudgetExhausted
from client.ledger import accounting
from client.ledger.account import Account, LedgerEntry
from client.ledger.accounting import Mechanism
from client.ledger.ledger import Planned
from client.policy import COHORTS, Part
from tasks.machine.language import say
from tasks.protocol.secure_sum import share
from tasks.protocol.study import SecureSumTerms, StudyDocument
from tasks.protocol.wire import EvaluateOrder, TrainOrder


@dataclass(frozen=True)
class SumPlan:
    """What a part of a study is planned to use of its cohort, and still needs of it.

    Attributes:
        noise: noise multiplier of each sum, as all hospitals have it.
        ahead: what is still needed, spare attempts included.
        ahead_alone: the same if all other hospitals conspire.
    """

    noise: float
    ahead: list[Mechanism]
    ahead_alone: list[Mechanism]


def sums_of(study: StudyDocument, part: Part) -> SecureSumTerms | None:
    """The terms of a part's secure sums; ``None`` where each hospital adds the whole noise."""
    terms = study.secure_sum
    return terms if terms is not None and (terms.steps if part == "training" else terms.figures) else None


def noise_of(study: StudyDocument, part: Part) -> float:
    """The noise multiplier of every sum of a part: it follows from the document alone.

    Raises:
        BudgetExhausted: no noise keeps so many sums within the study's epsilon.
    """
    epsilon = study.privacy.epsilon if part == "training" else study.evaluation.epsilon
    assert epsilon is not None  # the document was refused otherwise
    ahead = [(1.0, _attempts(study, part))]
    return accounting.plan_scale([], _rate(study, part), ahead, epsilon, study.privacy.delta)


def plan(study: StudyDocument, part: Part, terms: SecureSumTerms, account: Account) -> SumPlan:
    """What a part still needs, after what it has reserved.

    Raises:
        BudgetExhausted: see ``noise_of``.
    """
    noise, left = noise_of(study, part), _left(study, part, account.reservations(COHORTS[part], study.name))
    own = share(noise, len(terms.peers), terms.colluding)
    rate = _rate(study, part)
    return SumPlan(noise, _times(noise, rate, left), _times(own, rate, left))


def planned(order: TrainOrder | EvaluateOrder, part: Part, terms: SecureSumTerms, account: Account) -> Planned:
    """What an order will use, on its cohort alone.

    Raises:
        BudgetExhausted: its study's attempts are used up.
    """
    study, attempt, cohort = order.study, order.attempt, COHORTS[part]
    assert attempt is not None  # the order was refused otherwise
    scores = isinstance(order, EvaluateOrder) and order.asks == "scores"
    count = study.evaluation.histograms(order.round == study.rounds) if scores else 1
    ahead = plan(study, part, terms, account)
    if sum(mechanism.count for mechanism in ahead.ahead) < count:
        raise BudgetExhausted(
            say(
                "{cohort}: study {study} has used the {sums} sums for which its noise is planned, spare attempts "
                "included",
                cohort=cohort,
                study=study.name,
                sums=_attempts(study, part),
            )
        )
    own, rate = share(ahead.noise, len(attempt.roster), terms.colluding), _rate(study, part)
    return Planned(
        Mechanism(ahead.noise, rate, count),
        {cohort: ahead.ahead},
        Mechanism(own, rate, count),
        {cohort: ahead.ahead_alone},
    )


def _attempts(study: StudyDocument, part: Part) -> int:
    """How many sums are planned: those that are needed, and the spare ones."""
    terms = study.secure_sum
    assert terms is not None
    if part == "training":
        return study.rounds + terms.spare_steps
    evaluation = study.evaluation
    return evaluation.all_histograms() + terms.spare_evaluations * evaluation.histograms(last=True)


def _left(study: StudyDocument, part: Part, entries: list[LedgerEntry]) -> int:
    return max(0, _attempts(study, part) - sum(entry.mechanism.count for entry in entries))


def _rate(study: StudyDocument, part: Part) -> float:
    return study.training.sample_rate if part == "training" else 1.0


def _times(noise: float, rate: float, count: int) -> list[Mechanism]:
    return [Mechanism(noise, rate, count)] if count else []
