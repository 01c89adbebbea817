"""What mechanisms cost: epsilon of a history, and the noise that stays within one. The only file that uses dp-accounting.

Privacy loss distributions are composed (Doroshenko et al., PoPETs 2022; Google's dp-accounting), rounded so that the
result is an upper bound. Neighbouring datasets differ by adding or removing one patient with all images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache

from dp_accounting import dp_event
from dp_accounting.mechanism_calibration import (
    ExplicitBracketInterval,
    NoBracketIntervalFoundError,
    calibrate_dp_mechanism,
)
from dp_accounting.pld import PLDAccountant

from client.errors import BudgetExhausted

_DISCRETIZATION = 1e-3
_LEAST_NOISE, _MOST_NOISE = 0.1, 1e4


@dataclass(frozen=True)
class Mechanism:
    """One use of a cohort.

    Attributes:
        noise_multiplier: standard deviation of the noise in units of a patient's largest effect; 0 means no privacy.
        sample_rate: probability with which a patient takes part; 1 for everybody.
        count: how often it was, or will be, applied.
    """

    noise_multiplier: float
    sample_rate: float
    count: int


def epsilon_of(mechanisms: list[Mechanism], delta: float) -> float:
    """Privacy loss of a patient in all the mechanisms together: epsilon at delta, infinite without noise."""
    counts: dict[tuple[float, float], int] = {}
    for m in mechanisms:
        key = (m.noise_multiplier, m.sample_rate)
        counts[key] = counts.get(key, 0) + m.count
    return _epsilon_of(tuple(sorted((*key, count) for key, count in counts.items())), delta)


@lru_cache(maxsize=4096)
def _epsilon_of(mechanisms: tuple[tuple[float, float, int], ...], delta: float) -> float:
    if not mechanisms:
        return 0.0
    if any(noise == 0 for noise, _, _ in mechanisms):
        return math.inf
    return float(_accountant().compose(_event(mechanisms)).get_epsilon(delta))


def _accountant() -> PLDAccountant:
    return PLDAccountant(value_discretization_interval=_DISCRETIZATION)


def _event(mechanisms: tuple[tuple[float, float, int], ...]) -> dp_event.DpEvent:
    return dp_event.ComposedDpEvent([
        dp_event.SelfComposedDpEvent(_single(noise, sample_rate), count) for noise, sample_rate, count in mechanisms
    ])


def _single(noise: float, sample_rate: float) -> dp_event.DpEvent:
    gaussian = dp_event.GaussianDpEvent(noise)
    return gaussian if sample_rate == 1 else dp_event.PoissonSampledDpEvent(sample_rate, gaussian)


def plan_noise(spent: list[Mechanism], sample_rate: float, count: int, epsilon: float, delta: float) -> float:
    """The least noise with which ``count`` more applications, after what was spent, stay within (epsilon, delta).

    The noise of what was spent is tried first, so that a study that runs as planned keeps one noise multiplier; a
    study that lost a reservation to a crash goes on with more noise.

    Raises:
        BudgetExhausted: no amount of noise would do.
    """
    if spent:
        last = spent[-1].noise_multiplier
        if last > 0 and epsilon_of([*spent, Mechanism(last, sample_rate, count)], delta) <= epsilon:
            return last
    history = tuple((m.noise_multiplier, m.sample_rate, m.count) for m in spent)
    return _calibrated(history, sample_rate, count, epsilon, delta)


@cache
def _calibrated(
    spent: tuple[tuple[float, float, int], ...], sample_rate: float, count: int, epsilon: float, delta: float
) -> float:
    def total(noise: float) -> dp_event.DpEvent:
        return _event((*spent, (noise, sample_rate, count)))

    try:
        noise = calibrate_dp_mechanism(
            _accountant,
            total,
            target_epsilon=epsilon,
            target_delta=delta,
            bracket_interval=ExplicitBracketInterval(_LEAST_NOISE, _MOST_NOISE),
            tol=1e-3,
        )
    except NoBracketIntervalFoundError as error:
        raise BudgetExhausted(f"no noise keeps {count} more steps within epsilon {epsilon:g}") from error
    return float(noise)
