"""Norm bounding: no update is longer than a bound, then FedAvg (Sun et al., 2019, arXiv:1911.07963, section 4).

An attacker can move the model only as far as the bound. It does not detect attackers, and many small ones still add
up; it is the only robust strategy here that streams.

Clipping each patient already bounds what poisoned images and labels can do to an update that the hospital's own code
computes: there, norm bounding costs nothing. Against changed code the server needs a bound of its own.
``local_sgd.honest_lengths`` gives one that costs honest hospitals nothing; but it is several times their usual length,
because patients seldom all pull the same way, and three attackers of ten that use all of it still win. A bound near the
usual length stops them and costs little (``tests/benchmarks/bench_attacks.py`` measures both).

Flower offers it only inside its central-DP wrappers (``DifferentialPrivacyServerSideFixedClipping``), which hold all
replies, and add noise that patient-level privacy at the hospitals has already added.

Privacy: as FedAvg; shortening a released update is post-processing.
Memory: as FedAvg.
"""

from __future__ import annotations

from server.strategy.fedavg import RunningMean
from server.strategy.strategy import norm
from tasks.protocol.wire import Arrays


class BoundedMean:
    """A running mean of updates that are shortened to a length on their way in."""

    def __init__(self, weights: Arrays, norm_bound: float) -> None:
        self._mean = RunningMean(weights)
        self._bound = norm_bound

    def add(self, hospital: str, update: Arrays, weight: float) -> None:
        """As ``RunningMean.add``; the weight stays that of the whole update, so shortening it pulls the mean to 0."""
        length = norm(update)
        self._mean.add(hospital, update, weight, scale=min(1.0, self._bound / length) if length else 1.0)

    def combined(self) -> Arrays:
        """As ``RunningMean.combined``; never longer than the bound."""
        return self._mean.combined()
