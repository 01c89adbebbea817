"""What was spent of the privacy budget and what is left, by cohort and by study: for ``consilium-site ledger``, for
Prometheus, and for notices.

Tested in ``tests/client/cli/test_main.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from client.ledger.account import Account
from client.ledger.accounting import epsilon_of
from client.ledger.ledger import Ledger
from client.site import SiteSettings, delta_cap


@dataclass(frozen=True)
class CohortBudget:
    """Epsilon of one cohort for the life of the ledger, at ``client.site.delta_cap``.

    Attributes:
        epsilon: spent by all studies.
        with_set_aside: the same with what studies have set aside and not spent yet.
        left: of the cap, after both.
        orders: how many have spent it.
        alone: spent and set aside, if all other hospitals of secure sums conspired with the coordinator, and
            ``cap_alone`` for life; ``None`` where there were no such sums.
    """

    cohort: str
    epsilon: float
    with_set_aside: float
    cap: float
    left: float
    orders: int
    alone: float | None = None
    cap_alone: float | None = None


@dataclass(frozen=True)
class StudyBudget:
    """Epsilon of one study on one cohort.

    Attributes:
        set_aside: not spent yet; no other study can use it.
        orders: how many were reserved.
        lost: reserved and never answered: the work was interrupted, but its budget is spent.
        last: when the last one was.
    """

    study: str
    cohort: str
    epsilon: float
    set_aside: float
    cap: float
    orders: int
    lost: int
    last: datetime | None


def by_cohort(ledger: Ledger, settings: SiteSettings) -> list[CohortBudget]:
    """Every cohort of which something was spent or set aside."""
    cap, delta, account, found = settings.policy.max_epsilon_life, delta_cap(settings), ledger.account(), []
    for cohort in sorted({*ledger.cohorts(), *(mark.cohort for mark in account.earmarks())}):
        spent = account.spent(cohort)
        aside = [mechanism for mark in account.earmarks(cohort) for mechanism in mark.mechanisms]
        epsilon = epsilon_of([*spent, *aside], delta)
        alone, cap_alone = _alone(account, cohort, settings, delta)
        found.append(
            CohortBudget(
                cohort=cohort,
                epsilon=epsilon_of(spent, delta),
                with_set_aside=epsilon,
                cap=cap,
                left=max(0.0, cap - epsilon),
                orders=len(spent),
                alone=alone,
                cap_alone=cap_alone,
            )
        )
    return found


def _alone(account: Account, cohort: str, settings: SiteSettings, delta: float) -> tuple[float | None, float | None]:
    if not account.has_sums(cohort):
        return None, None
    sums = settings.policy.secure_sum
    cap = settings.policy.max_epsilon_life if sums is None else sums.max_epsilon_alone_life
    aside = [mechanism for mark in account.earmarks(cohort) for mechanism in mark.alone]
    return epsilon_of([*account.spent(cohort, alone=True), *aside], delta), cap


def by_study(ledger: Ledger, settings: SiteSettings) -> list[StudyBudget]:
    """Every study that has spent something or set something aside, with each of its cohorts."""
    delta, account, found = delta_cap(settings), ledger.account(), []
    pairs = dict.fromkeys((entry.use.study, entry.use.cohort) for entry in ledger.entries())
    pairs |= dict.fromkeys((mark.study, mark.cohort) for mark in account.earmarks())
    for study, cohort in pairs:
        entries = account.reservations(cohort, study)
        found.append(
            StudyBudget(
                study=study,
                cohort=cohort,
                epsilon=epsilon_of(account.spent(cohort, study), delta),
                set_aside=epsilon_of(account.earmarked(cohort, study), delta),
                cap=settings.policy.max_epsilon_study,
                orders=len(entries),
                lost=sum(entry.committed is None for entry in entries),
                last=datetime.fromisoformat(entries[-1].reserved_at) if entries else None,
            )
        )
    return found
