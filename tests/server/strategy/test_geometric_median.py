"""The point with the least sum of distances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from server.strategy.geometric_median import geometric_median, weiszfeld


def of(rows: np.ndarray) -> np.ndarray:
    return geometric_median([{"w": row} for row in rows])["w"]


def cost(point: np.ndarray, rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows - point, axis=1).sum())


def test_by_hand() -> None:
    """On a line it is the median; of a square's corners the centre; of an even triangle's corners the Fermat point."""
    assert of(np.array([[0.0], [1.0], [50.0]]))[0] == 1.0
    np.testing.assert_allclose(of(np.array([[0.0, 0], [0, 2], [2, 0], [2, 2]])), [1, 1], atol=1e-9)
    triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    np.testing.assert_allclose(of(triangle), triangle.mean(axis=0), atol=1e-9)


def test_most_updates_being_one_it_is_that_one() -> None:
    rows = np.array([[1.0, 2.0]] * 3 + [[9.0, 9.0], [-4.0, 0.0]])
    np.testing.assert_allclose(of(rows), [1.0, 2.0], rtol=1e-15)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 12), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_no_point_that_a_general_optimiser_finds_is_better(points: int, dimension: int, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_t(2, size=(points, dimension))
    best = minimize(
        cost, rows.mean(axis=0), args=(rows,), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    assert cost(of(rows), rows) <= best.fun * (1 + 1e-6)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda f: st.tuples(
            hnp.arrays(np.float64, (f + 1, 3), elements=st.floats(-1, 1)),
            hnp.arrays(np.float64, (f, 3), elements=st.floats(-1e20, 1e20)),
        )
    )
)
def test_a_minority_moves_it_by_a_bounded_length(rows: tuple[np.ndarray, np.ndarray]) -> None:
    """Of n points, f of them anywhere, it stays within 2 (n - f) / (n - 2 f) honest radii of the honest centre
    (Minsker, Bernoulli 21(4), 2015, lemma 2.1, with alpha = f / n)."""
    honest, attackers = rows
    n, f = len(honest) + len(attackers), len(attackers)
    centre = honest.mean(axis=0)
    radius = np.linalg.norm(honest - centre, axis=1).max()
    away = np.linalg.norm(of(np.concatenate([honest, attackers])) - centre)
    assert away <= 2 * (n - f) / (n - 2 * f) * radius * 1.001 + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(range(6)), st.floats(1e-12, 1e12))
def test_it_moves_turns_and_grows_with_the_updates(seed: int, order: list[int], unit: float) -> None:
    rng = np.random.default_rng(seed)
    rows, shift = rng.normal(size=(6, 4)), rng.normal(size=4)
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    np.testing.assert_allclose(of(unit * (rows[order] @ turn + shift)) / unit, of(rows) @ turn + shift, atol=1e-6)


def test_weights_add_up_to_one_and_far_points_weigh_little() -> None:
    points = np.array([-1.0, 0.0, 1.5, 1e15])
    weights = weiszfeld(np.outer(points, points))
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert weights[3] < 1e-14


def test_it_stands_still_long_before_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a corner is wider than 120 degrees, so that the corner is the median."""
    rng = np.random.default_rng(1)
    rounds = [rng.normal(size=(10, 30)), np.concatenate([np.zeros((4, 30)), rng.normal(size=(6, 30)) + 1])]
    rounds.append(np.array([[0.0, 0.0], [1.0, 0.1], [-1.0, 0.1]]))
    before = [of(rows) for rows in rounds]
    monkeypatch.setattr("server.strategy.geometric_median._MOST_ITERATIONS", 200)
    for rows, expected in zip(rounds, before, strict=True):
        np.testing.assert_allclose(of(rows), expected, atol=1e-9)
    np.testing.assert_array_equal(before[2], [0.0, 0.0])
