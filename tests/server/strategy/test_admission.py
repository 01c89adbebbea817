"""What must not touch the model is told by tensor."""

from __future__ import annotations

import numpy as np
import pytest

from server.strategy.admission import unusable
from server.strategy.strategy import LARGEST

FAR = "b would bring values beyond 9000 into the model, which no converging training reaches"
MODEL = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    ("update", "told"),
    [
        ({}, "b, w are missing or unknown"),
        ({"c": np.zeros(1)}, "c are missing or unknown"),
        ({"b": np.zeros((1, 3), np.float32)}, "b is float32 (1, 3), not float32 (3,)"),
        ({"b": np.zeros(3, np.float64)}, "b is float64 (3,), not float32 (3,)"),
        ({"b": np.array([0, np.nan, 0], np.float32)}, "b has values that are not finite"),
        ({"b": np.array([0, -np.inf, 0], np.float32)}, "b has values that are not finite"),
        ({"b": np.array([0, -2 * LARGEST, 0], np.float32)}, FAR),
        ({"b": np.array([0, -LARGEST, 0], np.float32)}, ""),
        ({"b": np.array([0, 3e38, 0], np.float32)}, FAR),
        ({str(n): np.zeros(1) for n in range(9)}, "0, 1, 2 and 6 more are missing or unknown"),
    ],
)
def test_what_must_not_touch_the_model_is_told_by_tensor(update: dict[str, np.ndarray], told: str) -> None:
    whole = MODEL | update if update else {}
    assert unusable(whole, MODEL).removeprefix("tensors ") == told


def test_a_tensor_without_values_is_no_fault() -> None:
    """It has no largest value to look at."""
    empty = {"w": np.zeros((0, 3), np.float32)}
    assert unusable(empty, empty) == ""


def test_a_sum_beyond_all_numbers_is_told_and_no_warning() -> None:
    huge = {"b": np.full(3, 3e38, np.float32)}
    assert unusable(huge, huge) == FAR
