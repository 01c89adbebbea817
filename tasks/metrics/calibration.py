"""Calibration: whether a score of 0.3 means three in ten.

A score is known by its bin only. It counts as the mean of its bin as far as the neighbouring bins tell, and what is not
known of it is in the intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from tasks.metrics.cells import without_negatives
from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.interval import FIRM, Interval, Z, ratio

_GROUPS = 10
_FEWEST_IN_GROUP = 5
_STEPS = 60
_STEEPEST = 50.0
_AROUND = np.linspace(-8, 8, 321)
"""Candidates, in standard errors from the estimate."""


@dataclass(frozen=True)
class Group:
    """Patients with about the same score.

    Attributes:
        predicted: their mean score.
        observed: fraction of positives among them.
        patients: estimated number.
    """

    predicted: float
    observed: Interval
    patients: float


@dataclass(frozen=True)
class CalibrationLine:
    """Recalibration on the logit scale (Cox, Biometrika 45:562, 1958; Van Calster et al., BMC Med 17:230, 2019).

    Attributes:
        slope: 1 where scores are spread as they should be, above where they lie too close together.
        intercept: at a slope of 1; 0 where as many are positive as the scores say, above where there are more.
    """

    slope: Interval
    intercept: Interval


def brier(histogram: ScoreHistogram) -> Interval | None:
    """Mean squared distance of the score from 0 or 1 (Brier, Monthly Weather Review 78:1, 1950).

    The variance has one more patient than there are, a positive one with the mean score: in few patients a large error
    may simply not have been drawn.
    """
    means, width = histogram.means, histogram.unknown
    squared = np.stack([means**2, (1 - means) ** 2])
    steep = 2 * np.stack([means, 1 - means]) * width / math.sqrt(12)
    people = np.maximum(histogram.cells, 0)
    score = float((people.sum(axis=0) * means).sum()) / max(float(people.sum()), 1.0)
    more = float(((people * steep) ** 2).sum()) + _not_drawn(score)
    return ratio(histogram.cells, squared, np.ones_like(squared), histogram.noise, more=more)


def above_constant(histogram: ScoreHistogram) -> Interval | None:
    """The Brier score less that of giving each patient the same number, the prevalence; between -1 and 1, and above 0
    for scores that are worse than that.

    The best constant has the smallest Brier score of all, so that not knowing the prevalence exactly changes nothing to
    first order: each patient's difference counts as if it were known.
    """
    means, width = histogram.means, histogram.unknown
    people = np.maximum(histogram.cells, 0)
    share = min(max(histogram.size(1) / max(float(histogram.cells.sum()), 1.0), 0.0), 1.0)
    worse = np.stack([means**2 - share**2, (1 - means) ** 2 - (1 - share) ** 2])
    steep = 2 * np.stack([means, 1 - means]) * width / math.sqrt(12)
    more = float(((people * steep) ** 2).sum()) / 4
    halved = ratio(histogram.cells, (1 + worse) / 2, np.ones_like(worse), histogram.noise, more=more)
    if halved is None:
        return None
    return replace(halved, value=2 * halved.value - 1, low=2 * halved.low - 1, high=2 * halved.high - 1)


def _not_drawn(score: float) -> float:
    return float((1 - score) ** 4)


def reliability(histogram: ScoreHistogram) -> list[Group]:
    """Predicted against observed, by groups of about equally many patients; none that the noise hides."""
    groups = []
    means = histogram.means
    for chosen in _groups(histogram):
        cells = histogram.cells[:, chosen]
        positive = np.stack([np.zeros(len(chosen)), np.ones(len(chosen))])
        observed = ratio(cells, positive, np.ones_like(cells), histogram.noise, proportion=True)
        if observed is not None and observed.firm:
            patients = float(cells.sum())
            predicted = float((cells.sum(axis=0) * means[chosen]).sum()) / patients
            groups.append(Group(min(max(predicted, means[chosen][0]), means[chosen][-1]), observed, patients))
    return groups


def calibration_error(histogram: ScoreHistogram) -> Interval | None:
    """Root mean square distance of observed from predicted, over at most ten groups of about equally many patients.

    Squares have no sign, so whatever is random looks like miscalibration: the variances of drawing and of noise are
    taken off each square (Broecker, Clim Dyn 39:655, 2012; Kumar, Liang and Ma, NeurIPS 2019). What is not known of
    scores within their bins is taken off the lower limit and added to the upper one.

    Returns:
        ``None`` where there is nobody; an interval without a point where noise hides them.
    """
    if histogram.noise == 0 and histogram.cells.sum() < 1:
        return None
    gaps, variances, unknown, sizes = np.array([_gap(histogram, chosen) for chosen in _groups(histogram)]).T
    weights = sizes / sizes.sum()
    real = np.maximum(gaps**2 - variances, 0)
    spread = Z * math.sqrt(float((weights**2 * (2 * variances**2 + 4 * real * variances)).sum()))
    square = float((weights * (gaps**2 - variances)).sum())
    least = float((weights * (np.maximum(np.abs(gaps) - unknown, 0) ** 2 - variances)).sum())
    most = float((weights * ((np.abs(gaps) + unknown) ** 2 - variances)).sum())
    ends = (square, least - spread, max(most, 0.0) + spread)
    value, low, high = (min(math.sqrt(max(each, 0.0)), 1.0) for each in ends)
    size_noise = histogram.noise * math.sqrt(histogram.cells.size)
    return Interval(value, min(low, value), max(high, value), float(histogram.cells.sum()) >= FIRM * size_noise)


def _gap(histogram: ScoreHistogram, chosen: NDArray[np.intp]) -> tuple[float, float, float, float]:
    """Observed less predicted in a group, its variance, what bins leave unknown of it, and the group's size."""
    cells, means = histogram.cells[:, chosen], histogram.means[chosen]
    size = max(float(cells.sum()), 1.0)
    weights = np.stack([-means, 1 - means])
    noise = histogram.noise**2 * float((weights**2).sum())
    positive = min(max(float(cells[1].sum()) / size, 0.0), 1.0)
    drawing = size * max(positive * (1 - positive) * size / max(size - 1, 1.0), _as_predicted(cells, means, size))
    width = histogram.unknown[chosen]
    people = np.maximum(cells.sum(axis=0), 0)
    unknown = float((people * width).sum()) / max(float(people.sum()), 1.0) / 4
    return float((cells * weights).sum()) / size, (noise + drawing) / size**2, unknown, size


def _as_predicted(cells: NDArray[np.float64], means: NDArray[np.float64], size: float) -> float:
    """Variance of one patient of a group if scores are right."""
    return max(float((cells.sum(axis=0) * means * (1 - means)).sum()) / size, 0.0)


def calibration_line(histogram: ScoreHistogram) -> CalibrationLine | None:
    """Slope and intercept of a logistic regression of the finding on the score's logit.

    The estimating equations are sums over cells, so noise leaves them unbiased. The intervals are the slopes and
    intercepts whose equation the data do not reject (Rao's score test), with the variance of drawing patients and that
    of the noise, which is exact.

    Returns:
        ``None`` where a class is missing or hidden by noise, or where a threshold separates the classes.
    """
    if not histogram.is_firm:
        return None
    x = logit(np.clip(histogram.means, 1e-6, 1 - 1e-6))
    both, one = np.stack([np.ones_like(x), x]), np.ones((1, len(x)))
    fitted, moved = _fitted(histogram, both, np.zeros_like(x)), _fitted(histogram, one, x)
    if fitted is None or moved is None or abs(fitted[0][1]) > _STEEPEST:
        return None
    slope, intercept = float(fitted[0][1]), float(moved[0][0])
    slopes = slope + math.sqrt(float(fitted[1][1, 1])) * _AROUND
    lines = np.stack([_intercepts(histogram, x, slopes, float(fitted[0][0])), slopes])
    intercepts = np.stack([intercept + math.sqrt(float(moved[1][0, 0])) * _AROUND, np.ones_like(_AROUND)])
    return CalibrationLine(
        _kept(slope, slopes, *_equation(histogram, x, lines, of_slope=True)),
        _kept(intercept, intercepts[0], *_equation(histogram, x, intercepts, of_slope=False)),
    )


def _kept(
    value: float, candidates: NDArray[np.float64], statistic: NDArray[np.float64], variance: NDArray[np.float64]
) -> Interval:
    kept = candidates[statistic**2 <= Z**2 * variance]
    return Interval(value, min([value, *kept]), max([value, *kept]))


def _intercepts(
    histogram: ScoreHistogram, x: NDArray[np.float64], slopes: NDArray[np.float64], near: float
) -> NDArray[np.float64]:
    """For each slope the intercept with which as many are positive as due."""
    people = without_negatives(histogram.cells.sum(axis=0)[None])[0]
    due = min(max(histogram.size(1), 1e-3), float(people.sum()) - 1e-3)
    at = np.full(len(slopes), near)
    for _ in range(_STEPS):
        rate = expit(at[:, None] + slopes[:, None] * x)
        missing = due - (people * rate).sum(axis=1)
        at = at + np.clip(missing / np.maximum((people * rate * (1 - rate)).sum(axis=1), 1e-9), -1, 1)
        if np.abs(missing).max() < 1e-6 * max(due, 1.0):
            break
    return at


def _equation(
    histogram: ScoreHistogram, x: NDArray[np.float64], lines: NDArray[np.float64], of_slope: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The estimating equation of the slope (with the intercept's part taken out) or of the intercept, and its variance,
    for each line; ``lines`` are intercepts and slopes, shape (2, lines)."""
    people = histogram.cells.sum(axis=0)
    rate = expit(lines[0][:, None] + lines[1][:, None] * x)
    weights = without_negatives(people[None])[0] * rate * (1 - rate)
    factor = np.ones_like(rate)
    if of_slope:
        factor = x - (weights * x).sum(axis=1, keepdims=True) / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    noise = histogram.noise**2 * (rate**2 + (1 - rate) ** 2)
    return (factor * (histogram.cells[1] - people * rate)).sum(axis=1), (factor**2 * (weights + noise)).sum(axis=1)


def _fitted(
    histogram: ScoreHistogram, terms: NDArray[np.float64], offset: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Coefficients of a logistic regression and their covariance; ``None`` where there is no solution."""
    people = histogram.cells.sum(axis=0)
    held = without_negatives(people[None])[0]
    at = np.zeros(len(terms))
    for _ in range(_STEPS):
        rate = expit(offset + at @ terms)
        slopes = (terms * (held * rate * (1 - rate))) @ terms.T
        try:
            step = np.linalg.solve(slopes, terms @ (histogram.cells[1] - people * rate))
        except np.linalg.LinAlgError:
            return None
        at = at + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            noise = (terms * (histogram.noise**2 * (rate**2 + (1 - rate) ** 2))) @ terms.T
            inverse = np.linalg.inv(slopes)
            covariance = inverse @ (slopes + noise) @ inverse
            # Where scores hardly differ, or all lie at 0 and 1, the equations are singular but for rounding.
            return (at, covariance) if (np.diag(covariance) > 0).all() else None
    return None


def _groups(histogram: ScoreHistogram) -> list[NDArray[np.intp]]:
    """The bins of each group, from low to high scores: each holds a tenth of all patients or a little more, at least
    five, and with noise enough to stand out of it."""
    people = without_negatives(histogram.cells.sum(axis=0)[None])[0]
    wanted, groups, begun = max(float(people.sum()) / _GROUPS, _FEWEST_IN_GROUP), [], 0
    for end in range(1, histogram.bins + 1):
        least = max(wanted, FIRM * histogram.noise * math.sqrt(2 * (end - begun)))
        if people[begun:end].sum() >= least - 1e-9:
            groups.append(np.arange(begun, end))
            begun = end
    if begun < histogram.bins:  # what is left belongs to the last group
        groups = [*groups[:-1], np.arange(groups[-1][0] if groups else 0, histogram.bins)]
    return groups
