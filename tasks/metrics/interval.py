"""Estimates with intervals by test inversion: the values that the data do not reject.

For a candidate value a statistic T has mean zero and a known variance, of the drawing of patients and of the privacy
noise together. The 95 % interval is every candidate with T^2 <= 1.96^2 variance (Fieller, JRSS B 16:175, 1954; for
proportions without noise this is Wilson's, JASA 22:209, 1927). Unlike an estimate plus and minus its standard error, it
stays inside [0, 1], stays honest for a perfect separation, and grows to everything when noise hides the patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # scipy.stats has it too, and takes a second to import

Z = 1.959963984540054
CANDIDATES = np.linspace(0, 1, 2001)
"""Values from 0 to 1 among which intervals are found, half a thousandth apart."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def not_rejected(value: float, statistic: NDArray[np.float64], variance: NDArray[np.float64]) -> Interval:
    """The smallest interval that contains the estimate and every candidate that is not rejected.

    Args:
        value: the estimate; one outside [0, 1] is moved to the nearer end.
        statistic, variance: for each of ``CANDIDATES``.
    """
    inside = min(max(value, 0.0), 1.0)
    kept = CANDIDATES[statistic**2 <= Z**2 * variance]
    if len(kept) == 0:
        return Interval(inside, inside, inside)
    return Interval(inside, min(float(kept[0]), inside), max(float(kept[-1]), inside))


def ratio(
    cells: NDArray[np.float64],
    part: NDArray[np.float64],
    whole: NDArray[np.float64],
    noise: float,
    proportion: bool = False,
) -> Interval | None:
    """A weighted sum of cells over another one, between 0 and 1: a proportion, or a mean of bounded scores.

    Args:
        cells: counts of any shape, each with independent noise of standard deviation ``noise``.
        part, whole: weights of the same shape; the ratio is sum(cells * part) / sum(cells * whole).
        proportion: the weights are 0 or 1, so that the variance is that of a binomial.

    Returns:
        ``None`` where the denominator is zero, as far as the noise allows to tell.
    """
    top, bottom = float((cells * part).sum()), float((cells * whole).sum())
    if bottom < max(1.0, Z * noise * math.sqrt(float((whole**2).sum()))):
        return None

    def squares(weights: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Sum of weights * (part - candidate * whole)^2."""
        a, b, c = ((weights * product).sum() for product in (part**2, part * whole, whole**2))
        return np.asarray(a - 2 * CANDIDATES * b + CANDIDATES**2 * c)

    sampling = bottom * CANDIDATES * (1 - CANDIDATES) if proportion else np.maximum(squares(cells), 0)
    return not_rejected(top / bottom, top - CANDIDATES * bottom, sampling + noise**2 * squares(1.0))


def mean(intervals: Sequence[Interval]) -> Interval | None:
    """Unweighted mean of independent estimates; the squares of the distances to the limits add up (Zou and Donner,
    Stat Med 27:1693, 2008)."""
    if not intervals:
        return None
    value = sum(i.value for i in intervals) / len(intervals)
    below = math.hypot(*(i.value - i.low for i in intervals)) / len(intervals)
    above = math.hypot(*(i.high - i.value for i in intervals)) / len(intervals)
    return Interval(value, value - below, value + above)


def repeated(intervals: Sequence[Interval]) -> Interval | None:
    """Mean of the figures of models that differ by chance, on the same patients.

    Two distances from the mean to a limit are put together as if they were independent: that of drawing patients, which
    all models share, and that of the models' own scatter (Student's t). With one model only the first is known.
    """
    if not intervals:
        return None
    values = np.array([interval.value for interval in intervals])
    value, count = float(values.mean()), len(values)
    scatter = float(values.std(ddof=1) * stdtrit(count - 1, 0.975)) / math.sqrt(count) if count > 1 else 0.0
    below = math.hypot(scatter, float(np.mean([i.value - i.low for i in intervals])))
    above = math.hypot(scatter, float(np.mean([i.high - i.value for i in intervals])))
    return Interval(value, max(value - below, 0.0), min(value + above, 1.0))


def difference(one: Interval, other: Interval) -> Interval:
    """``one - other`` as if they were independent (Zou and Donner, 2008). Two models' figures on the same patients are
    correlated, so for them it is rather too wide than too narrow."""
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, value - below, value + above)
