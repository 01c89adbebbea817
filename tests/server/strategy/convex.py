"""A convex problem whose optimum is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Hospital:
    """Loss 1/2 (x - best)' curvature (x - best), minimised by plain gradient descent within a round."""

    curvature: NDArray[np.float64]
    best: Vector

    def gradient(self, x: Vector) -> Vector:
        return self.curvature @ (x - self.best)

    def train(self, x: Vector, steps: int, rate: float, correction: Vector | float = 0.0) -> Vector:
        """The update: new minus old."""
        y = x.copy()
        for _ in range(steps):
            y -= rate * (self.gradient(y) + correction)
        return y - x


@dataclass(frozen=True)
class Convex:
    """Hospitals with different optima and curvatures; the study minimises the sum of their losses."""

    hospitals: dict[str, Hospital]

    @property
    def optimum(self) -> Vector:
        a = sum(h.curvature for h in self.hospitals.values())
        return np.linalg.solve(a, sum(h.curvature @ h.best for h in self.hospitals.values()))

    def fixed_point(self, steps: int, rate: float) -> Vector:
        """Where FedAvg with several local steps comes to rest: not at the optimum, because hospitals drift."""
        eye = np.eye(len(self.optimum))
        pull = [eye - np.linalg.matrix_power(eye - rate * h.curvature, steps) for h in self.hospitals.values()]
        return np.linalg.solve(sum(pull), sum(p @ h.best for p, h in zip(pull, self.hospitals.values(), strict=True)))


def six_hospitals() -> Convex:
    """Four weights, eigenvalues between 0.2 and 2."""
    rng = np.random.default_rng(3)
    hospitals = {}
    for name in ("alder", "birch", "cedar", "dogwood", "elm", "fir"):
        turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
        hospitals[name] = Hospital(turn @ np.diag(rng.uniform(0.2, 2, 4)) @ turn.T, rng.normal(size=4))
    return Convex(hospitals)
