"""Recalibration: from a model's score to a probability that means what it says.

A straight line on the logit scale (Platt, "Probabilistic Outputs for Support Vector Machines", 1999; Cox, Biometrika
45:562, 1958), fitted on histograms that were released anyway. Its slope is positive, so the order of patients stays as
it is, and with it every AUC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy.special import expit, logit

from tasks.metrics.cells import without_negatives
from tasks.metrics.histogram import ScoreHistogram, pooled

_USUAL = 1.0
"""How far intercept and logarithm of the slope usually are from 0: the standard deviation of a normal distribution."""
_FARTHEST = 3.0
"""Neither goes beyond that: a slope of 20 or a twentieth."""
_MOST_FOLDS = 10
_STEPS = 200
_LONGEST_STEP = 0.5
_CLOSE, _LEAST = 1e-7, 1e-12


@dataclass(frozen=True)
class Recalibration:
    """logit(probability) = intercept + slope * logit(score).

    >>> [round(float(p), 3) for p in Recalibration(-1.0, 2.0).probability([0.5, 0.9])]
    [0.269, 0.968]
    """

    intercept: Annotated[float, Field(ge=-1000, le=1000)]
    slope: Annotated[float, Field(gt=0, le=100)]

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Of scores in [0, 1], of the same shape."""
        inside = np.clip(np.asarray(scores, dtype=np.float64), _LEAST, 1 - _LEAST)
        return np.asarray(expit(self.intercept + self.slope * logit(inside)))

    def of(self, histogram: ScoreHistogram) -> ScoreHistogram:
        """The same patients, counted by their probabilities."""
        return replace(histogram, edges=self.probability(histogram.limits[1:-1]))


IDENTITY = Recalibration(0.0, 1.0)


def recalibration(histogram: ScoreHistogram) -> Recalibration:
    """The line for some patients, nearer to "leave scores as they are" the less their histogram tells.

    A logistic regression with what is known beforehand: the intercept at the patients' mean score and the logarithm of
    the slope are about 0, with a standard deviation of 1. Each bin's observed less expected positives counts by the
    share of its variance that is there without noise, w / (w + noise): generalised least squares, which without noise
    is the most probable line.
    """
    x = logit(np.clip(histogram.means, 1e-6, 1 - 1e-6))
    people = histogram.cells.sum(axis=0)
    held = _smooth(without_negatives(people[None])[0]) if histogram.noise else people
    centre = float((held * x).sum() / max(float(held.sum()), 1e-9))
    at = np.zeros(2)
    for _ in range(_STEPS):
        slope = math.exp(at[1])
        rate = expit(centre + at[0] + slope * (x - centre))
        terms = np.stack([np.ones_like(x), slope * (x - centre)])
        drawing, noise = held * rate * (1 - rate), histogram.noise**2 * (rate**2 + (1 - rate) ** 2)
        trust = drawing / np.maximum(drawing + noise, 1e-12)
        pull = (terms * trust) @ (histogram.cells[1] - people * rate) - at / _USUAL**2
        step = np.linalg.solve((terms * trust * drawing) @ terms.T + np.eye(2) / _USUAL**2, pull)
        before, at = at, np.clip(at + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP), -_FARTHEST, _FARTHEST)
        if np.abs(at - before).max() < _CLOSE:
            slope = math.exp(at[1])
            return Recalibration(float(centre * (1 - slope) + at[0]), slope)
    return IDENTITY


def _smooth(held: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each bin with half of its neighbours, so that a bin's own noise hardly decides how far it is trusted."""
    around = np.pad(held, 1, mode="edge")
    return np.asarray((around[:-2] + 2 * around[1:-1] + around[2:]) / 4)


def by_others(histograms: Sequence[ScoreHistogram]) -> list[Recalibration]:
    """For each hospital a line to which its own patients have contributed nothing. Of two or more hospitals; more than
    ten are taken together in ten groups, each of which is calibrated by all the other groups."""
    lines = []
    for members in _folds(len(histograms)):
        line = recalibration(pooled([h for n, h in enumerate(histograms) if n not in members]))
        lines += [(n, line) for n in members]
    return [line for _, line in sorted(lines, key=lambda each: each[0])]


def all_together(histograms: Sequence[ScoreHistogram]) -> ScoreHistogram:
    """All patients as if they were one hospital's, each hospital's calibrated by others.

    Cells of different hospitals are not added up: the lines differ, and averaged over hospitals they would be the line
    of all patients again, which has seen those whom it is to be judged by.
    """
    lines, parts = by_others(histograms), []
    for members in _folds(len(histograms)):
        together = pooled([histograms[n] for n in members])
        moved = lines[members[0]].of(together)
        kept = np.ones(together.bins, np.bool_) if together.noise else together.cells.any(axis=0)
        parts.append((moved.cells[:, kept], moved.means[kept], moved.unknown[kept], together.noise))
    means = np.concatenate([part[1] for part in parts])
    order = np.argsort(means, kind="stable")
    middles = (means[order][1:] + means[order][:-1]) / 2
    return ScoreHistogram(
        cells=np.concatenate([part[0] for part in parts], axis=1)[:, order],
        noise=math.sqrt(float(np.mean([part[3] ** 2 for part in parts]))),
        edges=middles,
        known=np.stack([means, np.concatenate([part[2] for part in parts])])[:, order],
    )


def _folds(hospitals: int) -> list[list[int]]:
    folds = min(hospitals, _MOST_FOLDS)
    return [list(range(fold, hospitals, folds)) for fold in range(folds)]
