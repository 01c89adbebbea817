"""Reservations in a ledger, planned as a test says."""

from __future__ import annotations

from collections.abc import Callable

from client.ledger.account import Account, Use
from client.ledger.accounting import Mechanism, plan_scale
from client.ledger.ledger import Caps, Ledger, Planned


def reserve(ledger: Ledger, use: Use, plan: Callable[[Account], Planned], caps: Caps) -> Mechanism:
    """Plan and reserve an order, as ``client.oversight.planning.reserve`` does."""
    with ledger.planning(use) as account:
        planned = plan(account)
        ledger.reserve(use, planned, caps)
    return planned.now


def plan_noise(spent: list[Mechanism], sample_rate: float, count: int, epsilon: float, delta: float) -> float:
    """The least noise with which ``count`` more applications, after what was spent, stay within (epsilon, delta); that
    of what was spent last, if it will do."""
    last = spent[-1].noise_multiplier if spent else 0.0
    return plan_scale(spent, sample_rate, ahead=[(1.0, count)], epsilon=epsilon, delta=delta, tried=last)
