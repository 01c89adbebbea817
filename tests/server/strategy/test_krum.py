"""Krum and Multi-Krum."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from server.strategy.buffered import squared_distances
from server.strategy.krum import multi_krum, scores


def updates(rows: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{"w": row} for row in rows]


def test_a_round_by_hand() -> None:
    """Five on a line, one attacker: each score is over the two nearest others."""
    rows = updates(np.array([[0.0], [1.0], [3.0], [7.0], [100.0]]))
    assert scores(squared_distances(rows), attackers=1).tolist() == [
        1 + 9,  # of 0: 1 and 3
        1 + 4,  # of 1: 0 and 3
        4 + 9,  # of 3: 1 and 0
        16 + 36,  # of 7: 3 and 1
        93**2 + 97**2,  # of 100: 7 and 3
    ]
    assert multi_krum(rows, attackers=1, selected=1)["w"].tolist() == [1.0]
    assert multi_krum(rows, attackers=1, selected=2)["w"].tolist() == [0.5]
    assert multi_krum(rows, attackers=1, selected=4)["w"].tolist() == [2.75]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda f: st.tuples(
            hnp.arrays(np.float64, (f + 3, 3), elements=st.floats(-1, 1)),
            hnp.arrays(np.float64, (f, 3), elements=st.floats(100, 1e20)),
        )
    )
)
def test_far_attackers_are_never_among_the_selected(rows: tuple[np.ndarray, np.ndarray]) -> None:
    honest, attackers = rows
    together = updates(np.concatenate([attackers, honest]))
    for selected in (1, len(honest)):
        result = multi_krum(together, len(attackers), selected)["w"]
        assert (honest.min(axis=0) - 1e-12 <= result).all()
        assert (result <= honest.max(axis=0) + 1e-12).all()
    np.testing.assert_allclose(result, honest.mean(axis=0), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(range(7)))
def test_names_do_not_matter_and_a_shift_of_all_shifts_the_result(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    rows, shift = rng.normal(size=(7, 3)), rng.normal(size=3)
    for selected in (1, 3):
        before = multi_krum(updates(rows), 2, selected)["w"]
        after = multi_krum(updates(rows[order] + shift), 2, selected)["w"]
        np.testing.assert_allclose(after, before + shift, atol=1e-9)
