"""Estimates with intervals by test inversion: the values that the data do not reject.

For a candidate value a statistic T has mean zero and a known variance, of the drawing of patients and of the privacy
noise together. The 95 % interval is every candidate with T^2 <= 1.96^2 variance (Fieller, JRSS B 16:175, 1954; for
proportions without noise this is Wilson's, JASA 22:209, 1927). Unlike an estimate plus and minus its standard error, it
stays inside [0, 1], stays honest for a perfect separation, and grows to everything when noise hides the patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # scipy.stats has it too, and takes a second to import

Z = 1.959963984540054
CANDIDATES = np.linspace(0, 1, 2001)
"""Values from 0 to 1 among which intervals are found, half a thousandth apart."""


FIRM = 4.0
"""A figure has a point where each class it rests on is estimated at this many standard deviations of its noise or more.
Below, dividing by a size that is mostly noise gives points that are wrong whenever they are extreme; the interval is
right at any size, so it is shown alone."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval.

    Attributes:
        firm: whether the estimate may be shown; otherwise noise leaves an interval and no point, and ``value`` only
            serves where several figures are put together.
        hidden: the part of ``high`` that is there because coarse bins make the estimate too small, and not by chance:
            of several figures together these parts do not cancel.
    """

    value: float
    low: float
    high: float
    firm: bool = True
    hidden: float = 0.0

    @property
    def below(self) -> float:
        """The distance to the lower limit."""
        return self.value - self.low

    @property
    def above(self) -> float:
        """The distance to the upper limit that is there by chance."""
        return self.high - self.hidden - self.value


def not_rejected(
    value: float, statistic: NDArray[np.float64], variance: NDArray[np.float64], firm: bool = True
) -> Interval:
    """The smallest interval that contains the estimate and every candidate that is not rejected.

    Where all are rejected the data are improbable under every candidate, which noise can bring about; then the one that
    is rejected least and its own spread give the interval, and never a single point.

    Args:
        value: the estimate; one outside [0, 1] is moved to the nearer end.
        statistic, variance: for each of ``CANDIDATES``.
    """
    inside = min(max(value, 0.0), 1.0)
    kept = CANDIDATES[statistic**2 <= Z**2 * variance]
    if len(kept) == 0:
        kept = CANDIDATES[statistic**2 <= 2 * Z**2 * np.maximum(variance, 1e-300) + float((statistic**2).min())]
    return Interval(inside, min(float(kept[0]), inside), max(float(kept[-1]), inside), firm)


Quadratic = tuple[float, float, float]
"""a, b, c of a + b x + c x^2."""


def fieller(top: float, bottom: float, variance: Quadratic, firm: bool = True) -> Interval:
    """The values x in [0, 1] with (top - x bottom)^2 <= Z^2 variance(x), in closed form (Fieller 1954).

    What is kept can be everything, and can lie at both ends of [0, 1] and not between; then the interval is all that
    lies between. Where nothing in [0, 1] is kept, it reaches from the nearer end as far as the variance there allows.
    """
    value = min(max(top / bottom, 0.0), 1.0) if bottom > 0 else 0.5
    a, b, c = top**2 - Z**2 * variance[0], -2 * top * bottom - Z**2 * variance[1], bottom**2 - Z**2 * variance[2]
    pieces = [(max(low, 0.0), min(high, 1.0)) for low, high in _not_above_zero(a, b, c)]
    pieces = [(low, high) for low, high in pieces if low <= high]
    if not pieces:
        at = variance[0] + variance[1] * value + variance[2] * value**2
        reach = Z * math.sqrt(max(at, 0.0)) / max(abs(bottom), 1e-12)
        pieces = [(max(value - reach, 0.0), min(value + reach, 1.0))]
    return Interval(value, min(value, *(low for low, _ in pieces)), max(value, *(high for _, high in pieces)), firm)


def _not_above_zero(a: float, b: float, c: float) -> list[tuple[float, float]]:
    """Where a + b x + c x^2 <= 0."""
    if abs(c) < 1e-12 * max(abs(a), abs(b), 1e-300):
        if b == 0:
            return [(-math.inf, math.inf)] if a <= 0 else []
        return [(-math.inf, -a / b)] if b > 0 else [(-a / b, math.inf)]
    inside = b**2 - 4 * a * c
    if inside < 0:
        return [(-math.inf, math.inf)] if c < 0 else []
    q = -(b + math.copysign(math.sqrt(inside), b)) / 2  # without cancellation (Numerical Recipes, section 5.6)
    low, high = sorted((q / c, a / q if q else q / c))
    return [(low, high)] if c > 0 else [(-math.inf, low), (high, math.inf)]


def ratio(
    cells: NDArray[np.float64],
    part: NDArray[np.float64],
    whole: NDArray[np.float64],
    noise: float,
    proportion: bool = False,
    more: float = 0.0,
) -> Interval | None:
    """A weighted sum of cells over another one, between 0 and 1: a proportion, or a mean of bounded scores.

    Args:
        cells: counts of any shape, each with independent noise of standard deviation ``noise``.
        part, whole: weights of the same shape; the ratio is sum(cells * part) / sum(cells * whole).
        proportion: the weights are 0 or 1, so that the variance is that of a binomial.
        more: a further variance of the numerator, such as that of not knowing where in its cell a score lies.

    Returns:
        ``None`` without noise and without anybody; an interval without a point where noise hides them.
    """
    top, bottom = float((cells * part).sum()), float((cells * whole).sum())
    size_noise = noise * math.sqrt(float((whole**2).sum()))
    if noise == 0 and bottom < 1:
        return None

    def squares(weights: NDArray[np.float64] | float) -> Quadratic:
        """Sum of weights * (part - x whole)^2."""
        a, b, c = (float((weights * product).sum()) for product in (part**2, part * whole, whole**2))
        return a, -2 * b, c

    people = max(bottom, 0.0)
    sampling = (0.0, people, -people) if proportion else squares(np.maximum(cells, 0) if noise == 0 else cells)
    if not proportion and not _is_positive(sampling):
        sampling = squares(np.maximum(cells, 0))
    if not proportion:  # Student's t instead of the normal distribution, and n - 1 instead of n
        few = max(bottom, 2.0)
        factor = few / (few - 1) * (float(stdtrit(few - 1, 0.975)) / Z) ** 2
        sampling = (factor * sampling[0], factor * sampling[1], factor * sampling[2])
    of_noise = squares(noise**2)
    variance = (sampling[0] + of_noise[0] + more, sampling[1] + of_noise[1], sampling[2] + of_noise[2])
    return fieller(top, bottom, variance, firm=bottom >= max(1.0, FIRM * size_noise))


def _is_positive(quadratic: Quadratic) -> bool:
    """Whether it is a variance for every candidate; of noised cells it may not be."""
    a, b, c = quadratic
    turning = min(max(-b / (2 * c), 0.0), 1.0) if c else 0.0
    return min(a, a + b + c, a + b * turning + c * turning**2) >= 0


def scaled(interval: Interval, by: float, shifted: float = 0.0) -> Interval:
    """The interval of ``by`` times the figure, plus ``shifted``; ``by`` is positive."""
    ends = {name: getattr(interval, name) * by + shifted for name in ("value", "low", "high")}
    return replace(interval, **ends, hidden=interval.hidden * by)


def mean(intervals: Sequence[Interval]) -> Interval | None:
    """Unweighted mean of independent estimates; the squares of the distances to the limits add up (Zou and Donner,
    Stat Med 27:1693, 2008), what bins hide adds up as it is."""
    if not intervals:
        return None
    count = len(intervals)
    value, hidden = sum(i.value for i in intervals) / count, sum(i.hidden for i in intervals) / count
    below = math.hypot(*(i.below for i in intervals)) / count
    above = math.hypot(*(i.above for i in intervals)) / count
    return Interval(value, value - below, value + above + hidden, all(i.firm for i in intervals), hidden)


def repeated(intervals: Sequence[Interval]) -> Interval | None:
    """Mean of the figures of models that differ by chance, on the same patients.

    Two distances from the mean to a limit are put together as if they were independent: that of drawing patients, which
    all models share, and that of the models' own scatter (Student's t). With one model only the first is known.
    """
    if not intervals:
        return None
    values = np.array([interval.value for interval in intervals])
    value, count, hidden = float(values.mean()), len(values), float(np.mean([i.hidden for i in intervals]))
    scatter = float(values.std(ddof=1) * stdtrit(count - 1, 0.975)) / math.sqrt(count) if count > 1 else 0.0
    below = math.hypot(scatter, float(np.mean([i.below for i in intervals])))
    above = math.hypot(scatter, float(np.mean([i.above for i in intervals]))) + hidden
    return Interval(value, max(value - below, 0.0), min(value + above, 1.0), all(i.firm for i in intervals), hidden)


def scatter(values: Sequence[float]) -> float | None:
    """How far from a figure that of another training may lie, to 95 % (Student's t); ``None`` with fewer than two."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) * stdtrit(len(values) - 1, 0.975))


def widened(interval: Interval, by: float) -> Interval:
    """With a further, independent distance in both limits."""
    low, high = interval.value - math.hypot(interval.below, by), interval.value + math.hypot(interval.above, by)
    return replace(interval, low=low, high=high + interval.hidden) if by else interval


def difference(one: Interval, other: Interval) -> Interval:
    """``one - other`` as if they were independent (Zou and Donner, 2008). Two models' figures on the same patients are
    correlated, so for them it is rather too wide than too narrow. What bins hide of either stays in the limits."""
    value = one.value - other.value
    below = math.hypot(one.below, other.above) + other.hidden
    above = math.hypot(one.above, other.below) + one.hidden
    return Interval(value, value - below, value + above, one.firm and other.firm)
