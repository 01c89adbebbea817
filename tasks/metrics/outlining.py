"""How well structures are outlined, from histograms over patients: the only form in which Dice and distances leave.

Two histograms a structure. Of the Dice coefficient, shape (2, bins): in row 1 patients who have the structure, by the
coefficient; in row 0 patients who do not, by how much of the image was marked all the same: the first cell is nothing,
the others are equally wide in the square root of the fraction. Of the 95 % Hausdorff distance, shape (bins,): patients
who have the structure, in cells that are equally wide in the square root of the distance as a fraction of the image's
diagonal, so that small distances can be distinguished. A patient is in one cell of each. As in ``histogram.py``, noise
may make cells negative, and nothing is clipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.interval import Interval, ratio
from tasks.metrics.resampling import without_negatives

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
    marked = np.where(lack > 0, 1 + np.floor(np.sqrt(lack) * (bins - 1)), lack)
    return np.stack([_counted(marked, bins), _counted(np.floor(have * bins), bins)])


def distance_histogram(distance: ArrayLike, bins: int) -> NDArray[np.float64]:
    """Count patients by distance, shape (patients,), a fraction of the diagonal or NaN; float64 of shape (bins,).

    Raises:
        ValueError: a distance lies outside [0, 1].
    """
    return _counted(np.floor(np.sqrt(_fractions(distance)) * bins), bins)


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
        """Mean over patients who have the structure; ``None`` where the noise hides them."""
        weights = np.zeros_like(self.dice)
        weights[1] = 1
        return ratio(self.dice, weights * _centres(self.dice.shape[1]), weights, self.noise)

    def mean_distance(self) -> Interval | None:
        """Mean 95 % Hausdorff distance, as a fraction of the diagonal."""
        return ratio(self.distance, _centres(len(self.distance)) ** 2, np.ones_like(self.distance), self.noise)

    def wrongly_marked(self) -> Interval | None:
        """Of the patients without the structure, the fraction in whom the model outlined something."""
        weights = np.zeros_like(self.dice)
        weights[0] = 1
        marked = weights.copy()
        marked[0, 0] = 0
        return ratio(self.dice, marked, weights, self.noise, proportion=True)

    def dice_quartiles(self) -> tuple[float, float, float] | None:
        """Of those who have it; ``None`` where the mean has none."""
        return None if self.mean_dice() is None else _quartiles(self.dice[1])

    def distance_quartiles(self) -> tuple[float, float, float] | None:
        """As a fraction of the diagonal."""
        if self.mean_distance() is None:
            return None
        low, middle, high = _quartiles(self.distance)
        return low**2, middle**2, high**2


def pooled(outlines: list[OutlineHistograms]) -> OutlineHistograms:
    """All patients of several hospitals as if they were one hospital's; noise adds up as independent noise does."""
    dice, distance = (np.sum(cells, axis=0) for cells in ([o.dice for o in outlines], [o.distance for o in outlines]))
    return OutlineHistograms(dice, distance, math.hypot(*(o.noise for o in outlines)))


def _centres(bins: int) -> NDArray[np.float64]:
    return (np.arange(bins) + 0.5) / bins


def _quartiles(cells: NDArray[np.float64]) -> tuple[float, float, float]:
    """Where a quarter, half and three quarters of the patients are reached, evenly spread within each cell."""
    held = without_negatives(cells[None])[0]
    reached = np.concatenate([[0.0], np.cumsum(held)]) / max(held.sum(), 1e-12)
    low, middle, high = np.interp(QUARTILES, reached, np.linspace(0, 1, len(cells) + 1))
    return float(low), float(middle), float(high)
