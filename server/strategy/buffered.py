"""What the robust strategies share: they need all updates of a round at once.

Memory: as many updates as there are hospitals, the model, and no more than two models for the result; the rules
themselves work in blocks. Where that exceeds the limit, the round is refused before any hospital is asked.

Declared weights do not count: an attacker could misuse them, so the configuration allows uniform weighting only.

Flower's own (``FedMedian``, ``FedTrimmedAvg``, ``Krum``, ``MultiKrum``) compute the same rules, and tests compare them;
but they compute on whole models, hold two to three copies of all replies, weigh by exact patient counts
(``MultiKrum``), and none refuses to start a round with so few hospitals that its rule withstands no attacker.

Privacy: as FedAvg; a robust rule on released updates is post-processing. But it mistakes noise for
disagreement: with large noise a median costs as much as losing some hospitals, and rules that choose a hospital keep
the whole noise of that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import CannotCombine
from tasks.protocol.wire import Arrays

_GB = 1e9
_AT_ONCE = 1 << 20
"""Values that a rule works on at once, over all updates together."""


@dataclass(frozen=True)
class RobustRule:
    """A rule that withstands some hospitals, whatever they send.

    Attributes:
        name: as ``strategy=`` has it.
        combine: all updates, in the order of the hospitals' names -> one, in their dtypes.
        withstands: how many attackers among so many hospitals.
    """

    name: str
    combine: Callable[[Sequence[Arrays]], Arrays]
    withstands: Callable[[int], int]


class BufferedUpdates:
    """Holds the updates of a round, then applies the rule. Their order does not matter.

    Raises:
        CannotCombine: on construction, where the invited hospitals are too few for the rule or too many for the memory.
    """

    def __init__(self, weights: Arrays, invited: int, *, rule: RobustRule, memory_limit_gb: float) -> None:
        _refuse_too_few(rule, invited)
        needed = (invited + 3) * sum(value.nbytes for value in weights.values()) / _GB
        if needed > memory_limit_gb:
            raise CannotCombine(
                f"{rule.name} holds the updates of all {invited} hospitals: {needed:.3g} GB, and "
                f"strategy.memory_limit_gb={memory_limit_gb:g}; raise it, or set strategy=norm_bounding, which streams"
            )
        self._rule = rule
        self._updates: dict[str, Arrays] = {}

    def add(self, hospital: str, update: Arrays, weight: float) -> None:
        """Keep the update.

        Raises:
            ValueError: the hospital has already been added.
        """
        if hospital in self._updates:
            raise ValueError(f"{hospital} has already been added")
        self._updates[hospital] = update

    def combined(self) -> Arrays:
        """The rule's result. Call it once: the updates are given up.

        Where so few are left that the rule withstands no attacker, the median of each value is taken: otherwise a
        dropped hospital would end the study. The round says so beside the names of those that were dropped.

        Raises:
            CannotCombine: no update was added.
        """
        if not self._updates:
            raise CannotCombine(f"{self._rule.name}: no hospital's update was added")
        updates, self._updates = self._updates, {}
        ordered = [updates[hospital] for hospital in sorted(updates)]
        if self._rule.withstands(len(ordered)) < 1:
            return by_coordinate(ordered, lambda values: np.median(values, axis=1))
        return self._rule.combine(ordered)


def blocks(updates: Sequence[Arrays]) -> Iterator[tuple[str, slice, NDArray[np.float64]]]:
    """All updates side by side, some values at a time: a tensor's name, which of its values, and those values in
    float64, shape (values, updates)."""
    width = max(1, _AT_ONCE // len(updates))
    for name in sorted(updates[0]):  # a checkpoint returns tensors in an order of its own
        flat = [update[name].reshape(-1) for update in updates]
        for start in range(0, flat[0].size, width):
            part = slice(start, start + width)
            yield name, part, np.stack([values[part] for values in flat], axis=1).astype(np.float64, copy=False)


def by_coordinate(updates: Sequence[Arrays], rule: Callable[[NDArray[np.float64]], NDArray[Any]]) -> Arrays:
    """One update from a rule for single values: shape (values, updates) -> (values,)."""
    result = {name: np.empty_like(value, order="C") for name, value in updates[0].items()}
    for name, part, values in blocks(updates):
        result[name].reshape(-1)[part] = rule(values)
    return result


def inner_products(updates: Sequence[Arrays], origin: int | None = None) -> NDArray[np.float64]:
    """Inner product of any two updates in float64, shape (updates, updates); as seen from the update ``origin``."""
    inner = np.zeros((len(updates), len(updates)))
    for _, _, values in blocks(updates):
        seen = values if origin is None else values - values[:, [origin]]
        inner += seen.T @ seen
    return inner


def squared_distances(updates: Sequence[Arrays]) -> NDArray[np.float64]:
    """Squared L2 distance between any two updates, shape (updates, updates)."""
    inner = inner_products(updates)
    lengths = np.diag(inner)
    distances = np.maximum(lengths[:, None] + lengths[None, :] - 2 * inner, 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def _refuse_too_few(rule: RobustRule, updates: int) -> None:
    if rule.withstands(updates) < 1:
        raise CannotCombine(
            f"{rule.name} with {updates} update(s) withstands no attacker: invite more hospitals, change "
            "strategy.*, or set strategy=norm_bounding"
        )
