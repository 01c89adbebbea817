"""The running mean is the weighted mean, whatever arrives in whatever order and dtype."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from server.errors import CannotCombine
from server.strategy.fedavg import RunningMean, fedavg_step, mean_combiner

MODEL = {"w": np.zeros((1, 2), np.float32), "b": np.zeros(1, np.float32)}
VALUES = st.floats(-100, 100)


def reply(*values: float) -> dict[str, np.ndarray]:
    return {"w": np.array([values[:2]], np.float32), "b": np.array(values[2:], np.float32)}


def test_a_round_by_hand() -> None:
    mean = mean_combiner(MODEL, invited=2)
    mean.add("alder", reply(1, 2, 3), 1.0)
    mean.add("birch", reply(5, -2, 0), 3.0)
    update = mean.combined()
    assert update["w"].tolist() == [[4.0, -1.0]]  # (1 + 3 * 5) / 4, (2 - 3 * 2) / 4
    assert update["b"].tolist() == [0.75]
    weights, memory = fedavg_step({"w": np.ones((1, 2), np.float32)}, {}, update, 1.0, server_learning_rate=0.5)
    assert weights["w"].tolist() == [[3.0, 0.5]]
    assert weights["w"].dtype == update["w"].dtype == np.float32
    assert memory == {}


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float64, (5, 3), elements=VALUES),
    st.permutations(range(5)),
    hnp.arrays(np.float64, 3, elements=VALUES),
)
def test_the_order_does_not_matter_and_a_shift_of_all_shifts_the_mean(
    rows: np.ndarray, order: list[int], shift: np.ndarray
) -> None:
    model, weights = {"w": np.zeros(3)}, np.arange(1.0, 6.0)
    mean, moved = RunningMean(model), RunningMean(model)
    for index in range(5):
        mean.add(str(index), {"w": rows[index]}, weights[index])
    for index in order:
        moved.add(str(index), {"w": rows[index] + shift}, weights[index])
    expected = np.average(rows, axis=0, weights=weights)
    np.testing.assert_allclose(mean.combined()["w"], expected, atol=1e-9)
    np.testing.assert_allclose(moved.combined()["w"], expected + shift, atol=1e-9)


def test_half_precision_updates_are_added_up_in_full_precision() -> None:
    """1024 + 1 is 1025 in fp16, but 2048 + 1 is 2048: a sum in fp16 loses every other hospital."""
    mean = RunningMean({"w": np.zeros(1, np.float32)})
    for hospital in range(4096):
        mean.add(str(hospital), {"w": np.ones(1, np.float16)}, 1.0)
    assert mean.combined()["w"].tolist() == [1.0]
    naive = np.float16(0)
    for _ in range(4096):
        naive += np.float16(1)
    assert naive == 2048


def test_a_tensor_larger_than_a_block_and_a_tensor_that_is_not_contiguous() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(300, 500)).astype(np.float32)
    mean = RunningMean({"w": np.zeros((500, 300), np.float32)})
    mean.add("alder", {"w": values.T}, 2.0)
    np.testing.assert_array_equal(mean.combined()["w"], values.T)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused_by_name(weight: float) -> None:
    with pytest.raises(ValueError, match=f"alder: a weight must be positive and finite, not {weight}"):
        RunningMean(MODEL).add("alder", reply(1, 2, 3), weight)


def test_a_hospital_counts_once() -> None:
    mean = RunningMean(MODEL)
    mean.add("alder", reply(1, 2, 3), 1.0)
    with pytest.raises(ValueError, match="alder has already been added"):
        mean.add("alder", reply(1, 2, 3), 1.0)


def test_a_round_that_trained_nobody_has_no_mean() -> None:
    with pytest.raises(CannotCombine, match="trained nobody"):
        RunningMean(MODEL).combined()


def test_a_model_that_would_not_be_finite_is_refused_by_tensor() -> None:
    weights = {"w": np.full(1, 3e38, np.float32), "b": np.zeros(1, np.float32)}
    update = {"w": np.full(1, 3e38, np.float32), "b": np.zeros(1, np.float32)}
    with pytest.raises(CannotCombine, match=r"not be finite in w: .*norm_bounding"):
        fedavg_step(weights, {}, update, 1.0, server_learning_rate=1.0)


def test_memory_is_three_models_and_a_reply_however_many_hospitals_there_are() -> None:
    """The full table is in ``tests/benchmarks/bench_aggregation_memory.py``."""
    size, peaks = 4_000_000, []
    for hospitals in (2, 32):
        tracemalloc.start()
        weights = {str(tensor): np.zeros(size // 40, np.float32) for tensor in range(10)}
        mean = mean_combiner(weights, hospitals)
        for hospital in range(hospitals):
            mean.add(str(hospital), {name: value + 1 for name, value in weights.items()}, 1.0)
        fedavg_step(weights, {}, mean.combined(), 1.0, server_learning_rate=1.0)
        peaks.append(tracemalloc.get_traced_memory()[1] / size)
        tracemalloc.stop()
    assert peaks == pytest.approx([4.0, 4.0], abs=0.15)
