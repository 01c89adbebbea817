"""How a model gets to hospitals with the fewest bytes: whole, as its change, or not at all.

Where the study document lets models travel as changes, the change of a round is rounded before it is sent, and the
server continues from the rounded model: theirs and the server's are equal to the last bit, and a digest proves it. The
rounding error is added to the next change (error feedback). A hospital that holds the model already is sent its digest
alone, as from the evaluation of one round to the training of the next. A hospital that missed a round, or has lost the
model, is sent the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flwr.app import RecordDict

from tasks.protocol import encoding, wire
from tasks.protocol.study import Encoding
from tasks.protocol.wire import Arrays, EvaluateOrder, ModelChange, TrainOrder


class Broadcast:
    """Knows which model each hospital holds. It lives as long as the process; a new one sends the whole model once.

    Args:
        form: how changes are encoded; with ``float32`` every order brings the whole model.
    """

    def __init__(self, form: Encoding = "float32") -> None:
        self._form = form
        self._held: dict[str, str] = {}  # digest of the model, by hospital
        self._base, self._result = "", ""  # digests of the models before and after the last change
        self._change: Arrays = {}

    @property
    def sends_changes(self) -> bool:
        """Whether models travel as changes."""
        return self._form != "float32"

    def rounded(self, sent: Arrays, model: Arrays, residual: Arrays) -> tuple[Arrays, Arrays]:
        """A new model as hospitals will hold it, and the rounding error that is left over.

        Args:
            sent: the model as they hold it now.
            residual: the rounding error of the last round; may be empty.
        """
        if not self.sends_changes:
            return model, {}
        exact = {name: value - sent[name] + residual.get(name, 0) for name, value in model.items()}
        coded = encoding.shrink(exact, self._form)
        change = encoding.restore(coded, self._form, sent)
        result = {name: value + change[name] for name, value in sent.items()}
        self._base, self._result = wire.digest_of_arrays(sent), wire.digest_of_arrays(result)
        self._change = coded
        return result, {name: value - change[name] for name, value in exact.items()}

    def contents(self, order: TrainOrder | EvaluateOrder, hospitals: Sequence[str]) -> dict[str, RecordDict]:
        """The order for each hospital, as short as it can be. Equal ones are one object."""
        whole = wire.encode(order)
        if not self.sends_changes:
            return dict.fromkeys(hospitals, whole)
        digest = wire.digest_of_arrays(order.arrays)
        by_held = {digest: wire.encode(replace(order, arrays={}, change=ModelChange(digest, digest)))}
        if digest == self._result != self._base:
            change = ModelChange(self._base, digest)
            by_held[self._base] = wire.encode(replace(order, arrays=self._change, change=change))
        return {hospital: by_held.get(self._held.get(hospital, ""), whole) for hospital in hospitals}

    def confirmed(self, hospital: str, order: TrainOrder | EvaluateOrder) -> None:
        """The hospital has answered the order, so it holds the order's model."""
        if self.sends_changes:
            self._held[hospital] = wire.digest_of_arrays(order.arrays)

    def forget(self, hospital: str) -> None:
        """The hospital has said that it does not hold the model that it was expected to hold."""
        self._held.pop(hospital, None)
