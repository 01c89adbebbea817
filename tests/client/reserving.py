"""Reservations in a ledger, planned as a test says."""

from __future__ import annotations

from collections.abc import Callable

from client.ledger.account import Account, Use
from client.ledger.accounting import Mechanism
from client.ledger.ledger import Caps, Ledger, Planned


def reserve(ledger: Ledger, use: Use, plan: Callable[[Account], Planned], caps: Caps) -> Mechanism:
    """Plan and reserve an order, as ``client.oversight.planning.reserve`` does."""
    with ledger.planning(use) as account:
        planned = plan(account)
        ledger.reserve(use, planned, caps)
    return planned.now
