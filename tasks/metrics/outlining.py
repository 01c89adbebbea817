"""How well structures are outlined, from histograms over patients: the only form in which Dice and distances leave.

Two histograms a structure. Of the Dice coefficient, shape (2, bins): in row 1 patients who have the structure, by the
coefficient; in row 0 patients who do not, by how much of the image was marked all the same, in cells that are equally
wide in the square root of the fraction. In both rows the first cell is exactly nothing: a missed structure is no small
overlap. Of the 95 % Hausdorff distance, shape (bins,): patients who have the structure, in cells that are equally wide
in the square root of the distance as a fraction of the image's diagonal, so that small distances can be distinguished;
the last cell is the whole diagonal, which stands for nothing marked. A patient is in one cell of each. As in
``histogram.py``, noise may make cells negative, and nothing is clipped.

Inside a cell, values count as their mean as far as the neighbouring cells tell; that it may lie elsewhere in the cell
is in the intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.cells import without_negatives
from tasks.metrics.histogram import within
from tasks.metrics.interval import Interval, ratio

QUARTILES = (0.25, 0.5, 0.75)


def dice_histogram(dice: ArrayLike, wrongly: ArrayLike, bins: int) -> NDArray[np.float64]:
    """Count patients.

    Args:
        dice: shape (patients,), of those who have the structure; NaN for others.
        wrongly: shape (patients,), marked fraction of the image of those who do not; NaN for others.
        bins: at least 2.

    Returns:
        float64 of shape (2, bins).

    Raises:
        ValueError: a number lies outside [0, 1], or a patient has both.
    """
    have, lack = _fractions(dice), _fractions(wrongly)
    if (~np.isnan(have) & ~np.isnan(lack)).any():
        raise ValueError("a patient either has the structure or not")
    marked, agreeing = (
        np.where(values > 0, 1 + np.floor(values * (bins - 1)), values) for values in (np.sqrt(lack), have)
    )
    return np.stack([_counted(marked, bins), _counted(agreeing, bins)])


def distance_histogram(distance: ArrayLike, bins: int) -> NDArray[np.float64]:
    """Count patients by distance, shape (patients,), a fraction of the diagonal or NaN; float64 of shape (bins,).

    Raises:
        ValueError: a distance lies outside [0, 1].
    """
    far = _fractions(distance)
    near = np.minimum(np.floor(np.sqrt(far) * (bins - 1)), bins - 2)
    return _counted(np.where(far >= 1, bins - 1, near), bins)


def _fractions(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if not np.all(np.isnan(numbers) | ((numbers >= 0) & (numbers <= 1))):
        raise ValueError("Dice, distances and marked fractions must be numbers between 0 and 1, or NaN for none")
    return numbers


def _counted(cells: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    known = cells[~np.isnan(cells)].astype(np.int64)
    return np.bincount(np.minimum(known, bins - 1), minlength=bins).astype(np.float64)


@dataclass(frozen=True)
class OutlineHistograms:
    """What is known about a structure's outlines in some patients.

    Attributes:
        dice: float64 of shape (2, bins).
        distance: float64 of shape (bins,).
        noise: standard deviation of the independent Gaussian noise on every cell; 0 for exact counts.
    """

    dice: NDArray[np.float64]
    distance: NDArray[np.float64]
    noise: float = 0.0

    def with_structure(self) -> float:
        """Estimated number of patients who have it; unbiased, so noise can make it negative."""
        return float(self.dice[1].sum())

    def without_structure(self) -> float:
        """Estimated number of patients in whom a reader looked for it and found none."""
        return float(self.dice[0].sum())

    @property
    def size_noise(self) -> float:
        """Standard deviation of the two numbers."""
        return self.noise * math.sqrt(self.dice.shape[1])

    def mean_dice(self) -> Interval | None:
        """Mean over patients who have the structure; ``None`` where there are none."""
        limits = _dice_limits(self.dice.shape[1])
        return _mean(self.dice[1], limits, limits, self.noise)

    def mean_distance(self) -> Interval | None:
        """Mean 95 % Hausdorff distance, as a fraction of the diagonal."""
        limits = _distance_limits(len(self.distance))
        return _mean(self.distance, limits, limits**2, self.noise)

    def wrongly_marked(self) -> Interval | None:
        """Of the patients without the structure, the fraction in whom the model outlined something."""
        weights = np.zeros_like(self.dice)
        weights[0] = 1
        marked = weights.copy()
        marked[0, 0] = 0
        return ratio(self.dice, marked, weights, self.noise, proportion=True)

    def dice_quartiles(self) -> tuple[float, float, float] | None:
        """Of those who have it; ``None`` where the mean has no point."""
        mean = self.mean_dice()
        return _quartiles(self.dice[1], _dice_limits(self.dice.shape[1])) if mean and mean.firm else None

    def distance_quartiles(self) -> tuple[float, float, float] | None:
        """As a fraction of the diagonal."""
        mean = self.mean_distance()
        if mean is None or not mean.firm:
            return None
        low, middle, high = _quartiles(self.distance, _distance_limits(len(self.distance)))
        return low**2, middle**2, high**2


def pooled(outlines: list[OutlineHistograms]) -> OutlineHistograms:
    """All patients of several hospitals as if they were one hospital's; noise adds up as independent noise does."""
    dice, distance = (np.sum(cells, axis=0) for cells in ([o.dice for o in outlines], [o.distance for o in outlines]))
    return OutlineHistograms(dice, distance, math.hypot(*(o.noise for o in outlines)))


def _dice_limits(bins: int) -> NDArray[np.float64]:
    """The cells' limits, shape (bins + 1,); the first cell is a point."""
    return np.concatenate([[0.0], np.linspace(0, 1, bins)])


def _distance_limits(bins: int) -> NDArray[np.float64]:
    """The same of the distance's square root; the last cell is a point."""
    return np.concatenate([np.linspace(0, 1, bins), [1.0]])


def _mean(
    cells: NDArray[np.float64], even: NDArray[np.float64], limits: NDArray[np.float64], noise: float
) -> Interval | None:
    """Mean of values between ``limits``, in cells that are equally wide between ``even``, points excepted."""
    wide = np.diff(even) > 0
    means = limits[1:].copy()
    if wide.sum() > 0:
        inner = within(cells[wide], np.append(even[:-1][wide], even[1:][wide][-1]))
        lower, upper = even[:-1][wide], even[1:][wide]
        part = (inner - lower) / (upper - lower)
        means[wide] = limits[:-1][wide] + part * np.diff(limits)[wide]
    means[~wide] = limits[:-1][~wide]
    unknown = float(((np.maximum(cells, 0) * np.diff(limits)) ** 2).sum()) / 12
    return ratio(cells, means, np.ones_like(cells), noise, more=unknown)


def _quartiles(cells: NDArray[np.float64], limits: NDArray[np.float64]) -> tuple[float, float, float]:
    """Where a quarter, half and three quarters of the patients are reached, evenly spread within each cell."""
    held = without_negatives(cells[None])[0]
    reached = np.concatenate([[0.0], np.cumsum(held)]) / max(held.sum(), 1e-12)
    low, middle, high = np.interp(QUARTILES, reached, limits)
    return float(low), float(middle), float(high)
