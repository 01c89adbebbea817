"""Calibration: whether a score of 0.3 means three in ten.

A score is known by its bin and counts as the bin's centre, so nothing here is finer than half a bin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.interval import Interval, Z, ratio

_GROUPS = 10


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


def brier(histogram: ScoreHistogram) -> Interval | None:
    """Mean squared distance of the score from 0 or 1 (Brier, Monthly Weather Review 78:1, 1950)."""
    squared = np.stack([histogram.centres**2, (1 - histogram.centres) ** 2])
    return ratio(histogram.cells, squared, np.ones_like(squared), histogram.noise)


def reliability(histogram: ScoreHistogram) -> list[Group]:
    """Predicted against observed, by groups of scores; groups that the noise hides are left out."""
    groups = []
    for chosen in _groups(histogram):
        cells, centres = histogram.cells[:, chosen], histogram.centres[chosen]
        positive = np.stack([np.zeros(len(centres)), np.ones(len(centres))])
        observed = ratio(cells, positive, np.ones_like(cells), histogram.noise, proportion=True)
        if observed is not None:
            patients = float(cells.sum())
            predicted = float((cells.sum(axis=0) * centres).sum()) / patients
            groups.append(Group(min(max(predicted, centres[0]), centres[-1]), observed, patients))
    return groups


def expected_calibration_error(histogram: ScoreHistogram) -> Interval | None:
    """Mean distance of observed from predicted over ten groups of equally wide scores, weighted by patients (Naeini et
    al., AAAI 2015).

    Distances have no sign, so whatever is random looks like miscalibration. In the estimate, the variance of the noise
    is taken off each squared distance. In the lower limit, as much is taken off as noise and the drawing of patients
    add at most (the mean of a folded normal distribution); the upper limit needs none of it.

    Returns:
        ``None`` where the noise hides that there is anybody.
    """
    patients = float(histogram.cells.sum())
    if patients < max(1.0, Z * histogram.noise * math.sqrt(histogram.cells.size)):
        return None
    gaps, noise, drawing = np.array([_gap(histogram, chosen) for chosen in _groups(histogram)]).T
    value = float(np.sqrt(np.maximum(gaps**2 - noise, 0)).sum())
    deviation = np.sqrt(np.maximum(noise + drawing, 1e-12))
    distance, spread = float(np.abs(gaps).sum()), Z * math.hypot(*deviation)
    low = distance - float((deviation * _folded_excess(np.abs(gaps) / deviation - 1)).sum()) - spread
    value, low, high = (min(max(x / patients, 0.0), 1.0) for x in (value, low, distance + spread))
    return Interval(value, min(low, value), max(high, value))


def _gap(histogram: ScoreHistogram, chosen: NDArray[np.intp]) -> tuple[float, float, float]:
    """Positives beyond those predicted in a group, and the variances that noise and drawing give to it."""
    cells, centres = histogram.cells[:, chosen], histogram.centres[chosen]
    weights = np.stack([-centres, 1 - centres])
    noise = histogram.noise**2 * float((weights**2).sum())
    return float((cells * weights).sum()), noise, max(float((cells * weights**2).sum()), 0.0)


def _folded_excess(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much E|X| passes |mean| for X of variance 1; ``distance`` is a |mean|, and below 0 counts as 0."""
    t = np.maximum(distance, 0)
    density = np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
    return np.asarray(2 * (density - t * ndtr(-t)))


def _groups(histogram: ScoreHistogram) -> list[NDArray[np.intp]]:
    """The bins of each group."""
    of_bin = np.arange(histogram.bins) * _GROUPS // histogram.bins
    return [np.flatnonzero(of_bin == group) for group in np.unique(of_bin)]
