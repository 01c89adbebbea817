"""What a strategy is: how the replies of one round become the next model.

    invited      which hospitals are asked in a round
    sent_along   what an order carries beside the model
    weight       how much a reply counts
    combiner     the replies, one by one -> one update
    step         model, memory, update -> next model, next memory

What a strategy must remember between rounds is named arrays, so that a checkpoint can hold it and a resumed study
continues identically. A combiner is made before any hospital is asked: what cannot be combined is refused before any
privacy is spent on it.

Privacy: whatever the server computes here, it computes from what hospitals have released, and post-processing spends
nothing (Dwork & Roth, 2014, proposition 2.1). A strategy affects the guarantee only through what it asks of hospitals;
the head of each file says so.

Tested in ``tests/server/strategy/test_fedavg.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from server.errors import CannotCombine
from tasks.models import registry
from tasks.protocol.wire import Arrays

LARGEST = 0.9 * registry.LARGEST
"""No value of a model exceeds this: hospitals refuse a model beyond ``registry.LARGEST``, and rounding may add a
little, so a study that went there could not continue."""


class Combiner(Protocol):
    """Turns the replies of one round into one update.

    Updates are finite and have the model's names and shapes: ``server/strategy/admission.py`` has seen them before.
    """

    def add(self, hospital: str, update: Arrays, weight: float) -> None:
        """Add one hospital's update.

        Raises:
            ValueError: the weight is not positive and finite, or the hospital has already been added.
        """

    def combined(self) -> Arrays:
        """The update of the round, in the model's dtypes. Call it once: it gives the updates up.

        Raises:
            CannotCombine: too few updates were added.
        """


Step = Callable[[Arrays, Arrays, Arrays, float], tuple[Arrays, Arrays]]
"""(weights, memory, update, share) -> (weights, memory); leaves its arguments as they are. ``share`` is the fraction of
the study's hospitals whose updates are in ``update``."""


def everyone(hospitals: Sequence[str], round: int) -> list[str]:
    """All hospitals are asked in every round."""
    return list(hospitals)


def nothing(arrays: Arrays) -> Arrays:
    """No memory, or nothing to send along."""
    return {}


@dataclass(frozen=True)
class Strategy:
    """One way to make a round's replies the next model.

    FedAvg in one round of two hospitals, of which one has three times as many patients:

    >>> from conf.schema.strategy import FedAvg
    >>> from server.strategy import registry as strategies
    >>> strategy, weights = strategies.build(FedAvg()), {"w": np.zeros(1, np.float32)}
    >>> combiner = strategy.combiner(weights, 2)
    >>> combiner.add("alder", {"w": np.array([4.0], np.float32)}, strategy.weight(30, None))
    >>> combiner.add("birch", {"w": np.array([0.0], np.float32)}, strategy.weight(10, None))
    >>> strategy.step(weights, strategy.start(weights), combiner.combined(), 1.0)
    ({'w': array([3.], dtype=float32)}, {})

    Attributes:
        combiner: (weights, how many hospitals are invited) -> a fresh combiner; raises ``CannotCombine`` where the
            round could not be combined even if all of them answered.
        step: makes the next model.
        weight: (public size, standard deviation of the noise in each coordinate of the update, ``None`` if unknown)
            -> the reply's weight; raises ``ValueError`` where there is none.
        start: weights -> the memory before the first round.
        invited: (all hospitals, number of the round from 1) -> those that are asked.
        sent_along: memory -> arrays that an order carries beside the model.
        withstands: how many attackers among so many hospitals, for a strategy that promises it.
    """

    combiner: Callable[[Arrays, int], Combiner]
    step: Step
    weight: Callable[[int, float | None], float]
    start: Callable[[Arrays], Arrays] = nothing
    invited: Callable[[Sequence[str], int], list[str]] = everyone
    sent_along: Callable[[Arrays], Arrays] = nothing
    withstands: Callable[[int], int] | None = None


def moved(weights: Arrays, change: Callable[[str], NDArray[Any]], scale: float = 1.0) -> Arrays:
    """``weights + scale * change`` in the dtypes of ``weights``, within ``LARGEST``; a tensor's change is computed
    when it is needed.

    Raises:
        CannotCombine: a value of the new model is not finite. Training can never recover from that, so it must not be
            committed.
    """
    new: Arrays = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for name, value in weights.items():
            new[name] = np.multiply(change(name), scale).astype(value.dtype, copy=False)
            new[name] += value
    broken = [name for name, value in new.items() if not np.isfinite(value).all()]
    if broken:
        raise CannotCombine(
            f"the new model would not be finite in {', '.join(broken[:5])}: some update is far too long; "
            "set a smaller learning rate, or strategy=norm_bounding"
        )
    return {name: np.clip(value, -LARGEST, LARGEST, out=value) for name, value in new.items()}


def norm(update: Arrays) -> float:
    """The L2 norm over all tensors together, added up in float64."""
    squares = 0.0
    for _, value in sorted(update.items()):  # so that a sum is the same in a resumed study
        flat = value.reshape(-1)
        squares += float(np.einsum("i,i", flat, flat, dtype=np.float64))
    return math.sqrt(squares)
