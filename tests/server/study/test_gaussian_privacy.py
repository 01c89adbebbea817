"""Epsilon at a smaller delta, as the model card tells it, against the hospital's own accountant."""

from __future__ import annotations

import pytest

from client.ledger.accounting import Mechanism, epsilon_of
from server.study.gaussian_privacy import epsilon_at, mu_of


@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0])
def test_of_one_gaussian_it_is_exact(noise: float) -> None:
    told = epsilon_of([Mechanism(noise, 1.0, 1)], 1e-4)
    assert mu_of(told, 1e-4) == pytest.approx(1 / noise, rel=1e-4)
    assert epsilon_at(told, 1e-4, 1e-6) == pytest.approx(epsilon_of([Mechanism(noise, 1.0, 1)], 1e-6), rel=1e-3)


@pytest.mark.parametrize("steps", [Mechanism(1.17, 0.8, 6), Mechanism(1.5, 0.4, 100), Mechanism(2.0, 0.15, 100)])
def test_of_many_sampled_steps_it_is_close(steps: Mechanism) -> None:
    told, exact = epsilon_of([steps], 1e-4), epsilon_of([steps], 1e-6)
    assert epsilon_at(told, 1e-4, 1e-6) == pytest.approx(exact, rel=0.06)
    assert exact > 1.1 * told, "the smaller delta costs something, which the wrong version would not tell"


def test_nothing_spent_is_nothing_at_any_delta() -> None:
    assert epsilon_at(0.0, 1e-4, 1e-6) == 0.0
