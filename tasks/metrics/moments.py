"""Figures that are ratios of products of sums over a table's cells: variances, correlations, weighted kappa, slopes.

A table counts each patient once. Its sums S = U N, with a row of U for each moment, are unbiased whatever the noise; a
product of two of them is too large by the noise that both share, which is known and taken off. For a candidate x the
statistic T(x) = S'AS - x S'BS is a quadratic form of the counts. Its variance has a part of drawing patients, from its
gradient by patient, and one of the noise, both quadratic in x, so that the interval is Fieller's (see ``interval.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from tasks.metrics.interval import FIRM, Interval, Quadratic, Z, fieller

Form = NDArray[np.float64]
"""Symmetric, shape (moments, moments): the weights of products of two sums."""


def product(moments: int, *terms: tuple[float, int, int]) -> Form:
    """The form of a sum of weight * first moment * second moment."""
    form = np.zeros((moments, moments))
    for weight, first, second in terms:
        form[first, second] += weight / 2
        form[second, first] += weight / 2
    return form


@dataclass(frozen=True)
class Moments:
    """Sums over the cells of a table.

    Attributes:
        cells: float64 of shape (cells,), patients; noise may make them negative.
        rows: float64 of shape (moments, cells), what a patient in each cell adds to each moment. The first row is 1.
        noise: standard deviation of the independent Gaussian noise on every cell; 0 for exact counts.
    """

    cells: NDArray[np.float64]
    rows: NDArray[np.float64]
    noise: float = 0.0

    @property
    def patients(self) -> float:
        """Estimated number; unbiased, so noise can make it negative."""
        return float(self.cells.sum())

    @property
    def is_firm(self) -> bool:
        """Whether the patients stand out of the noise so far that points may be shown; see ``interval.FIRM``."""
        return self.patients >= max(1.0, FIRM * self.noise * math.sqrt(len(self.cells)))

    def unbiased(self, form: Form) -> float:
        """The form of the sums, less what the noise adds to it on average."""
        sums, shared = self.rows @ self.cells, self.rows @ self.rows.T
        return float(sums @ form @ sums - self.noise**2 * (form * shared).sum())

    def ratio(
        self, top: Form, bottom: Form, low: float = 0.0, high: float = 1.0, normal: float = 0.0, anybody: float = 0.0
    ) -> Interval | None:
        """top / bottom between ``low`` and ``high``, with its 95 % interval.

        Args:
            normal: k, where from normally distributed patients the estimate x has the variance k x^2 / patients; then
                that of drawing is no smaller. Few patients show too little of their own scatter.
            anybody: so many patients more, spread over all cells, are in the variance of drawing: without them,
                patients who are all told rightly, or all the same, would be beyond doubt.

        Returns:
            ``None`` without noise, where there are fewer than two patients or the bottom is nothing.
        """
        if self.noise == 0 and (self.patients < 2 or self.unbiased(bottom) <= 0):
            return None
        above, span = top - low * bottom, (high - low) * bottom
        over, under = self.unbiased(above), self.unbiased(span)
        at = min(max(over / under, 0.0), 1.0) if under > 0 else 0.5
        drawing, noise = self._drawing(above, span, at, anybody), self._of_noise(above, span)
        usual = (0.0, 0.0, normal * under**2 / max(self.patients, 1.0))
        drawing = max(drawing, usual, key=lambda variance: _at(variance, at))
        found = fieller(over, under, (drawing[0] + noise[0], drawing[1] + noise[1], drawing[2] + noise[2]))
        value, least, most = (low + (high - low) * each for each in (found.value, found.low, found.high))
        return Interval(value, least, most, self.is_firm)

    def _drawing(self, above: Form, span: Form, at: float, anybody: float) -> Quadratic:
        """Variance of drawing patients: four times the sum of squared gradients, less what the noise adds to it. Where
        that is no variance, since noise is all there is, of the cells that are not negative."""
        few = max(self.patients, 2.0)
        factor = 4 * few / (few - 1) * (float(stdtrit(few - 1, 0.975)) / Z) ** 2
        found = self._squares(above, span, self.cells, self.noise**2)
        if _at(found, at) <= 0 or min(found[0], found[2]) < 0:
            found = self._squares(above, span, np.maximum(self.cells, 0), 0.0)
        spread = self._squares(above, span, np.full(len(self.cells), anybody / len(self.cells)), 0.0)
        first, second, third = (factor * (one + more) for one, more in zip(found, spread, strict=True))
        return first, second, third

    def _squares(self, above: Form, span: Form, cells: NDArray[np.float64], s2: float) -> Quadratic:
        """The sum of (gradient of ``above`` - x gradient of ``span``)^2 over patients, less its noise."""
        sums, shared = self.rows @ self.cells, self.rows @ self.rows.T
        forms = (above, span)
        gradients = [(form @ sums) @ self.rows for form in forms]
        own = [(self.rows * (form @ self.rows)).sum(axis=0) for form in forms]

        def part(i: int, j: int) -> float:
            both = (self.rows * (forms[i] @ shared @ forms[j] @ self.rows)).sum(axis=0)
            biased = cells * both + own[i] * gradients[j] + own[j] * gradients[i]
            return float((cells * gradients[i] * gradients[j] - s2 * biased).sum())

        return part(0, 0), -2 * part(0, 1), part(1, 1)

    def _of_noise(self, above: Form, span: Form) -> Quadratic:
        """Variance that the noise gives: 4 s^2 |MN|^2 + 2 s^4 tr(M^2), of which noised counts show the first term too
        large by 4 s^4 tr(M^2)."""
        if self.noise == 0:
            return 0.0, 0.0, 0.0
        sums, shared, s2 = self.rows @ self.cells, self.rows @ self.rows.T, self.noise**2

        def part(one: Form, other: Form) -> float:
            seen = float((one @ sums) @ shared @ (other @ sums))
            return 4 * s2 * seen - 2 * s2**2 * float(np.trace(one @ shared @ other @ shared))

        def least(form: Form) -> float:
            return 2 * s2**2 * float(np.trace(form @ shared @ form @ shared))

        return max(part(above, above), least(above)), -2 * part(above, span), max(part(span, span), least(span))


def _at(quadratic: Quadratic, x: float) -> float:
    return quadratic[0] + quadratic[1] * x + quadratic[2] * x**2
