"""Krum and Multi-Krum: the updates with the closest neighbours (Blanchard et al., NeurIPS 2017, sections 4 and 5).

An update's score is the sum of its squared distances to the n - f - 2 nearest others, f being the number of attackers.
Krum takes the update with the smallest score; Multi-Krum the mean of the m smallest. Both need n >= 2 f + 3, and
Multi-Krum m <= n - f, of those whose updates are usable: against f attackers that may also stay silent, invite
3 f + 3. Krum follows one hospital a round: use it where hospitals are alike.

Privacy, memory, and why not Flower's: see ``buffered.py``. With noise, distances between updates are mostly noise, and
Krum's choice is the one that happens to have drawn the least.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.strategy.buffered import RobustRule, squared_distances
from server.strategy.fedavg import RunningMean
from tasks.protocol.wire import Arrays


def scores(distances: NDArray[np.float64], attackers: int) -> NDArray[np.float64]:
    """Krum's score of each update from the squared distances, shape (updates, updates) -> (updates,)."""
    nearest = len(distances) - attackers - 2
    others = np.sort(distances, axis=1)[:, 1:]  # the first is the distance to itself
    return np.asarray(others[:, :nearest].sum(axis=1))


def multi_krum(updates: Sequence[Arrays], attackers: int, selected: int) -> Arrays:
    """The mean of the ``selected`` updates with the smallest scores; of equal ones those that come first."""
    best = np.argsort(scores(squared_distances(updates), attackers), kind="stable")[:selected]
    mean = RunningMean(updates[0])
    for index in best:
        mean.add(str(index), updates[index], 1.0)
    return mean.combined()


def krum_rule(attackers: int) -> RobustRule:
    """Withstands ``attackers`` of at least 2 ``attackers`` + 3."""
    return RobustRule(
        "krum",
        lambda updates: multi_krum(updates, attackers, 1),
        lambda updates: attackers if updates >= 2 * attackers + 3 else 0,
    )


def multi_krum_rule(attackers: int, selected: int) -> RobustRule:
    """As ``krum_rule``, of at least ``attackers`` + ``selected`` as well."""
    return RobustRule(
        "multi_krum",
        lambda updates: multi_krum(updates, attackers, selected),
        lambda updates: attackers if updates >= max(2 * attackers + 3, attackers + selected) else 0,
    )
