"""How a model gets to hospitals with the fewest bytes: whole, as its change, or not at all.

Where the study says that models travel as changes, the change of a round is rounded before it is sent, and the model
goes on from what hospitals were told: theirs and the server's are the same to the last bit, and a digest says so. What
rounding took is added to the next change. A hospital that holds the model already is sent its digest alone, as from the
evaluation of one round to the training of the next; whoever missed a round, or has lost it, is sent the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from flwr.app import RecordDict

from tasks.protocol import encoding, wire
from tasks.protocol.study import Encoding
from tasks.protocol.wire import Arrays, EvaluateOrder, ModelChange, TrainOrder

Order = TypeVar("Order", TrainOrder, EvaluateOrder)


class Broadcast:
    """Knows what each hospital was last seen to hold; forgets it when the process ends, and sends the whole once."""

    def __init__(self, form: Encoding = "float32") -> None:
        self._form = form
        self._held: dict[str, str] = {}
        self._base, self._result = "", ""
        self._change: Arrays = {}

    @property
    def changes(self) -> bool:
        """Whether models travel as changes."""
        return self._form != "float32"

    def told(self, before: Arrays, after: Arrays, lost: Arrays) -> tuple[Arrays, Arrays]:
        """Of a new model what hospitals will be told, and what rounding takes from it.

        Args:
            before: what they were told last.
            lost: what rounding took then; may be empty.
        """
        if not self.changes:
            return after, {}
        meant = {name: value - before[name] + lost.get(name, 0) for name, value in after.items()}
        coded = encoding.shrink(meant, self._form)
        change = encoding.restore(coded, self._form, before)
        told = {name: value + change[name] for name, value in before.items()}
        self._base, self._result = wire.digest_of_arrays(before), wire.digest_of_arrays(told)
        self._change = coded
        return told, {name: value - change[name] for name, value in meant.items()}

    def contents(self, order: TrainOrder | EvaluateOrder, hospitals: Sequence[str]) -> dict[str, RecordDict]:
        """The order for each hospital, as short as it can be. Equal ones are one object."""
        whole = wire.encode(order)
        if not self.changes:
            return dict.fromkeys(hospitals, whole)
        digest = wire.digest_of_arrays(order.arrays)
        ways = {digest: wire.encode(replace(order, arrays={}, change=ModelChange(digest, digest)))}
        if digest == self._result != self._base:
            ways[self._base] = wire.encode(replace(order, arrays=self._change, change=ModelChange(self._base, digest)))
        return {hospital: ways.get(self._held.get(hospital, ""), whole) for hospital in hospitals}

    def arrived(self, hospital: str, order: TrainOrder | EvaluateOrder) -> None:
        """The hospital has answered, so it holds the order's model."""
        if self.changes:
            self._held[hospital] = wire.digest_of_arrays(order.arrays)

    def forget(self, hospital: str) -> None:
        """It has said that it does not hold what it should."""
        self._held.pop(hospital, None)
