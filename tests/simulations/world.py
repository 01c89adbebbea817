"""Patients whose true figures are known, and what leaves their hospitals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

from tasks.metrics.histogram import ScoreHistogram, range_histogram, range_quantiles, score_histogram
from tasks.protocol.study import RANGE_NOISE
from tasks.protocol.wire import RANGE_CELLS

Scores = tuple[NDArray[np.float64], NDArray[np.int64]]
_MANY = 300_000


@dataclass(frozen=True)
class World:
    """Where patients come from.

    Attributes:
        prevalence: fraction of positives.
        auc: true area under the ROC curve of a patient's score.
        squeeze: factor of all logits; 1 leaves scores calibrated, less crowds them.
        spread: of positives' latent scores, in units of negatives'; other than 1 the ROC curve is skewed.
        images: of a patient; a score is their mean, and they differ by half of what patients do.
    """

    prevalence: float
    auc: float
    squeeze: float = 1.0
    spread: float = 1.0
    images: int = 1

    def draw(self, rng: np.random.Generator, patients: int) -> Scores:
        """Scores and labels."""
        labels = (rng.random(patients) < self.prevalence).astype(np.int64)
        apart = float(ndtri(self.auc)) * np.hypot(1, self.spread)
        latent = rng.standard_normal(patients) * np.where(labels == 1, self.spread, 1.0) + apart * labels
        logits = self.squeeze * (logit(self.prevalence) + apart * latent - apart**2 / 2)
        if self.images == 1:
            return np.asarray(expit(logits)), labels
        each = logits[:, None] + 0.5 * self.squeeze * rng.standard_normal((patients, self.images))
        return np.asarray(expit(each).mean(axis=1)), labels


@cache
def many(world: World) -> Scores:
    """So many patients that their figures are the truth."""
    return world.draw(np.random.default_rng(1), _MANY)


@dataclass(frozen=True)
class Release:
    """How scores leave.

    Attributes:
        bins: of each histogram.
        noise: standard deviation on each cell.
        looked: bins lie where an earlier look has found scores; otherwise they are equally wide.
    """

    bins: int = 1024
    noise: float = 0.0
    looked: bool = False

    def of(self, rng: np.random.Generator, hospitals: list[Scores]) -> list[ScoreHistogram]:
        """What each hospital's patients become."""
        edges = self._edges(rng, hospitals) if self.looked else None
        exact = [score_histogram(*each, self.bins, edges) for each in hospitals]
        return [ScoreHistogram(c + rng.normal(0, self.noise, c.shape), self.noise, edges) for c in exact]

    def _edges(self, rng: np.random.Generator, hospitals: list[Scores]) -> NDArray[np.float64]:
        counted = np.sum([range_histogram(scores, RANGE_CELLS) for scores, _ in hospitals], axis=0)
        noise = RANGE_NOISE * self.noise * np.sqrt(len(hospitals))
        return np.array(range_quantiles(counted + rng.normal(0, noise, RANGE_CELLS), self.bins))
