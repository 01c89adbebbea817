"""What a search makes large: one figure of the federated model, and none where the study tells none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from conf.schema.study import OBJECTIVES as NAMES
from server.results.objective import OBJECTIVES, objective_of
from server.results.results import Results


@dataclass
class Told:
    """Results, as far as an objective looks at them."""

    figures: dict[str, float]
    arms: dict[str, Any] = field(default_factory=lambda: {"federated": {"alder": None, "birch": None}})

    def metrics(self) -> dict[str, float]:
        return {f"result/{name}": value for name, value in self.figures.items()}


def objective(name: str, **figures: float) -> float:
    return objective_of(cast(Results, Told({key.replace("__", "/"): value for key, value in figures.items()})), name)


def test_every_name_that_can_be_set_is_computed() -> None:
    assert tuple(OBJECTIVES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_told_is_no_number(name: str) -> None:
    assert math.isnan(objective(name))


def test_each_is_the_figure_that_it_is_called() -> None:
    told = {
        "federated_auc": 0.8,
        "local_auc": 0.99,
        "pooled_patients__federated_auc": 0.7,
        "alder__federated_auc": 0.9,
        "birch__federated_auc": 0.6,
        "birch__local_auc": 0.1,
        "pooled_patients__federated_dice_tumour": 0.5,
        "pooled_patients__federated_dice_cyst": 0.25,
        "pooled_patients__local_dice_cyst": 0.9,
    }
    found = {name: objective(name, **told) for name in NAMES}
    assert found == {"mean_auc": 0.8, "worst_auc": 0.6, "pooled_auc": 0.7, "mean_dice": 0.375}


def test_a_hospital_without_a_figure_could_be_the_worst() -> None:
    assert math.isnan(objective("worst_auc", alder__federated_auc=0.9))
