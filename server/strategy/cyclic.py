"""Cyclical weight transfer: the model visits one hospital after another, round and round.

Chang et al., Distributed deep learning networks among institutions for medical imaging, JAMIA 25(8):945, 2018.

Each round asks one hospital and uses its model as it is. Flower has it for tree ensembles only (``FedXgbCyclic``).

Privacy: a hospital spends in its own turns only, one round in as many as there are hospitals. What it sends is seen
alone, not within a mean, which patient-level noise at the hospital already assumes.
Memory: as FedAvg.
"""

from __future__ import annotations

from collections.abc import Sequence


def whose_turn(hospitals: Sequence[str], round: int) -> list[str]:
    """The one hospital of a round (from 1), in the order of their names, whatever order they are given in."""
    return [sorted(hospitals)[(round - 1) % len(hospitals)]]
