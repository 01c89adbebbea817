"""Two models on the same validation patients: what an order to compare brings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from client.dataset import Cohort
from client.errors import BadOrder
from client.train import load_weights, score_patients
from tasks.metrics.paired import are_edges
from tasks.wire import EDGES, OTHER, Arrays, EvaluateOrder


@dataclass(frozen=True)
class Second:
    """The other model of an order, whole, and the edges of both models' bins, float64 of shape (2, bins - 1)."""

    weights: Arrays
    edges: NDArray[np.float64]

    def scores(self, module: nn.Module, cohort: Cohort) -> NDArray[np.float64]:
        """Its score of each patient; ``module`` holds it afterwards.

        Raises:
            BadOrder: its tensors do not fit the network.
        """
        load_weights(module, self.weights)
        return score_patients(module, cohort)


def split(order: EvaluateOrder) -> tuple[EvaluateOrder, Second | None]:
    """The order with its first model alone, and what is compared with it, if anything is.

    Raises:
        BadOrder: the edges are missing or are none of the study's bins.
    """
    if order.asks != "paired":
        return order, None
    edges = order.arrays.get(EDGES)
    due = (2, order.study.evaluation.paired - 1)
    if edges is None or edges.dtype != np.float64 or edges.shape != due or not are_edges(edges):
        raise BadOrder(f"{EDGES} must be float64 of shape {due}, between 0 and 1 and not decreasing in a row")
    other = {name.removeprefix(OTHER): value for name, value in order.arrays.items() if name.startswith(OTHER)}
    mine = {name: value for name, value in order.arrays.items() if name != EDGES and not name.startswith(OTHER)}
    return replace(order, arrays=mine), Second(other, edges)
