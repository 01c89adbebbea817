"""How well a measured quantity is told, from histograms over patients: the only form in which measurements leave.

Three histograms of shape (cells,): of the reader's values and of the model's, in equal parts of the declared range, and
of their differences, model less reader, in fractions of the range. Bins of differences are narrow near zero and have an
edge there, so that the sign is kept; the outermost reach to a whole range. A patient is in one cell of each. As in
``histogram.py``, noise may make cells negative, and nothing is clipped.

One table of both values would have as many cells as these three together have, squared, and noise on each: with 100
patients and noise 2, bias, mean absolute error and the spread of differences are twice as uncertain. The three suffice:
the covariance of two quantities follows from their variances and that of their difference.

Inside a bin, values count as their mean as far as the neighbouring bins tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.histogram import within
from tasks.metrics.interval import FIRM, Interval, Z, difference, fieller, ratio, scaled
from tasks.metrics.moments import Moments, product

_COARSE = 8
_PARTS = 16
_FINE_SCORES = 128
"""So many bins of scores are those of exact counts, and then the bins here are fine, too: each in 16 parts."""
_EDGES = (0.06, 0.14, 0.25)
"""Between the bins of differences, and their negatives: equally far apart in asinh(8.5 difference)."""
_END = 0.5
"""Few patients differ by more than half of the range, so the outermost bins are reckoned with up to there."""
_SEEN = 2.0
"""So many times the variance within a bin a variance must be, to be told by bins."""
_FLATTEST, _STEEPEST = -1.0, 3.0
"""Slopes are told between these."""


def measure_cells(bins: int) -> int:
    """Cells of each of the three histograms where scores are counted in so many bins."""
    return _COARSE if bins < _FINE_SCORES else _COARSE * _PARTS


def difference_limits(cells: int) -> NDArray[np.float64]:
    """Of the bins of differences, from -1 to 1, shape (cells + 1,); those of many cells contain those of few.

    >>> difference_limits(8).tolist()
    [-1.0, -0.25, -0.14, -0.06, 0.0, 0.06, 0.14, 0.25, 1.0]
    """
    coarse = np.array([-1.0, *(-edge for edge in reversed(_EDGES)), 0.0, *_EDGES, 1.0])
    parts = cells // _COARSE
    return np.asarray(np.interp(np.arange(cells + 1) / parts, np.arange(len(coarse)), coarse))


def told_measures(values: ArrayLike, told: ArrayLike, low: float, high: float, cells: int) -> NDArray[np.float64]:
    """Count patients.

    Args:
        values: shape (patients,), what readers measured, between ``low`` and ``high``; NaN for patients of whom nobody
            knows, who are not counted.
        told: shape (patients,), what the model says; beyond the range it counts as its end.
        low, high: the declared range.
        cells: of each histogram, as ``measure_cells`` says.

    Returns:
        float64 of shape (3, cells): readers' values, the model's, differences.

    Raises:
        ValueError: a reader's value is outside the range, or the model's is no number.
    """
    known = ~np.isnan(np.asarray(values, dtype=np.float64))
    true = (np.asarray(values, dtype=np.float64)[known] - low) / (high - low)
    given = (np.asarray(told, dtype=np.float64)[known] - low) / (high - low)
    if not np.all((true >= 0) & (true <= 1)):
        raise ValueError(f"values must lie in the declared range, {low:g} to {high:g}, or be NaN for unknown ones")
    if np.isnan(given).any():
        raise ValueError("what a model tells must be a number")
    given = np.clip(given, 0, 1)
    limits, whole = difference_limits(cells), np.arange(1, cells) / cells
    each = [(true, whole), (given, whole), (given - true, limits[1:-1])]
    return np.stack(
        [np.bincount(np.searchsorted(edges, v, side="right"), minlength=cells) for v, edges in each]
    ).astype(np.float64)


def coarsened(counts: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """Exact counts as if they had been counted in fewer cells at first; shape (3, cells)."""
    return np.asarray(counts.reshape(3, cells, -1).sum(axis=-1))


@dataclass(frozen=True)
class MeasureHistograms:
    """What is known of some patients' measurements; figures are in fractions of the declared range.

    Attributes:
        counts: float64 of shape (3, cells), see ``told_measures``.
        noise: standard deviation of the independent Gaussian noise on every cell; 0 for exact counts.
    """

    counts: NDArray[np.float64]
    noise: float = 0.0

    @property
    def patients(self) -> float:
        """Estimated number; unbiased, so noise can make it negative. Each of the three histograms tells it."""
        return float(self.counts.sum()) / 3

    @property
    def size_noise(self) -> float:
        """Standard deviation of it."""
        return self.noise * math.sqrt(self.counts.shape[1] / 3)

    def bias(self) -> Interval | None:
        """Mean difference, model less reader; ``None`` where there is nobody."""
        differences = self._moments(2)
        found = ratio(
            differences.cells, (differences.rows[1] + 1) / 2, differences.rows[0], self.noise, more=self._unknown() / 4
        )
        return None if found is None else scaled(found, 2, -1)

    def mean_error(self) -> Interval | None:
        """Mean absolute difference."""

        def figure(differences: Moments) -> Interval | None:
            apart = np.abs(differences.rows[1])
            return ratio(differences.cells, apart, differences.rows[0], self.noise, more=self._unknown())

        return self._wherever_in_bins(figure)

    def spread(self) -> Interval | None:
        """Standard deviation of differences; ``None`` where exact counts have fewer than two patients."""

        def figure(differences: Moments) -> Interval | None:
            few = max(differences.patients, 2.0)
            top, bottom = product(3, (1, 0, 2), (-1, 1, 1)), product(3, ((few - 1) / few, 0, 0))
            variance = differences.ratio(top, bottom, normal=2.0)
            if variance is None:
                return None
            value, low, high = (math.sqrt(max(each, 0.0)) for each in (variance.value, variance.low, variance.high))
            return Interval(value, low, high, variance.firm)

        return self._wherever_in_bins(figure)

    def limits_of_agreement(self) -> tuple[Interval, Interval] | None:
        """Between which 95 % of normally distributed differences lie: mean less and plus 1.96 standard deviations
        (Bland and Altman, Lancet 327:307, 1986).

        Each has its interval, for which the squares of the distances to the limits of mean and standard deviation add
        up (Zou, Stat Methods Med Res 22:630, 2013).
        """
        bias, spread = self.bias(), self.spread()
        if bias is None or spread is None:
            return None
        reach = scaled(spread, Z)
        below = difference(bias, reach)
        above = difference(bias, Interval(-reach.value, -reach.high, -reach.low, reach.firm))
        return below, above

    def r_squared(self) -> Interval | None:
        """1 - mean squared difference / variance of readers' values: what the model explains of it. Negative where the
        readers' mean, told of everybody, would be nearer.

        Told from -1 on. The two are taken for independent, which is too wide if anything.

        Returns:
            ``None`` where exact counts have fewer than two patients, or one value only.
        """
        true = self._moments(0)
        if self.noise == 0 and (true.patients < 2 or _variance(true) <= 0):
            return None
        people, varies, of_varies = max(self.patients, 2.0), _variance(true), _noise_of_variance(true)

        def figure(differences: Moments) -> Interval:
            squares = differences.rows[2]
            squared = float(differences.cells @ squares) / people
            of_squared = max(float(differences.cells @ squares**2) / people - squared**2, 2 * squared**2)
            of_noise = float((squares**2).sum()) * (self.noise / people) ** 2
            variance = (of_squared / people + of_noise, 0.0, 4 * (_fourth(true) / people + of_varies))
            unexplained = fieller(squared, 2 * varies, variance, self._firm(varies, of_varies))
            value, high, low = (1 - 2 * each for each in (unexplained.value, unexplained.low, unexplained.high))
            return self._seen(Interval(value, low, high, unexplained.firm), varies, -1, 1)

        return self._wherever_in_bins(figure)

    def slope(self) -> Interval | None:
        """Slope of the reader's value on the model's, the calibration slope: below 1 where the model tells small values
        too small and large ones too large.

        The covariance is half of what the two variances exceed that of the differences by. The variance of drawing is
        that of a regression with normally distributed residuals, larger where the differences have heavy tails. Told
        from -1 to 3.

        Returns:
            ``None`` where exact counts have fewer than two patients, or the model tells one value only.
        """
        true, told = self._moments(0), self._moments(1)
        vt, vp, people, width = _variance(true), _variance(told), max(self.patients, 3.0), _STEEPEST - _FLATTEST
        if self.noise == 0 and (true.patients < 2 or vp <= 0):
            return None

        def figure(differences: Moments) -> Interval:
            together = (vt + vp - _variance(differences)) / 2
            residual = max(vt - together**2 / vp, 0.0) if vp > 0 else max(vt, 0.0)
            nt, np_, nd = (_noise_of_variance(each) for each in (true, told, differences))
            # together - x vp, with x = _FLATTEST + width y; the variance of what is told enters times 1/2 - x
            share = 0.5 - _FLATTEST
            drawing = max(vp, 0.0) * residual / (people - 2) * _tails(differences)
            variance = (drawing + (nt + nd) / 4 + share**2 * np_, -2 * share * width * np_, width**2 * np_)
            found = fieller(together - _FLATTEST * vp, width * vp, variance, self._firm(vp, np_))
            return self._seen(scaled(found, width, _FLATTEST), vp, _FLATTEST, _STEEPEST)

        return self._wherever_in_bins(figure)

    def _moments(self, row: int, moved: int = 0) -> Moments:
        """Number, sum and sum of squares of readers' values, of the model's or of differences.

        Args:
            moved: -1 with every difference as near to zero in its bin as can well be, 1 as far.
        """
        cells = self.counts[row]
        limits = np.linspace(0, 1, len(cells) + 1) if row < 2 else _inner_limits(len(cells))
        centres, widths = (limits[1:] + limits[:-1]) / 2, np.diff(limits)
        means = within(cells, limits)
        if moved:
            away = np.sign(centres)
            means = centres + moved * away * widths / 6
            outermost = [0, -1]
            means[outermost] = (centres + away * widths * (0.5 if moved > 0 else -0.375))[outermost]
        scattered = np.maximum(widths**2 / 12 - (means - centres) ** 2, 0)
        return Moments(cells, np.stack([np.ones_like(means), means, means**2 + scattered]), self.noise)

    def _wherever_in_bins(self, figure: Callable[[Moments], Interval | None]) -> Interval | None:
        """A figure of differences, whose limits hold it wherever in their bins they lie."""
        found, near, far = (figure(self._moments(2, each)) for each in (0, -1, 1))
        if found is None or near is None or far is None:
            return None
        low, high = min(found.low, near.low, far.low), max(found.high, near.high, far.high)
        return replace(found, low=low, high=high, hidden=high - found.high)

    def _unknown(self) -> float:
        """Variance of a sum of differences for not knowing where in its bin each lies."""
        widths = np.diff(_inner_limits(self.counts.shape[1]))
        return float((np.maximum(self.counts[2], 0) * widths**2).sum()) / 12

    def _seen(self, found: Interval, variance: float, least: float, most: float) -> Interval:
        """A figure that divides by a variance: everything, without a point, where the values hardly leave one bin, for
        then nobody knows how they vary; and no point at the end of what is told."""
        if variance < _SEEN / (12 * self.counts.shape[1] ** 2):
            return Interval(found.value, least, most, firm=False)
        return replace(found, firm=found.firm and least < found.value < most)

    def _firm(self, variance: float, of_noise: float) -> bool:
        """Whether patients and a variance that is divided by stand out of the noise."""
        return self.patients >= max(1.0, FIRM * self.size_noise) and variance > FIRM * math.sqrt(of_noise)


def pooled(histograms: Sequence[MeasureHistograms]) -> MeasureHistograms:
    """All patients of several hospitals as if they were one hospital's; noise adds up as independent noise does."""
    noise = math.hypot(*(each.noise for each in histograms))
    return MeasureHistograms(np.sum([each.counts for each in histograms], axis=0), noise)


def _inner_limits(cells: int) -> NDArray[np.float64]:
    """The limits that bins of differences are reckoned with."""
    limits = difference_limits(cells)
    return np.clip(limits, -_END, _END) if cells == _COARSE else limits


def _variance(moments: Moments) -> float:
    people = max(moments.patients, 2.0)
    return moments.unbiased(product(3, (1, 0, 2), (-1, 1, 1))) / (people * (people - 1))


def _centred(moments: Moments) -> NDArray[np.float64]:
    """The square of each bin's distance from the mean."""
    mean = float(moments.rows[1] @ moments.cells) / max(moments.patients, 1.0)
    return np.asarray(moments.rows[2] - 2 * mean * moments.rows[1] + mean**2)


def _fourth(moments: Moments) -> float:
    """Variance of a patient's squared distance from the mean; no smaller than that of a normal distribution's half."""
    squares, people = _centred(moments), max(moments.patients, 2.0)
    seen = float(moments.cells @ squares**2) / people - (float(moments.cells @ squares) / people) ** 2
    return max(seen, _variance(moments) ** 2)


def _tails(moments: Moments) -> float:
    """How many times as uncertain a slope is for the tails of its residuals: the root of the kurtosis by that of a
    normal distribution, from 1 to 2."""
    variance, people = max(_variance(moments), 1e-12), max(moments.patients, 2.0)
    kurtosis = float(moments.cells @ _centred(moments) ** 2) / people / variance**2
    return math.sqrt(min(max(kurtosis / 3, 1.0), 4.0))


def _noise_of_variance(moments: Moments) -> float:
    people = max(moments.patients, 2.0)
    return float(((_centred(moments) - _variance(moments)) ** 2).sum()) * (moments.noise / people) ** 2
