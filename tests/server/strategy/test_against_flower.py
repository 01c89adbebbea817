"""Flower's strategies as the second opinion, wherever they mean the same.

Flower averages models, not updates, with ``num-examples`` as weights; so updates are added to the model on the way in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from server.runtime import flower_private
from server.strategy import fedopt
from server.strategy.coordinate_wise import median, trimmed_mean
from server.strategy.fedavg import RunningMean
from server.strategy.fedavgm import fedavgm_start, fedavgm_step
from server.strategy.krum import multi_krum
from tasks.protocol.wire import Arrays

Draw = Callable[..., list[Arrays]]


@pytest.fixture(autouse=True)
def identity() -> None:
    flower_private.claim_identity()


def replies(weights: Arrays, updates: list[Arrays], examples: list[int]) -> list[Message]:
    messages = []
    for node, (update, count) in enumerate(zip(updates, examples, strict=True), start=1):
        arrays = ArrayRecord({name: Array(weights[name] + value) for name, value in update.items()})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": count})})
        order = Message(RecordDict(), dst_node_id=node, message_type="train")
        messages.append(Message(content, reply_to=order))
    return messages


def theirs(
    strategy: flower.FedAvg, weights: Arrays, updates: list[Arrays], examples: list[int], round: int = 1
) -> Arrays:
    arrays, _ = strategy.aggregate_train(round, replies(weights, updates, examples))
    assert arrays is not None
    return {name: array.numpy() for name, array in arrays.items()}


def mean_of(updates: list[Arrays], examples: list[int]) -> Arrays:
    mean = RunningMean(updates[0])
    for index, (update, count) in enumerate(zip(updates, examples, strict=True)):
        mean.add(str(index), update, count)
    return mean.combined()


def assert_same(ours: Arrays, theirs: Arrays) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-9, atol=1e-12)


def added(weights: Arrays, update: Arrays) -> Arrays:
    return {name: value + update[name] for name, value in weights.items()}


def test_fedavg(random_updates: Draw) -> None:
    weights, *updates = random_updates(6)
    examples = [100, 20, 3, 50, 7]
    assert_same(added(weights, mean_of(updates, examples)), theirs(flower.FedAvg(), weights, updates, examples))


def test_fedavgm_over_three_rounds(random_updates: Draw) -> None:
    weights, examples = random_updates(1)[0], [10, 30, 5]
    other = flower.FedAvgM(server_learning_rate=0.7, server_momentum=0.8)
    other.current_arrays = ArrayRecord({name: Array(value) for name, value in weights.items()})
    memory = fedavgm_start(weights)
    for round in (1, 2, 3):
        updates = random_updates(3, seed=round)
        expected = theirs(other, weights, updates, examples)
        weights, memory = fedavgm_step(
            weights, memory, mean_of(updates, examples), 1.0, server_learning_rate=0.7, server_momentum=0.8
        )
        assert_same(weights, expected)


@pytest.mark.parametrize(
    ("other", "second_moment", "beta_1", "beta_2"),
    [
        (partial(flower.FedAdagrad), fedopt.adagrad, 0.0, 0.0),
        (partial(flower.FedAdam, beta_1=0.8, beta_2=0.9), fedopt.adam, 0.8, 0.9),
        (partial(flower.FedYogi, beta_1=0.8, beta_2=0.9), fedopt.yogi, 0.8, 0.9),
    ],
    ids=["fedadagrad", "fedadam", "fedyogi"],
)
def test_fedopt_over_three_rounds(
    other: Callable[..., flower.FedAvg],
    second_moment: fedopt.SecondMoment,
    beta_1: float,
    beta_2: float,
    random_updates: Draw,
) -> None:
    """From v = 0, as Flower starts; and with the step size that Flower's bias correction makes of 0.1."""
    weights, examples = random_updates(1)[0], [10, 30, 5]
    their, decay = other(eta=0.1, tau=0.02), fedopt.Decay(beta_1, beta_2, 0.02)
    memory = fedopt.fedopt_start(weights, decay=fedopt.Decay(beta_1, beta_2, 0.0))
    for round in (1, 2, 3):
        updates = random_updates(3, seed=round)
        their.current_arrays = weights
        expected = theirs(their, weights, updates, examples, round)
        rate = 0.1
        if second_moment is fedopt.adam:
            rate *= np.sqrt(1 - beta_2 ** (round + 1)) / (1 - beta_1 ** (round + 1))
        weights, memory = fedopt.fedopt_step(
            weights,
            memory,
            mean_of(updates, examples),
            1.0,
            second_moment=second_moment,
            server_learning_rate=rate,
            decay=decay,
        )
        assert_same(weights, expected)


@pytest.mark.parametrize("count", [4, 7])
def test_median(count: int, random_updates: Draw) -> None:
    weights, *updates = random_updates(count + 1)
    assert_same(added(weights, median(updates)), theirs(flower.FedMedian(), weights, updates, [1] * count))


@pytest.mark.parametrize("trim", [0.1, 0.2, 0.4])
def test_trimmed_mean(trim: float, random_updates: Draw) -> None:
    weights, *updates = random_updates(11)
    other = flower.FedTrimmedAvg(beta=trim)
    assert_same(added(weights, trimmed_mean(updates, trim)), theirs(other, weights, updates, [1] * 10))


@pytest.mark.parametrize("attackers", [1, 2])
def test_krum(attackers: int, random_updates: Draw) -> None:
    weights, *updates = random_updates(9)
    other = flower.Krum(num_malicious_nodes=attackers)
    assert_same(added(weights, multi_krum(updates, attackers, 1)), theirs(other, weights, updates, [1] * 8))


@pytest.mark.parametrize("selected", [2, 5])
def test_multi_krum(selected: int, random_updates: Draw) -> None:
    weights, *updates = random_updates(9)
    other = flower.MultiKrum(num_malicious_nodes=2, num_nodes_to_select=selected)
    assert_same(added(weights, multi_krum(updates, 2, selected)), theirs(other, weights, updates, [1] * 8))


def test_why_flowers_mean_is_not_ours_one_nan_and_half_precision(random_updates: Draw) -> None:
    """What the docstring of ``fedavg.py`` says of Flower is so in the version that is installed."""
    weights, *updates = random_updates(4)
    updates[1]["a"][0, 0] = np.nan
    assert np.isnan(theirs(flower.FedAvg(), weights, updates, [1, 1, 1])["a"][0, 0])
    halves = [{"a": np.full(2, 0.1, np.float16)} for _ in range(3)]
    assert theirs(flower.FedAvg(), {"a": np.zeros(2, np.float16)}, halves, [1, 1, 1])["a"].dtype == np.float16


def test_flower_has_none_of_the_others() -> None:
    """When it has, the docstrings that say so must be read again."""
    names = {name.lower() for name in flower.__all__} - {"fedxgbcyclic"}  # which passes trees on, not weights
    assert not [name for name in names for other in ("scaffold", "geometric", "rfa", "cyclic") if other in name]
