"""What mechanisms cost: the epsilon of a history, and the noise for a given epsilon. The only file using dp-accounting.

Privacy loss distributions are composed (Doroshenko et al., PoPETs 2022; Google's dp-accounting), rounded so that the
result is an upper bound. Neighbouring datasets differ by adding or removing one patient with all images. Everything
that touched a cohort is composed, whatever its noise and sampling rate, so that a history of many rounds and studies
has one epsilon and not a sum of epsilons.

A schedule of noise (Lee and Kifer, KDD 2018; Yu et al., IEEE S&P 2019, whose exponential decay it is, in steps) is a
scale times a factor for each turn. The scale is planned from what stands in the ledger and never from patients, so
composing each turn with its own noise is exact. ``tests/benchmarks/bench_schedule.py`` measures whether it helps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from client.errors import BudgetExhausted
from tasks.machine.language import number, say

if TYPE_CHECKING:  # half of what a command waits for at its start, and most commands compose nothing
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

_DISCRETIZATION = 1e-3
_TAIL_MASS = 1e-15  # what a composition cuts off; it is counted as lost, so the bound stays one
_LEAST_NOISE, _MOST_NOISE = 0.3, 1e4
_MOST_EPSILON = 100.0  # beyond it nothing is protected, and the distributions of the loss grow without bound
_STRIDE = 1.15
_CLOSE = 0.998  # a plan that spends this part of its epsilon is close enough
_DIGITS = 1e4
_SAME = 1e-9  # of a floating-point product that should be a number of four decimals

HistoryPart = tuple[float, float, int]
"""Noise multiplier, sampling rate, count."""
Ahead = tuple[float, int]
"""What is still to come: a noise factor, and how many times it is used."""


@dataclass(frozen=True)
class Mechanism:
    """One use of a cohort.

    Attributes:
        noise_multiplier: standard deviation of the noise in units of a patient's largest effect; 0 means no privacy.
        sample_rate: probability with which a patient takes part; 1 for everybody.
        count: how often it was, or will be, applied.

    Raises:
        ValueError: negative noise, a rate outside (0, 1], or a count below 1.
    """

    noise_multiplier: float
    sample_rate: float
    count: int

    def __post_init__(self) -> None:
        sound = 0 <= self.noise_multiplier < math.inf and 0 < self.sample_rate <= 1 and self.count >= 1
        if not sound:
            raise ValueError(f"{self}: noise must be 0 or more, the rate in (0, 1], the count 1 or more")


def epsilon_of(mechanisms: list[Mechanism], delta: float) -> float:
    """Privacy loss of a patient in all the mechanisms together: epsilon at delta, infinite without noise.

    >>> steps = Mechanism(noise_multiplier=1.0, sample_rate=0.1, count=100)
    >>> round(epsilon_of([steps], delta=1e-4), 2)
    5.97
    >>> round(epsilon_of([steps, steps], delta=1e-4), 2)  # less than twice as much
    8.61
    """
    return _epsilon_of(_parts(mechanisms), delta)


def advantage_of(mechanisms: list[Mechanism]) -> float:
    """The most by which true alarms of a guess whether a patient was there can exceed false ones, from 0 to 1.

    It is delta at epsilon 0, the total variation distance of what leaves with and without the patient, and so far less
    than what epsilon alone allows (``tasks.metrics.membership``).

    >>> round(advantage_of([Mechanism(noise_multiplier=1.0, sample_rate=1.0, count=1)]), 4)
    0.3829
    """
    parts = _parts(mechanisms)
    if not parts:
        return 0.0
    if any(noise == 0 for noise, _, _ in parts):
        return 1.0
    if all(rate == 1 for _, rate, _ in parts):
        return math.erf(1 / (2 * math.sqrt(2) * _one_gaussian(parts)))
    return min(1.0, float(_composed(parts).get_delta_for_epsilon(0.0)))


def plan_scale(
    spent: list[Mechanism], sample_rate: float, ahead: Sequence[Ahead], epsilon: float, delta: float, tried: float = 0.0
) -> float:
    """The least scale with which a sequence of unequal noises, after what was spent, stays within (epsilon, delta).

    An application whose factor is f gets the noise ``noise_at(scale, f)``. What was spent and what is ahead are
    composed as they are, each with its own noise, so a schedule changes how epsilon is spread and not how much it is.

    Args:
        ahead: factors and counts, at least one.
        tried: a scale that is taken if it will do, so that a study that runs as planned keeps one; 0 for none.

    Returns:
        A scale, rounded up to four decimals; no noise of the sequence is below 0.3.

    Raises:
        BudgetExhausted: no amount of noise would do.
    """
    if tried > 0 and epsilon_of([*spent, *sequence(tried, sample_rate, ahead)], delta) <= epsilon:
        return tried
    return _planned(_parts(spent), sample_rate, _together(ahead), min(epsilon, _MOST_EPSILON), delta)


def sequence(scale: float, sample_rate: float, ahead: Sequence[Ahead]) -> list[Mechanism]:
    """The mechanisms of a sequence at a scale, one for each factor."""
    return [Mechanism(noise_at(scale, factor), sample_rate, count) for factor, count in _together(ahead)]


def gaussian_of(epsilon: float, delta: float) -> Mechanism:
    """One Gaussian release over everybody that costs this much or slightly more: for spending known only as epsilon.

    Raises:
        ValueError: epsilon is not above 0, or so large that no noise is left.
    """
    sigma = _sigma_of(epsilon, delta) if 0 < epsilon <= _MOST_EPSILON else 0.0
    noise = math.floor(sigma * _DIGITS) / _DIGITS
    if noise <= 0:
        raise ValueError(f"epsilon {epsilon:g}: must be above 0 and at most {_MOST_EPSILON:g}")
    return Mechanism(noise, 1.0, 1)


def noise_at(scale: float, factor: float) -> float:
    """The noise multiplier of a factor, rounded up to four decimals; at factor 1 it is the scale."""
    return _rounded_up(scale * factor - _SAME)


def scale_of(noise: float, factor: float) -> float:
    """The largest scale of four decimals at which a factor has this noise."""
    return math.floor((noise / factor + _SAME) * _DIGITS) / _DIGITS


def _together(ahead: Sequence[Ahead]) -> tuple[Ahead, ...]:
    counts: dict[float, int] = {}
    for factor, count in ahead:
        counts[factor] = counts.get(factor, 0) + count
    return tuple(counts.items())


def _parts(mechanisms: list[Mechanism]) -> tuple[HistoryPart, ...]:
    counts: dict[tuple[float, float], int] = {}
    for m in mechanisms:
        key = (m.noise_multiplier, m.sample_rate)
        counts[key] = counts.get(key, 0) + m.count
    return tuple(sorted((*key, count) for key, count in counts.items()))


@lru_cache(maxsize=4096)
def _epsilon_of(parts: tuple[HistoryPart, ...], delta: float) -> float:
    if not parts:
        return 0.0
    if any(noise == 0 for noise, _, _ in parts):
        return math.inf
    if all(rate == 1 for _, rate, _ in parts):
        from dp_accounting import gaussian_mechanism

        return float(gaussian_mechanism.get_epsilon_gaussian(_one_gaussian(parts), delta))
    return float(_composed(parts).get_epsilon_for_delta(delta))


def _sigma_of(epsilon: float, delta: float) -> float:
    """The noise of one Gaussian release over everybody that costs this much."""
    from dp_accounting import gaussian_mechanism

    return float(gaussian_mechanism.get_sigma_gaussian(epsilon, delta))


def _one_gaussian(parts: tuple[HistoryPart, ...]) -> float:
    """The noise of the single Gaussian equivalent to all of these, which sample everybody."""
    return 1 / math.sqrt(sum(count / noise**2 for noise, _, count in parts))


@lru_cache(maxsize=32)
def _composed(parts: tuple[HistoryPart, ...]) -> PrivacyLossDistribution:
    *before, (noise, rate, count) = parts
    last = _single(noise / math.sqrt(count), 1.0) if rate == 1 else _repeated(noise, rate, count)
    return _composed(tuple(before)).compose(last) if before else last


@lru_cache(maxsize=64)
def _repeated(noise: float, sample_rate: float, count: int) -> PrivacyLossDistribution:
    """One mechanism ``count`` times, from cached halves: a study asks repeatedly, one more round each time.

    The same count gives the same bits, whatever was asked before.
    """
    lowest = count & -count
    if count == 1:
        return _single(noise, sample_rate)
    half = count // 2 if lowest == count else lowest
    return _repeated(noise, sample_rate, count - half).compose(
        _repeated(noise, sample_rate, half), tail_mass_truncation=_TAIL_MASS
    )


@lru_cache(maxsize=32)
def _single(noise: float, sample_rate: float) -> PrivacyLossDistribution:
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    return from_gaussian_mechanism(
        standard_deviation=noise, sampling_prob=sample_rate, value_discretization_interval=_DISCRETIZATION
    )


@lru_cache(maxsize=256)
def _planned(
    spent: tuple[HistoryPart, ...], sample_rate: float, ahead: tuple[Ahead, ...], epsilon: float, delta: float
) -> float:
    """Bracket the scale around a guess, then close in from the private side; a try costs a composition per factor."""
    count, least = sum(times for _, times in ahead), _rounded_up(_LEAST_NOISE / min(factor for factor, _ in ahead))

    def overspent(scale: float) -> float:
        """Logarithm of epsilon over its target: positive when the noise is too little."""
        new = ((noise_at(scale, factor), sample_rate, times) for factor, times in ahead)
        total = _epsilon_of((*spent, *new), delta)
        return math.log(max(total, 1e-12) / epsilon)

    if _epsilon_of(spent, delta) >= epsilon:
        raise BudgetExhausted(
            say(
                "epsilon {epsilon} is spent; {count} more steps would exceed it with any noise",
                epsilon=number(epsilon),
                count=count,
            )
        )
    high = _rounded_up(max(_guess(spent, sample_rate, ahead, epsilon, delta), 2 * least))
    while (above := overspent(high)) > 0:
        if high >= _MOST_NOISE:
            raise BudgetExhausted(
                say(
                    "no amount of noise keeps {count} more steps within epsilon {epsilon}",
                    count=count,
                    epsilon=number(epsilon),
                )
            )
        high = min(_rounded_up(high * _STRIDE), _MOST_NOISE)
    low, below = high, above
    while below <= 0:
        if low <= least:
            return least
        high, above = low, below
        low = max(_rounded_up(low / _STRIDE), least)
        below = overspent(low)
    while above < math.log(_CLOSE) and high - low > 2 / _DIGITS:
        # Epsilon is close to a power of the noise, so a straight line on logarithmic scales meets the target well;
        # aiming slightly beyond it keeps the next point on the private side.
        slope = (above - below) / math.log(high / low)
        middle = high * math.exp((math.log(_CLOSE) / 2 - above) / slope)
        middle = _rounded_up(min(max(middle, low + 0.05 * (high - low)), high - 0.05 * (high - low)))
        if (value := overspent(middle)) > 0:
            low, below = middle, value
        else:
            high, above = middle, value
    return high


def _rounded_up(noise: float) -> float:
    return math.ceil(noise * _DIGITS) / _DIGITS


def _guess(
    spent: tuple[HistoryPart, ...], sample_rate: float, ahead: tuple[Ahead, ...], epsilon: float, delta: float
) -> float:
    """A scale by the central limit theorem for composition (Bu et al., HDSR 2020, theorem 5): only a starting point."""
    target = 1 / _sigma_of(epsilon, delta)
    left = max(target**2 - sum(times * _variance(noise, rate) for noise, rate, times in spent), 0.01 * target**2)
    low, high = math.log(_LEAST_NOISE), math.log(_MOST_NOISE)
    for _ in range(60):  # halvings of an interval of 10
        middle = (low + high) / 2
        above = sum(times * _variance(math.exp(middle) * factor, sample_rate) for factor, times in ahead) > left
        low, high = (middle, high) if above else (low, middle)
    return math.exp(high)


def _variance(noise: float, sample_rate: float) -> float:
    return noise**-2 if sample_rate == 1 else sample_rate**2 * math.expm1(min(noise**-2, 100.0))
