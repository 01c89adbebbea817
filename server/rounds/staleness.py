"""Updates that arrive after their round has closed: dropped, or added to a later round at a discount.

``federation.late_rounds`` says for how many rounds after its own an update is accepted; 0 accepts none. One that is tau
rounds late is multiplied by

    1 / sqrt(1 + tau)

and keeps its weight in the mean, so that it moves the model less without giving the others a larger share. That is the
server of FedBuff (Nguyen et al., AISTATS 2022, algorithm 1 and section 5), and the polynomial staleness function with
a = 1/2 of FedAsync (Xie et al., 2019, arXiv:1903.03934, section 5.2). It is an update of an older model, added to the
newer one.

A hospital that still works on an order is not sent another one where all hospitals train in every round: a queue of
orders would keep a slow hospital late for ever, and spend its patients' privacy on updates too late to count.

Privacy: nothing. The hospital reserved that order before it trained, and its noise is in the update; when the server
uses it is post-processing. Dropping it refunds nothing.
Memory: nothing is held but names; a late update is added as it arrives, like any other.

A late update does not count towards the quorum. The list is lost with the process; then the hospital is asked for the
new round.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from tasks.protocol.wire import Arrays


@dataclass(frozen=True)
class OverdueOrder:
    """An order whose round has closed: to which hospital, and of which round."""

    hospital: str
    round: int


class OverdueOrders:
    """Orders whose round has closed without their answer.

    Args:
        rounds: for how many rounds after its own an answer is accepted.
    """

    def __init__(self, rounds: int = 0) -> None:
        self._rounds = rounds
        self._orders: dict[str, OverdueOrder] = {}
        self._unread: list[Message] = []

    @property
    def carries(self) -> bool:
        """Whether late updates are accepted at all."""
        return self._rounds > 0

    def waits_for(self, hospital: str) -> bool:
        """Whether a hospital still works on an earlier order, as far as is known."""
        return any(order.hospital == hospital for order in self._orders.values())

    def lives_s(self, deadline_s: float) -> float:
        """How long an answer to an order to train still counts: a round has two deadlines, to train and to evaluate."""
        return deadline_s * (1 + 2 * self._rounds)

    def too_old_for(self, round: int) -> list[str]:
        """Give up the orders whose answers would arrive too late for a round. Returns their messages."""
        old = [name for name, order in self._orders.items() if round - order.round > self._rounds]
        for name in old:
            del self._orders[name]
        return old

    def messages(self) -> list[str]:
        """Those that may yet be answered."""
        return list(self._orders)

    def keep(self, orders: Mapping[str, str], round: int, unread: Iterable[Message] = ()) -> None:
        """A round has closed without answers to these orders.

        Args:
            orders: hospital by message.
            unread: answers to some of them that have arrived, and that the round no longer needed.
        """
        self._orders |= {name: OverdueOrder(hospital, round) for name, hospital in orders.items()}
        self._unread += unread

    def unread(self) -> list[Message]:
        """Answers that had arrived when their round closed; each is given once."""
        unread, self._unread = self._unread, []
        return unread

    def take(self, message: str) -> OverdueOrder | None:
        """The order that a late reply answers, if it is one; it is no longer waited for."""
        return self._orders.pop(message, None)


def discount(rounds_late: int) -> float:
    """The factor for an update that is so many rounds late."""
    return 1 / math.sqrt(1 + rounds_late)


def discounted(update: Arrays, rounds_late: int) -> Arrays:
    """The update times its discount, in its own dtypes. Tensors are replaced one by one, so none is held twice."""
    return scaled(update, discount(rounds_late))


def scaled(update: Arrays, factor: float) -> Arrays:
    """The update times a factor, likewise."""
    for name in list(update) if factor != 1 else []:
        update[name] = np.multiply(update[name], factor, dtype=update[name].dtype)
    return update
