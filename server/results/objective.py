"""What a search over settings makes as large as it can: one figure of a study that has ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean

from server.results.results import Results

_Metrics = Mapping[str, float]


def _mean_auc(metrics: _Metrics, hospitals: list[str]) -> float:
    return metrics.get("result/federated_auc", math.nan)


def _worst_auc(metrics: _Metrics, hospitals: list[str]) -> float:
    told = [metrics[key] for name in hospitals if (key := f"result/{name}/federated_auc") in metrics]
    return min(told) if told and len(told) == len(hospitals) else math.nan  # one without could be the worst


def _pooled_auc(metrics: _Metrics, hospitals: list[str]) -> float:
    return metrics.get("result/pooled_patients/federated_auc", math.nan)


def _mean_dice(metrics: _Metrics, hospitals: list[str]) -> float:
    told = [value for key, value in metrics.items() if key.startswith("result/pooled_patients/federated_dice_")]
    return fmean(told) if told else math.nan


OBJECTIVES: dict[str, Callable[[_Metrics, list[str]], float]] = {
    "mean_auc": _mean_auc,
    "worst_auc": _worst_auc,
    "pooled_auc": _pooled_auc,
    "mean_dice": _mean_dice,
}
"""By the names that ``conf/schema/study.py`` has."""


def objective_of(outcome: Results, name: str) -> float:
    """The figure that ``objective`` names, of the federated model; not a number where the study does not tell it."""
    return OBJECTIVES[name](outcome.metrics(), list(outcome.arms["federated"]))
