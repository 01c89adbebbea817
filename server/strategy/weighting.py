"""How much a reply counts: three functions of what hospitals may state in public.

A weight is a claim that cannot be verified: a hospital that declares a huge size, or tiny noise, dominates the mean.
That is why the robust strategies allow ``uniform`` only. Exact patient counts, which Flower weighs by, never leave.
"""

from __future__ import annotations

import math


def by_public_size(public_size: int, noise_std: float | None) -> float:
    """The declared size: the mean over hospitals is then nearly the mean over patients."""
    return float(public_size)


def uniform(public_size: int, noise_std: float | None) -> float:
    """Every hospital counts the same."""
    return 1.0


def by_inverse_noise_variance(public_size: int, noise_std: float | None) -> float:
    """One over the variance of the update's noise: of all weighted means the one with the least noise.

    The variance follows from what is public (``local_sgd.noise_std``): the order, the declared size, and the noise
    multiplier that a report repeats. For hospitals whose patients are alike and whose noise is not: where they differ,
    the mean leans towards those who need little noise, as a rule the large ones.

    Raises:
        ValueError: the update has no noise or none is known.
    """
    if noise_std is None or not 0 < noise_std < math.inf:
        raise ValueError(f"an update with noise of standard deviation {noise_std} has no weight by noise")
    return noise_std**-2
