"""How the server combines the hospitals' updates: one class for each strategy.

Tested in ``tests/conf/test_load.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from conf.schema.constraints import MISSING, Count, Decay, Positive, SettingsGroup, Trim, one_of

Weighting = Annotated[str, one_of("public_size", "uniform", "inverse_noise_variance")]


@dataclass
class StrategySettings(SettingsGroup):
    """How the server combines the hospitals' updates; the files of ``server/strategy/`` cite the papers."""

    no_late_updates: ClassVar[str] = ""
    """Why it cannot use an update of an older model, told after its name; "" where it can."""

    name: str = MISSING
    """Set by the choice."""
    server_learning_rate: Positive = 1.0
    """The combined update is multiplied by this before it is added to the model."""
    weighting: Weighting = "public_size"
    """``public_size`` (each hospital's declared, rounded size), ``uniform``, or ``inverse_noise_variance`` (the mean
    with the least noise; only with privacy)."""
    ema: Decay = 0.0
    """Decay of an exponential moving average of the model over rounds, which is then what is evaluated and handed over;
    0 is none."""


@dataclass
class FedAvg(StrategySettings):
    """The weighted mean of the updates."""

    name: str = "fedavg"
    """Set by the choice."""


@dataclass
class FedAvgM(StrategySettings):
    """FedAvg and momentum at the server."""

    name: str = "fedavgm"
    """Set by the choice."""
    server_momentum: Decay = 0.9
    """Fraction of the last move that is made again."""


@dataclass
class FedAdagrad(StrategySettings):
    """A step size for each weight, from all its updates so far."""

    name: str = "fedadagrad"
    """Set by the choice."""
    server_learning_rate: Positive = 0.1
    """How far a weight moves in a round at most, about; it has another meaning than FedAvg's."""
    beta_1: Decay = 0.0
    """Decay of the mean of the updates over rounds."""
    tau: Positive = 1e-3
    """Added to the root of the second moment: larger adapts less."""


@dataclass
class FedAdam(StrategySettings):
    """A step size for each weight, from its recent updates."""

    name: str = "fedadam"
    """Set by the choice."""
    server_learning_rate: Positive = 0.1
    """How far a weight moves in a round at most, about; it has another meaning than FedAvg's."""
    beta_1: Decay = 0.9
    """Decay of the mean of the updates over rounds."""
    beta_2: Decay = 0.99
    """Decay of the mean of their squares over rounds."""
    tau: Positive = 1e-3
    """Added to the root of the second moment: larger adapts less."""


@dataclass
class FedYogi(StrategySettings):
    """FedAdam whose step sizes recover slowly after a burst."""

    name: str = "fedyogi"
    """Set by the choice."""
    server_learning_rate: Positive = 0.1
    """How far a weight moves in a round at most, about; it has another meaning than FedAvg's."""
    beta_1: Decay = 0.9
    """Decay of the mean of the updates over rounds."""
    beta_2: Decay = 0.99
    """How fast the second moment follows the squares; nearer to 1 is slower."""
    tau: Positive = 1e-3
    """Added to the root of the second moment: larger adapts less."""


@dataclass
class FedProx(StrategySettings):
    """FedAvg whose hospitals are drawn towards the model that they were given."""

    name: str = "fedprox"
    """Set by the choice."""
    mu: Positive = 0.01
    """Strength of that pull. Times the learning rate it is the part of its way that a hospital is drawn back at each
    step: with 0.1 at the rate 8 of a linear head ten steps are worth little more than one."""


@dataclass
class Scaffold(StrategySettings):
    """FedAvg whose hospitals are told how they drift apart. For little noise: the correction carries it on."""

    no_late_updates = "computes its control variates from updates that were made with the newest ones"

    name: str = "scaffold"
    """Set by the choice."""


@dataclass
class FedBN(StrategySettings):
    """FedAvg; each hospital has normalisation layers of its own. For deep models."""

    name: str = "fedbn"
    """Set by the choice."""


@dataclass
class FedPer(StrategySettings):
    """FedAvg; each hospital has a last layer of its own. For deep models."""

    name: str = "fedper"
    """Set by the choice."""


@dataclass
class FedRep(StrategySettings):
    """FedPer that trains the last layer first, alone, and then the rest, alone."""

    name: str = "fedrep"
    """Set by the choice."""
    head_steps: Count = 5
    """Of the steps of a round, how many train the last layer."""


@dataclass
class Ditto(StrategySettings):
    """FedAvg, and a second model at each hospital that is its own; it takes as many steps again, which cost privacy."""

    name: str = "ditto"
    """Set by the choice."""
    pull: Positive = 0.1
    """How strongly the hospital's own model is drawn towards the shared one (lambda)."""


@dataclass
class MeanRegularised(StrategySettings):
    """MR-MTL: each hospital trains one model, its own, pulled towards the mean of all; it costs what FedAvg costs."""

    no_late_updates = "takes the mean of where the hospitals' models are, and a late update says where one was"

    name: str = "mr_mtl"
    """Set by the choice."""
    pull: Positive = 0.01
    """How strongly a hospital's model is drawn towards the mean (lambda): 0 would be each hospital alone, much is one
    model for all. Times the learning rate it is the part of its way that it is drawn back at each step."""


@dataclass
class Cyclic(StrategySettings):
    """Cyclical weight transfer: one hospital a round, in turn."""

    no_late_updates = "hands one model on, and a late update is of a model that was handed on without it"

    name: str = "cyclic"
    """Set by the choice."""


@dataclass
class NormBounding(StrategySettings):
    """The weighted mean of updates that were shortened to a bound."""

    name: str = "norm_bounding"
    """Set by the choice."""
    norm_bound: Positive = 1.0
    """Longest L2 norm that an update keeps. ``server.strategy.local_sgd.honest_lengths`` computes the length that no
    honest private update exceeds; a bound near the usual length (``update_norm`` of past rounds) withstands more."""


@dataclass
class Robust(StrategySettings):
    """What withstands some hospitals that send anything they like; it holds all updates of a round in memory."""

    no_late_updates = "gives each hospital one voice a round, and a late update would be a second one"

    weighting: Weighting = "uniform"
    """``uniform``: a declared size is a lever that an attacker could pull."""
    memory_limit_gb: Positive = 8.0
    """Rounds whose updates need more memory at the server (10**9 bytes) are refused before they begin."""


@dataclass
class Median(Robust):
    """The median of every weight by itself."""

    name: str = "median"
    """Set by the choice."""


@dataclass
class TrimmedMean(Robust):
    """The mean of every weight by itself without the extremes."""

    name: str = "trimmed_mean"
    """Set by the choice."""
    trim: Trim = 0.34
    """Fraction of the updates that is dropped at either end, rounded down to whole updates."""


@dataclass
class Krum(Robust):
    """The one update with the closest neighbours."""

    name: str = "krum"
    """Set by the choice."""
    attackers: Count = 1
    """How many hospitals may be attackers; at least twice as many and three must answer."""


@dataclass
class MultiKrum(Robust):
    """The mean of the updates with the closest neighbours."""

    name: str = "multi_krum"
    """Set by the choice."""
    attackers: Count = 1
    """How many hospitals may be attackers; at least twice as many and three must answer."""
    selected: Count = 4
    """Number of updates averaged (m); m + attackers must not exceed the replies."""


@dataclass
class GeometricMedian(Robust):
    """The point with the least sum of distances to all updates."""

    name: str = "geometric_median"
    """Set by the choice."""
