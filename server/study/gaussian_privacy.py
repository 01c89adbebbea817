"""An (epsilon, delta) converted to another delta, as if it came from one Gaussian mechanism.

Of a composition of sampled Gaussian mechanisms the coordinator knows epsilon at one delta only; a hospital knows all of
it and its ``review`` gives the exact figure. Many small steps add up to nearly one Gaussian mechanism (Dong, Roth and
Su, "Gaussian differential privacy", JRSS B 84:3, 2022, theorem 3.7). So this is an approximation, and called one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import log_ndtr, ndtr

_MOST_MU = 1e3


def mu_of(epsilon: float, delta: float) -> float:
    """The mu of Gaussian differential privacy whose epsilon at delta this is."""
    return _root(lambda mu: _delta(epsilon, mu) - delta, 1e-9, _MOST_MU)


def epsilon_at(epsilon: float, delta: float, other: float) -> float:
    """Epsilon at another delta, of the Gaussian mechanism that has ``epsilon`` at ``delta``."""
    if epsilon <= 0:
        return 0.0
    mu = mu_of(epsilon, delta)
    if _delta(0, mu) <= other:
        return 0.0
    return _root(lambda e: _delta(e, mu) - other, 0.0, mu**2 / 2 + 40 * mu + 1e-6)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq  # takes a second to import, and only one page in a study needs it

    return float(brentq(function, low, high))


def _delta(epsilon: float, mu: float) -> float:
    """Corollary 2.13 there; the second term in logarithms, since e^epsilon is large where its factor is small."""
    lost = math.exp(min(epsilon + float(log_ndtr(-epsilon / mu - mu / 2)), 0.0))
    return float(ndtr(-epsilon / mu + mu / 2)) - lost
