"""The bound on guesses: it holds for every attack on a release of that privacy, and is met by the worst one."""

from __future__ import annotations

import math

import pytest
from dp_accounting import gaussian_mechanism
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import ndtr

from tasks.metrics.membership import advantage, right_of_100

EPSILONS = st.floats(0, 50)
DELTAS = st.floats(0, 1)


@given(EPSILONS, DELTAS)
@example(0.375, 1.0)  # a sum of two rounded terms was below 1
def test_it_is_a_fraction_and_grows_with_either(epsilon: float, delta: float) -> None:
    bound = advantage(epsilon, delta)
    assert 0 <= bound <= 1
    assert advantage(epsilon + 0.1, delta) >= bound
    assert advantage(epsilon, min(1.0, delta + 0.1)) >= bound


@given(st.floats(0, 30))
def test_a_truthful_answer_at_random_meets_it(epsilon: float) -> None:
    """Randomised response tells the truth with probability e^epsilon / (1 + e^epsilon): no release is easier to
    attack."""
    honest = 1 / (1 + math.exp(-epsilon))
    assert advantage(epsilon, 0.0) == pytest.approx(honest - (1 - honest), abs=1e-12)


@given(st.floats(0.05, 10), st.sampled_from([1e-6, 1e-4, 1e-2]))
def test_the_best_attack_on_a_gaussian_stays_below_it(epsilon: float, delta: float) -> None:
    sigma = gaussian_mechanism.get_sigma_gaussian(epsilon, delta)
    best = 2 * float(ndtr(1 / (2 * sigma))) - 1  # Dong, Roth and Su, JRSS B 2022: at the middle of the trade-off
    assert best <= advantage(epsilon, delta) + 1e-9


def test_as_patients_of_a_hundred() -> None:
    assert right_of_100(0.0) == 50
    assert right_of_100(advantage(1.0, 0.0)) == pytest.approx(73.1, abs=0.05)
    assert advantage(800.0, 0.1) == 1.0


@pytest.mark.parametrize(("epsilon", "delta"), [(-0.1, 0.0), (1.0, 1.1), (1.0, -0.1), (math.nan, 0.0)])
def test_what_is_no_privacy_parameter_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        advantage(epsilon, delta)
