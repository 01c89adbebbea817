"""What goes with secure sums and what does not: shared noise, and figures of all patients only."""

from __future__ import annotations

from collections.abc import Iterator

from conf.messages import assigned
from conf.schema.evaluation import Gate
from conf.schema.federation import named_hospitals
from conf.schema.strategy import (
    Cyclic,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    NormBounding,
    Robust,
    StrategySettings,
)
from conf.schema.study import Study

_MEANS = (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi)
_OWN = "or privacy=patient_dp"


def shared_noise(study: Study) -> Iterator[str]:
    """What ``privacy.noise=shared`` does not go with."""
    if study.privacy.noise != "shared":
        return
    privacy, training, federation = study.privacy, study.training, study.federation
    if privacy.epsilon is None:
        yield "privacy.noise=shared: there is no noise with privacy.epsilon=null; set privacy.noise=own"
    if why := _needs_single_updates(study.strategy):
        yield f"strategy={study.strategy.name}: {why}; set strategy=fedavg, {_OWN}"
    elif study.strategy.weighting != "public_size":
        yield (
            f"strategy.weighting={study.strategy.weighting}: a sum over patients weighs every patient alike; set "
            f"strategy.weighting=public_size, {_OWN}"
        )
    if training.steps != 1:
        yield (
            f"training.steps={training.steps}: later steps of a hospital would be taken on a model with its own small "
            "share of the noise alone, and one patient's effect on all of them has no bound; so each step is a sum of "
            f"its own: set training.steps=1 and more federation.rounds, {_OWN}"
        )
    if training.momentum:
        yield (
            f"training.momentum={training.momentum:g}: the server takes the step, so momentum is its own; set "
            "training.momentum=0 and strategy=fedavgm"
        )
    if training.optimizer != "sgd":
        yield (
            f"training.optimizer={training.optimizer}: the server takes the step; set training.optimizer=sgd and "
            "strategy=fedadam"
        )
    if training.weight_decay:
        yield f"training.weight_decay={training.weight_decay:g}: not with shared noise; set training.weight_decay=0"
    if training.final_noise != 1:
        yield (
            f"training.final_noise={training.final_noise:g}: all hospitals have one noise, whatever turn each is in; "
            "set training.final_noise=1"
        )
    if federation.participation != 1 or federation.over_selection or federation.late_rounds:
        yield (
            "federation.participation, over_selection and late_rounds: a step is the sum of everybody's parts at once; "
            "set them to 1, 0 and 0"
        )
    if study.wire.up != "float32":
        yield (
            f"wire.up={study.wire.up}: masked words are uniform random numbers, which cannot be rounded; set "
            "wire.up=float32"
        )


def _needs_single_updates(strategy: StrategySettings) -> str:
    """Why a strategy cannot work from sums; "" if it can."""
    if isinstance(strategy, _MEANS):
        return ""
    if isinstance(strategy, Robust | NormBounding):
        return "compares or shortens single hospitals' updates, of which only the sum is ever seen"
    if isinstance(strategy, Cyclic):
        return "asks one hospital at a time, and a sum of one hides nothing"
    return "adds to the steps that a hospital takes by itself, and with shared noise the server takes them"


def pooled_figures(study: Study) -> Iterator[str]:
    """What ``evaluation.pooled_only`` does not go with."""
    evaluation = study.evaluation
    if not evaluation.pooled_only:
        return
    if evaluation.epsilon is None:
        yield "evaluation.pooled_only=true: exact figures have no noise to share; set evaluation.epsilon=4.0"
    if evaluation.matrix:
        yield f"evaluation.matrix={evaluation.matrix}: these are figures of single hospitals; set evaluation.matrix=0"
    if evaluation.gate != Gate():
        yield "evaluation.gate: every hospital's own figures must pass it, and there are none; set evaluation.gate={}"


def sums(study: Study) -> Iterator[str]:
    """What holds for both."""
    privacy = study.privacy
    if privacy.noise == "own" and not study.evaluation.pooled_only:
        return
    if privacy.least_hospitals - privacy.colluding < 2:
        yield (
            f"privacy.least_hospitals={privacy.least_hospitals}: with {privacy.colluding} colluding, at least two must "
            f"be honest, or there is no noise to share; set privacy.least_hospitals={privacy.colluding + 2}"
        )
    there = len(named_hospitals(study.federation))
    if 0 < there < privacy.least_hospitals:
        yield (
            f"{assigned('privacy.least_hospitals', privacy.least_hospitals)}: there are {there} hospitals; set "
            f"privacy.least_hospitals={there}, {_OWN}"
        )
