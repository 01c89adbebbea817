"""What epsilon and delta allow an attacker who guesses whether one patient was in a cohort."""

from __future__ import annotations

import math


def advantage(epsilon: float, delta: float) -> float:
    """The most by which true alarms can exceed false ones, over all attacks: their rates' difference, from 0 to 1.

    An attack on an (epsilon, delta)-differentially private release, whatever else it knows, obeys FPR + e^epsilon FNR
    >= 1 - delta and e^epsilon FPR + FNR >= 1 - delta (Kairouz, Oh and Viswanath, ICML 2015, theorem 2.1). Adding both
    gives TPR - FPR = 1 - FNR - FPR <= (e^epsilon - 1 + 2 delta) / (e^epsilon + 1), as Humphries et al. have it (CSF
    2023, theorem 3.1).

    Raises:
        ValueError: epsilon is negative, or delta is not in [0, 1].

    >>> round(advantage(1.0, 0.0), 3)
    0.462
    >>> advantage(math.inf, 0.0)
    1.0
    """
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise ValueError(f"epsilon {epsilon:g} and delta {delta:g}: must be at least 0, and from 0 to 1")
    # The same as 1 - 2 (1 - delta) / (e^eps + 1), which grows with either to the last bit and does not overflow.
    return 1.0 if epsilon > 700 else 1 - 2 * (1 - delta) / (math.exp(epsilon) + 1)


def right_of_100(advantage: float) -> float:
    """Of 100 patients, half of whom are in the cohort, how many the best guess gets right: 50 by tossing a coin."""
    return 50 * (1 + advantage)
