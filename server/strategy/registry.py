"""From ``strategy=NAME`` to the strategy: the only place that knows them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from conf.schema.strategy import (
    Cyclic,
    Ditto,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBN,
    FedPer,
    FedProx,
    FedRep,
    FedYogi,
    GeometricMedian,
    Krum,
    MeanRegularised,
    Median,
    MultiKrum,
    NormBounding,
    Robust,
    Scaffold,
    StrategySettings,
    TrimmedMean,
)
from server.strategy import fedopt, scaffold
from server.strategy.buffered import BufferedUpdates, RobustRule
from server.strategy.coordinate_wise import median_rule, trimmed_mean_rule
from server.strategy.cyclic import whose_turn
from server.strategy.fedavg import fedavg_step, mean_combiner
from server.strategy.fedavgm import fedavgm_start, fedavgm_step
from server.strategy.geometric_median import geometric_median_rule
from server.strategy.krum import krum_rule, multi_krum_rule
from server.strategy.norm_bounding import BoundedMean
from server.strategy.strategy import Combiner, Strategy, everyone
from server.strategy.weighting import by_inverse_noise_variance, by_public_size, uniform
from tasks.protocol.wire import Arrays

Weight = Callable[[int, float | None], float]
Invited = Callable[[Sequence[str], int], list[str]]

WEIGHTINGS: dict[str, Weight] = {
    "public_size": by_public_size,
    "uniform": uniform,
    "inverse_noise_variance": by_inverse_noise_variance,
}


def build(settings: StrategySettings, local_move: float = 1.0) -> Strategy:
    """The strategy that the configuration names.

    Args:
        local_move: how far one unit of gradient moves a hospital's model in the coming round
            (``local_sgd.local_move``); SCAFFOLD must know it.

    Raises:
        TypeError: settings of a kind that no strategy belongs to; ``conf`` lets none through.
    """
    match settings:
        case FedAvgM():
            return _fedavgm(settings)
        case FedAdagrad():
            return _fedopt(settings, fedopt.adagrad, fedopt.Decay(settings.beta_1, 0.0, settings.tau))
        case FedAdam():
            return _fedopt(settings, fedopt.adam, fedopt.Decay(settings.beta_1, settings.beta_2, settings.tau))
        case FedYogi():
            return _fedopt(settings, fedopt.yogi, fedopt.Decay(settings.beta_1, settings.beta_2, settings.tau))
        case NormBounding():
            return _plain(settings, lambda weights, _: BoundedMean(weights, settings.norm_bound))
        case Robust():
            rule = _rule(settings)
            combiner = partial(BufferedUpdates, rule=rule, memory_limit_gb=settings.memory_limit_gb)
            return replace(_plain(settings, combiner), withstands=rule.withstands)
        case Cyclic():
            return _plain(settings, mean_combiner, whose_turn)
        case Scaffold():
            return _scaffold(settings, local_move)
        case FedAvg() | FedProx() | FedBN() | FedPer() | FedRep() | Ditto() | MeanRegularised():
            return _plain(settings, mean_combiner)  # what they are is the hospitals' part
    raise TypeError(f"no strategy belongs to {type(settings).__name__}")


def _plain(
    settings: StrategySettings, combiner: Callable[[Arrays, int], Combiner], invited: Invited = everyone
) -> Strategy:
    """Whatever combines, with FedAvg's step."""
    step = partial(fedavg_step, server_learning_rate=settings.server_learning_rate)
    return Strategy(combiner, step, WEIGHTINGS[settings.weighting], invited=invited)


def _fedavgm(settings: FedAvgM) -> Strategy:
    step = partial(
        fedavgm_step,
        server_learning_rate=settings.server_learning_rate,
        server_momentum=settings.server_momentum,
    )
    return Strategy(mean_combiner, step, WEIGHTINGS[settings.weighting], fedavgm_start)


def _scaffold(settings: Scaffold, local_move: float) -> Strategy:
    step = partial(scaffold.scaffold_step, server_learning_rate=settings.server_learning_rate, local_move=local_move)
    weight = WEIGHTINGS[settings.weighting]
    return Strategy(mean_combiner, step, weight, scaffold.scaffold_start, sent_along=scaffold.scaffold_control)


def _fedopt(settings: StrategySettings, second_moment: fedopt.SecondMoment, decay: fedopt.Decay) -> Strategy:
    step = partial(
        fedopt.fedopt_step,
        second_moment=second_moment,
        server_learning_rate=settings.server_learning_rate,
        decay=decay,
    )
    return Strategy(mean_combiner, step, WEIGHTINGS[settings.weighting], partial(fedopt.fedopt_start, decay=decay))


def _rule(settings: Robust) -> RobustRule:
    match settings:
        case Median():
            return median_rule()
        case TrimmedMean():
            return trimmed_mean_rule(settings.trim)
        case Krum():
            return krum_rule(settings.attackers)
        case MultiKrum():
            return multi_krum_rule(settings.attackers, settings.selected)
        case GeometricMedian():
            return geometric_median_rule()
    raise TypeError(f"no robust rule belongs to {type(settings).__name__}")
