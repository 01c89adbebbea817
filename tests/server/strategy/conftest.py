"""What the tests of the strategies share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tasks.protocol.wire import Arrays
from tests.server.strategy.convex import Convex, six_hospitals


@pytest.fixture
def convex() -> Convex:
    """Six hospitals with different optima."""
    return six_hospitals()


@pytest.fixture
def random_updates() -> Callable[..., list[Arrays]]:
    """So many updates of two tensors, float64."""

    def draw(count: int, seed: int = 5) -> list[Arrays]:
        rng = np.random.default_rng(seed)
        return [{"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5)} for _ in range(count)]

    return draw
