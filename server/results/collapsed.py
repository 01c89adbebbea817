"""Models that tell patients nothing apart because their training went wrong: named, and no comparison.

Steps that are right for clipped gradients are too long for others, and the arms of a study are not clipped. A model
that such steps have thrown to an end of its range gives everybody the same score. Its AUC is 0.5, and whatever is
compared with it looks good.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from server.rounds.evaluation import Evaluated
from tasks.machine.language import say


def collapsed(evaluated: Mapping[str, Evaluated]) -> list[str]:
    """Hospitals at which a model gives all patients, two at least, one score. Only where scores left without noise,
    as they do of the arms of a simulation: noise fills all bins."""
    return [hospital for hospital, each in evaluated.items() if _is_flat(each)]


def _is_flat(evaluated: Evaluated) -> bool:
    if evaluated.figures.evaluation_noise or "histogram" not in evaluated.scores:
        return False
    by_score = evaluated.scores["histogram"].reshape(-1, evaluated.scores["histogram"].shape[-1]).sum(axis=0)
    return bool(by_score.sum() >= 2 and by_score.max() == by_score.sum())


def collapsed_in_words(alone: Collection[str], pooled: Collection[str], federated: Collection[str]) -> Iterator[str]:
    """What a reader must know before any figure.

    Args:
        alone: hospitals whose own models have collapsed.
        pooled, federated: hospitals at which the model of all patients in one place, or the federated one, has.
    """
    if alone:
        yield say(
            "The models that {hospitals} trained alone give every patient the same score: their training went wrong, "
            "so nothing is compared with them. Try a lower evaluation.arm_learning_rate.",
            hospitals=", ".join(alone),
        )
    if pooled:
        yield say(
            "The model of all patients in one place gives every patient at {hospitals} the same score: its training "
            "went wrong, and its figures mean nothing. Try a lower evaluation.arm_learning_rate.",
            hospitals=", ".join(pooled),
        )
    if federated:
        yield say(
            "The federated model gives every patient at {hospitals} the same score: its training went wrong, or has "
            "not moved it. Try a lower training.learning_rate.",
            hospitals=", ".join(federated),
        )
