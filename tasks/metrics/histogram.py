"""Score histograms: the only form in which scores leave a hospital.

A histogram has shape (2, bins): how many negative and positive patients scored in each bin of [0, 1]. Bins are equally
wide, or lie between edges that were fixed before any of these patients was counted: quantiles of scores that were
released earlier, so that a model whose scores lie close together is not all in one bin. With noise its cells may be
fractional or negative. Nothing here clips negative cells: clipped, the noise would no longer cancel in sums, and every
figure would be biased (an AUC of 0.9 reads 0.81 with 100 patients, 16 bins and noise 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from tasks.metrics.cells import without_negatives
from tasks.metrics.interval import FIRM, Interval, ratio

_CORE, _STRETCH = 0.5, 3.5


@dataclass(frozen=True)
class ScoreHistogram:
    """What is known about the scores of some patients.

    Attributes:
        cells: float64 of shape (2, bins), negative and positive patients.
        noise: standard deviation of the independent Gaussian noise on every cell; 0 for exact counts.
        edges: between bins, shape (bins - 1,), not decreasing; ``None`` for equally wide bins.
        known: where bins are of several hospitals, side by side: ``means`` and ``unknown`` of each, shape (2, bins).
    """

    cells: NDArray[np.float64]
    noise: float = 0.0
    edges: NDArray[np.float64] | None = None
    known: NDArray[np.float64] | None = None

    @property
    def bins(self) -> int:
        return int(self.cells.shape[1])

    @property
    def limits(self) -> NDArray[np.float64]:
        """The edges of all bins from 0 to 1, shape (bins + 1,)."""
        if self.edges is None:
            return np.arange(self.bins + 1) / self.bins
        return np.concatenate([[0.0], self.edges, [1.0]])

    @property
    def centres(self) -> NDArray[np.float64]:
        """The score in the middle of each bin."""
        return (self.limits[1:] + self.limits[:-1]) / 2

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean score of each bin's patients, as far as the neighbouring bins tell."""
        if self.known is not None:
            return np.asarray(self.known[0])
        people = self.cells.sum(axis=0)
        if self.edges is None:
            return within(people, self.limits)
        return _between_quantiles(people, self.edges)

    @property
    def unknown(self) -> NDArray[np.float64]:
        """How far apart the scores of each bin's patients may lie. The outermost of unequal bins reach to 0 and 1, but
        their patients are near the others."""
        if self.known is not None:
            return np.asarray(self.known[1])
        width = np.diff(self.limits)
        if self.edges is None:
            return np.asarray(width)
        means = self.means
        width[0], width[-1] = 4 * (self.edges[0] - means[0]), 4 * (means[-1] - self.edges[-1])
        return np.asarray(np.minimum(np.maximum(width, 0), np.diff(self.limits)))

    def size(self, label: int) -> float:
        """Estimated number of patients of a class; unbiased, so noise can make it negative."""
        return float(self.cells[label].sum())

    @property
    def size_noise(self) -> float:
        """Standard deviation of ``size``."""
        return self.noise * math.sqrt(self.bins)

    def has_both_classes(self) -> bool:
        """Whether each class has a patient, as far as can be known: noise may hide it, but does not show it absent."""
        return self.noise > 0 or min(self.size(0), self.size(1)) >= 1

    @property
    def is_firm(self) -> bool:
        """Whether both classes stand out of the noise so far that points may be shown; see ``interval.FIRM``."""
        return min(self.size(0), self.size(1)) >= max(1.0, FIRM * self.size_noise)


def score_histogram(
    scores: ArrayLike, labels: ArrayLike, bins: int, edges: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Count patients by class and score.

    Args:
        scores: floats of shape (patients,) in [0, 1].
        labels: 0 or 1 for each patient.
        bins: number of bins.
        edges: between them, shape (bins - 1,); a score on an edge belongs to the bin above. ``None``: equally wide.

    Returns:
        float64 of shape (2, bins).

    Raises:
        ValueError: a score lies outside [0, 1] or is not a number, a label is neither 0 nor 1, or there are not
            bins - 1 edges from 0 to 1 that do not decrease.
    """
    values, classes = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("scores must be numbers between 0 and 1: pass the output of the sigmoid")
    if classes.shape != values.shape or not np.isin(classes, (0, 1)).all():
        raise ValueError(f"there must be one label, 0 or 1, for each of {values.shape} scores")
    if edges is None:
        cell = np.minimum((values * bins).astype(np.int64), bins - 1)
    elif edges.shape != (bins - 1,) or not are_edges(edges):
        raise ValueError(f"edges must be {bins - 1} numbers between 0 and 1 that do not decrease")
    else:
        cell = np.searchsorted(edges, values, side="right")
    histogram = np.zeros((2, bins))
    np.add.at(histogram, (classes.astype(np.int64), cell), 1.0)
    return histogram


def within(cells: NDArray[np.float64], limits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where in its cell a patient lies on average, shape (cells,).

    Args:
        cells: patients by value, shape (n,); noise may make them negative.
        limits: of the cells, shape (n + 1,), not decreasing.
    """
    width, centres = np.diff(limits), (limits[1:] + limits[:-1]) / 2
    if len(cells) < 2:
        return centres
    density = without_negatives(cells[None])[0] / np.maximum(width, 1e-12)
    apart = np.maximum(np.diff(np.pad(centres, 1, mode="edge")), 0)
    rise = np.diff(np.pad(density, 1, mode="edge"))
    slope = (rise[1:] + rise[:-1]) / np.maximum(apart[1:] + apart[:-1], 1e-12)
    moved = np.where(density > 0, slope * width**2 / (12 * np.maximum(density, 1e-12)), 0.0)
    return np.asarray(centres + np.clip(moved, -width / 6, width / 6))


def _between_quantiles(cells: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same of bins that hold about equally many: halfway on the logit scale. Beyond the outermost edges patients
    become fewer exponentially, beginning with the density of the next bin, at most two logits away on average."""
    ends = logit(np.clip(edges, 1e-9, 1 - 1e-9))
    if len(ends) < 2:
        return np.asarray(expit(np.array([ends[0] - 1, ends[0] + 1])))
    held = np.maximum(without_negatives(cells[None])[0], 1e-9)
    middle, width = (ends[1:] + ends[:-1]) / 2, np.maximum(np.diff(ends), 1e-9)
    below, above = held[0] / held[1] * width[0], held[-1] / held[-2] * width[-1]
    return np.asarray(expit(np.concatenate([[ends[0] - min(below, 2)], middle, [ends[-1] + min(above, 2)]])))


def are_edges(edges: NDArray[np.float64]) -> bool:
    """Whether each row could divide the scores from 0 to 1 into bins."""
    return bool(np.all((edges >= 0) & (edges <= 1)) and np.all(np.diff(edges, axis=-1) >= 0))


def range_edges(cells: int) -> NDArray[np.float64]:
    """Edges of the cells in which a first look counts all patients together, to find where a model's scores lie; shape
    (cells - 1,).

    They are public and the same for every study: equally far apart in the inverse hyperbolic sine of the logit, so
    32 of them are a tenth of a logit wide near a score of 0.5, where the scores of a weakly trained model crowd, and
    a logit wide near 0.001 and 0.999.
    """
    return np.asarray(expit(_CORE * np.sinh(np.linspace(-_STRETCH, _STRETCH, cells + 1)[1:-1])))


def range_histogram(scores: ArrayLike, cells: int) -> NDArray[np.float64]:
    """Patients by score, whatever their class, in the cells of ``range_edges``; float64 of shape (cells,).

    Raises:
        ValueError: as ``score_histogram``.
    """
    values = np.asarray(scores, dtype=np.float64)
    return np.asarray(score_histogram(values, np.zeros(len(values), np.int64), cells, range_edges(cells))[0])


def range_quantiles(counted: NDArray[np.float64], bins: int) -> list[float]:
    """Edges of bins with about equally many patients, from a first look; ``bins`` - 1 numbers."""
    limits = np.concatenate([[0.0], range_edges(len(counted)), [1.0]])
    return [float(edge) for edge in quantiles_of(counted, limits, bins)]


def quantiles(histogram: ScoreHistogram, bins: int) -> NDArray[np.float64]:
    """Edges of bins with about equal numbers of a histogram's patients.

    Returns:
        float64 of shape (bins - 1,) in [0, 1], not decreasing.
    """
    return quantiles_of(histogram.cells.sum(axis=0), histogram.limits, bins)


def quantiles_of(cells: NDArray[np.float64], limits: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """The same of patients of whatever class: cells of shape (n,) between limits of shape (n + 1,) from 0 to 1."""
    held = without_negatives(cells[None])[0]
    wanted = np.arange(1, bins) / bins
    if held.sum() <= 0:
        return wanted
    below = np.concatenate([[0.0], np.cumsum(held)]) / held.sum()
    return np.interp(wanted, below, limits)


def pooled(histograms: Sequence[ScoreHistogram]) -> ScoreHistogram:
    """All patients of several hospitals as if they were one hospital's; independent noise adds up in quadrature.

    Raises:
        ValueError: they were counted in different bins.
    """
    first = histograms[0].limits
    if not all(np.array_equal(h.limits, first) for h in histograms):
        raise ValueError("histograms with different edges cannot be pooled")
    cells = np.sum([h.cells for h in histograms], axis=0)
    return ScoreHistogram(cells, math.hypot(*(h.noise for h in histograms)), histograms[0].edges)


def coarsened(histogram: ScoreHistogram, edges: NDArray[np.float64]) -> ScoreHistogram:
    """An exact histogram counted again in fewer bins, as if scores had been counted there at first.

    Args:
        edges: shape (bins - 1,); each is moved to the nearest edge that the histogram has.

    Raises:
        ValueError: it is not exact.
    """
    if histogram.noise:
        raise ValueError("only exact histograms are counted again: noise would add up differently in every bin")
    inner = histogram.limits[1:-1]
    at = np.searchsorted((inner[1:] + inner[:-1]) / 2, edges, side="right") + 1
    cells = np.stack(
        [np.diff(np.concatenate([[0.0], row])[[0, *at, -1]]) for row in np.cumsum(histogram.cells, axis=1)]
    )
    return ScoreHistogram(cells, 0.0, inner[np.asarray(at, np.int64) - 1])


def prevalence(histogram: ScoreHistogram) -> Interval | None:
    """Fraction of positive patients; ``None`` where there is nobody."""
    positive = np.zeros((2, histogram.bins))
    positive[1] = 1
    return ratio(histogram.cells, positive, np.ones_like(positive), histogram.noise, proportion=True)
