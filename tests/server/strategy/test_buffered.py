"""Robust rules hold all updates: within a limit, in any order, and only where they withstand somebody."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest

from server.errors import CannotCombine
from server.strategy.buffered import BufferedUpdates, RobustRule, blocks, squared_distances
from server.strategy.coordinate_wise import median_rule, trimmed_mean_rule
from server.strategy.geometric_median import geometric_median_rule
from server.strategy.krum import krum_rule, multi_krum_rule
from tasks.protocol.wire import Arrays

RULES = [median_rule(), trimmed_mean_rule(0.34), krum_rule(1), multi_krum_rule(1, 3), geometric_median_rule()]
Draw = Callable[[int], list[Arrays]]


def held(model: Arrays, invited: int, rule: RobustRule, memory_limit_gb: float = 1.0) -> BufferedUpdates:
    return BufferedUpdates(model, invited, rule=rule, memory_limit_gb=memory_limit_gb)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_order_of_arrival_changes_not_one_bit(rule: RobustRule, random_updates: Draw) -> None:
    updates, results = random_updates(5), set()
    for order in list(permutations(range(5)))[::17]:
        combiner = held(updates[0], 5, rule)
        for index in order:
            combiner.add(f"hospital {index}", updates[index], 1.0)
        combined = combiner.combined()
        results.add(b"".join(combined[name].tobytes() for name in sorted(combined)))
    assert len(results) == 1


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_shapes_and_dtypes_stay(rule: RobustRule, random_updates: Draw) -> None:
    updates = [{name: value.astype(np.float32) for name, value in u.items()} for u in random_updates(5)]
    combiner = held(updates[0], 5, rule)
    for index, update in enumerate(updates):
        combiner.add(str(index), update, 1.0)
    combined = combiner.combined()
    assert {(n, v.shape, v.dtype) for n, v in combined.items()} == {
        (n, v.shape, v.dtype) for n, v in updates[0].items()
    }


@pytest.mark.parametrize(
    ("rule", "least"),
    [
        (median_rule(), 3),
        (geometric_median_rule(), 3),
        (trimmed_mean_rule(0.34), 3),
        (trimmed_mean_rule(0.1), 10),
        (krum_rule(1), 5),
        (krum_rule(3), 9),
        (multi_krum_rule(1, 3), 5),
        (multi_krum_rule(1, 6), 7),
    ],
)
def test_too_few_hospitals_are_refused_before_the_round_and_those_who_are_left_have_a_median(
    rule: RobustRule, least: int
) -> None:
    """The wrong version refuses afterwards as well, and whoever spoils its own reply ends the study."""
    model = {"w": np.zeros(2)}
    with pytest.raises(CannotCombine, match=f"{rule.name} with {least - 1} update"):
        held(model, least - 1, rule)
    combiner = held(model, least, rule)
    for index in range(least - 1):
        combiner.add(str(index), {"w": np.ones(2)}, 1.0)
    assert combiner.combined()["w"].tolist() == [1.0, 1.0]
    with pytest.raises(CannotCombine, match="no hospital's update"):
        held(model, least, rule).combined()


def test_a_round_beyond_the_memory_limit_is_refused_with_its_figures() -> None:
    model = {"w": np.zeros(1_000_000, np.float32)}  # 4 MB; 50 updates, the model and a sum are 0.212 GB
    held(model, 50, median_rule(), memory_limit_gb=0.213)
    with pytest.raises(CannotCombine, match=r"all 50 hospitals: 0\.212 GB, and strategy\.memory_limit_gb=0\.2;"):
        held(model, 50, median_rule(), memory_limit_gb=0.2)


def test_a_hospital_counts_once() -> None:
    combiner = held({"w": np.zeros(1)}, 3, median_rule())
    combiner.add("alder", {"w": np.zeros(1)}, 1.0)
    with pytest.raises(ValueError, match="alder has already been added"):
        combiner.add("alder", {"w": np.zeros(1)}, 1.0)


def test_blocks_cover_every_value_once_and_distances_follow_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.strategy.buffered._AT_ONCE", 7)
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(3, 11))
    updates = [{"a": row[:10].reshape(2, 5).T, "b": row[10]} for row in rows]
    parts = [(name, part, values.shape) for name, part, values in blocks(updates)]
    assert [shape for _, _, shape in parts] == [(2, 3)] * 5 + [(1, 3)]
    expected = np.square(rows[:, None] - rows[None]).sum(axis=2)
    np.testing.assert_allclose(squared_distances(updates), expected, rtol=1e-12)


def test_one_far_update_does_not_blur_the_distances_between_the_others() -> None:
    rows = np.array([[0.0, 1.0], [0.0, 1.5], [1e30, 1e30]])
    distances = squared_distances([{"w": row} for row in rows])
    assert distances[0, 1] == 0.25
    assert distances[0, 2] == pytest.approx(2e60)
