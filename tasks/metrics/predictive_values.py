"""What a positive or a negative call means, at a prevalence: predictive values from sensitivity and specificity."""

from __future__ import annotations

import math

from tasks.metrics.interval import Interval
from tasks.metrics.operating import OperatingPoint


def positive_predictive_value(point: OperatingPoint, prevalence: float) -> Interval | None:
    """Of those who are called positive, the fraction with the finding.

    >>> from tasks.metrics.operating import OperatingPoint
    >>> point = OperatingPoint(0.5, Interval(0.8, 0.7, 0.9), Interval(0.9, 0.85, 0.95))
    >>> found = positive_predictive_value(point, 0.2)
    >>> f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
    '0.67 (0.57 to 0.80)'

    Args:
        prevalence: of the finding among those who are called, taken as known; strictly between 0 and 1.

    Returns:
        With the limits of the likelihood ratio: ``None`` where a rate has no figure, or nobody is called positive.
    """
    if point.sensitivity is None or point.specificity is None:
        return None
    return _value(point.sensitivity, _rest(point.specificity), prevalence / (1 - prevalence))


def negative_predictive_value(point: OperatingPoint, prevalence: float) -> Interval | None:
    """Of those who are called negative, the fraction without the finding; as ``positive_predictive_value``."""
    if point.sensitivity is None or point.specificity is None:
        return None
    return _value(point.specificity, _rest(point.sensitivity), (1 - prevalence) / prevalence)


def _value(rightly: Interval, wrongly: Interval, odds: float) -> Interval | None:
    """Rightly called among all who are called so: odds times a ratio of two rates, as a fraction.

    The ratio's limits are those of two independent rates put together (MOVER on the logarithm: Zou and Donner, Stat Med
    27:1693, 2008): on each side the distance is the root of the two squared distances.
    """
    if rightly.value <= 0 and wrongly.value <= 0:
        return None
    below = math.hypot(_log(rightly.value) - _log(rightly.low), _log(wrongly.high) - _log(wrongly.value))
    above = math.hypot(_log(rightly.high) - _log(rightly.value), _log(wrongly.value) - _log(wrongly.low))
    ratio = _log(rightly.value) - _log(wrongly.value) + math.log(odds)
    value, low, high = (1 / (1 + math.exp(-each)) for each in (ratio, ratio - below, ratio + above))
    return Interval(value, low, high, firm=rightly.firm and wrongly.firm)


def _rest(rate: Interval) -> Interval:
    return Interval(1 - rate.value, 1 - rate.high, 1 - rate.low, firm=rate.firm)


def _log(rate: float) -> float:
    """A rate of none counts as one in a million: its ratio to anything is as good as infinite."""
    return math.log(max(rate, 1e-6))
