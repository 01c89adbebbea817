"""Which model a study delivers, and early stopping.

Both use only models and histograms that hospitals have released, so they cost no privacy. But figures are noisy, and
the best of many looks better than it is: what ``deliver=best`` reports is optimistic, and ``least_gain`` should be no
smaller than a gain that noise alone can produce. A study that ends early has planned its noise for rounds that were not
played, and spends less.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from conf.schema.study import Study
from server.rounds.state import RoundRecord, StudyState
from tasks.metrics.interval import Interval, Z, mean
from tasks.protocol.wire import Arrays

_ALPHA = 0.05
_FEWEST = 2


def best_round(rounds: Sequence[RoundRecord], least_gain: float) -> int:
    """The number of the last round that was better than all before it by ``least_gain``; 0 if none was evaluated.

    Rounds are compared by the mean AUC over the same hospitals, those with a figure in every evaluated round: otherwise
    a round would win in which a weak hospital happens to have none.
    """
    best, number, compared = -np.inf, 0, _in_every_round(rounds)
    for record in rounds:
        auc = _mean_over(record, compared)
        if auc is not None and auc > best and auc >= best + least_gain:
            best, number = auc, record.number
    return number


def fallen(rounds: Sequence[RoundRecord]) -> tuple[RoundRecord, RoundRecord] | None:
    """The best evaluated round and the last one, if the last is worse than chance explains; ``None`` if not.

    Compared is the mean AUC over the same hospitals as in ``best_round``. The best of k rounds lies above the others by
    chance alone, so their difference must pass the one-sided limit of 5 % / (k - 1) (Dunn, JASA 56:52, 1961). All
    rounds were evaluated on the same patients, so that errors counted as independent are rather too large.
    """
    compared = _in_every_round(rounds)
    means = [(record, mean) for record in rounds if (mean := _interval_over(record, compared)) is not None]
    if len(means) < _FEWEST:
        return None
    (best, most), (last, ended) = max(means, key=lambda each: each[1].value), means[-1]
    error = math.hypot(*((i.below + i.above) / 2 / Z for i in (most, ended)))
    limit = float(-ndtri(_ALPHA / (len(means) - 1)))
    return (best, last) if most.value - ended.value > limit * max(error, 1e-12) else None


def is_evaluated(record: RoundRecord) -> bool:
    """Whether some hospital has an AUC in it."""
    return any(figures.auc is not None for figures in record.hospitals.values())


def _in_every_round(rounds: Sequence[RoundRecord]) -> set[str]:
    evaluated = [{h for h, f in r.hospitals.items() if f.auc is not None} for r in rounds if is_evaluated(r)]
    return set.intersection(*evaluated) if evaluated else set()


def _mean_over(record: RoundRecord, hospitals: Collection[str]) -> float | None:
    """The mean AUC, also of those that noise leaves without a point: to choose among rounds a guess is better than
    nothing."""
    if not is_evaluated(record) or not hospitals:
        return None
    values = [record.hospitals[hospital].auc for hospital in sorted(hospitals)]
    return float(np.mean([auc for auc in values if auc is not None]))


def _interval_over(record: RoundRecord, hospitals: Collection[str]) -> Interval | None:
    if not is_evaluated(record):
        return None
    intervals = [record.hospitals[hospital].auc_interval for hospital in sorted(hospitals)]
    return mean([interval for interval in intervals if interval is not None])


def has_ended(study: Study, rounds: Sequence[RoundRecord]) -> bool:
    """Whether all rounds are played, or ``patience`` evaluations in a row brought no gain."""
    patience, best = study.evaluation.patience, best_round(rounds, study.evaluation.least_gain)
    without_gain = sum(record.number > best and is_evaluated(record) for record in rounds)
    return len(rounds) >= study.federation.rounds or 0 < patience <= without_gain


def with_the_best(study: Study, state: StudyState) -> StudyState:
    """The state with the model to be delivered, if that is not simply the last.

    With ``deliver=better`` the best one is held until the study ends, and given up unless the last one is worse.
    """
    if study.evaluation.deliver == "last":
        return state
    if study.evaluation.deliver == "better" and has_ended(study, state.rounds) and fallen(state.rounds) is None:
        return replace(state, best={}, chosen=0)
    number = best_round(state.rounds, study.evaluation.least_gain)
    if number != state.rounds[-1].number:
        return state
    return replace(state, best=state.average or state.weights, chosen=number)


def averaged(before: Arrays, weights: Arrays, decay: float) -> Arrays:
    """The exponential moving average of the models over rounds; empty without decay.

    The first model begins it, so that it needs no correction for its start.
    """
    if not decay:
        return {}
    # In place, and not as a sum of two products, so that no more than one tensor is held besides the three models.
    return {name: value + np.float32(decay) * (before.get(name, value) - value) for name, value in weights.items()}
