"""Settings that are right by themselves and do not go together: one small rule for each, all told at once.

Tested in ``tests/conf/test_load.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from conf import archives, sums
from conf.messages import assigned
from conf.schema.ask import JOINED, Ask
from conf.schema.federation import (
    EnrolledFederation,
    ManifestFederation,
    MedmnistFederation,
    Phantom,
    PhantomFederation,
    named_hospitals,
)
from conf.schema.model import Deep, Encoder
from conf.schema.runtime import SuperlinkRuntime
from conf.schema.strategy import Cyclic, FedProx, FedRep, MeanRegularised, Robust, Scaffold
from conf.schema.study import Study

LEAST_RATE = 1e-6
MOST_NOISED_BINS = 64

Rule = Callable[[Study], Iterator[str]]


def problems(study: Study) -> list[str]:
    """Everything in a study that does not go together, each with its key and the remedy."""
    return [problem for rule in RULES for problem in rule(study)]


# --- within one group ------------------------------------------------------------------------------------------------


def _frozen_without_weights(study: Study) -> Iterator[str]:
    if isinstance(study.model, Deep) and study.model.freeze == "encoder" and not study.model.weights:
        yield "model.freeze=encoder: it must come from a file; set model.weights=FILE, or model.freeze=nothing"


def _encoder_without_file(study: Study) -> Iterator[str]:
    if isinstance(study.model, Encoder) and not study.model.weights:
        yield "model=encoder: is nothing without a file; set model.weights=FILE, see consilium encoder FILE"


def _no_groups(study: Study) -> Iterator[str]:
    """Without groups batch normalisation stays, which only a frozen encoder may have."""
    if getattr(study.model, "groups", 1) == 0 and getattr(study.model, "freeze", "nothing") == "nothing":
        yield "model.groups=0: must be a positive number; 0 is for model.freeze=encoder"


def _phantoms(study: Study) -> Iterator[str]:
    if isinstance(study.federation, PhantomFederation):
        for name, phantom in study.federation.hospitals.items():
            yield from _more_positives_than_patients(f"federation.hospitals.{name}.positives", phantom)


def _more_positives_than_patients(key: str, phantom: Phantom) -> Iterator[str]:
    if phantom.positives is not None and phantom.positives > phantom.patients:
        yield f"{key}={phantom.positives}: must lie between 0 and its {phantom.patients} patients"


def _invited_twice(study: Study) -> Iterator[str]:
    named = named_hospitals(study.federation)
    if len(set(named)) < len(named):
        yield f"{assigned('federation.hospitals', named)}: names one twice; set each once"


def _subgroups_twice(study: Study) -> Iterator[str]:
    subgroups = study.evaluation.subgroups
    if len(set(subgroups)) < len(subgroups):
        yield f"{assigned('evaluation.subgroups', subgroups)}: names one twice; set each once"


def _subgroups_come_last(study: Study) -> Iterator[str]:
    evaluation = study.evaluation
    if evaluation.subgroups and (evaluation.patience or evaluation.deliver != "last"):
        yield (
            f"{assigned('evaluation.subgroups', evaluation.subgroups)}: they are told apart after the last round only; "
            "set evaluation.patience=0 and evaluation.deliver=last"
        )


def _matrix_without_its_arm(study: Study) -> Iterator[str]:
    if study.evaluation.matrix and "local" not in study.evaluation.arms:
        yield f"evaluation.matrix={study.evaluation.matrix}: needs the local arm: set evaluation.arms=[local]"


def _nothing_but_noise(study: Study) -> Iterator[str]:
    if study.evaluation.epsilon is not None and study.evaluation.bins > MOST_NOISED_BINS:
        yield (
            f"evaluation.bins={study.evaluation.bins}: a noised histogram of so many bins is nothing but noise; "
            "set evaluation.bins=16"
        )


def _robust_weighs_alike(study: Study) -> Iterator[str]:
    if isinstance(study.strategy, Robust) and study.strategy.weighting != "uniform":
        yield (
            f"strategy.weighting={study.strategy.weighting}: {study.strategy.name} allows uniform only; "
            "set strategy.weighting=uniform"
        )


# --- of several groups -----------------------------------------------------------------------------------------------


def _weighting_by_no_noise(study: Study) -> Iterator[str]:
    by_noise = study.strategy.weighting == "inverse_noise_variance" and not isinstance(study.strategy, Robust)
    if by_noise and study.privacy.epsilon is None:
        yield (
            "strategy.weighting=inverse_noise_variance: there is no noise with privacy.epsilon=null; "
            "set strategy.weighting=uniform"
        )


def _pulled_back_at_once(study: Study) -> Iterator[str]:
    """FedProx's pull is part of each step: times the rate, the part of the way back that it goes."""
    if not isinstance(study.strategy, FedProx):
        return
    mu, rate = study.strategy.mu, study.training.learning_rate
    if mu * rate >= 1:
        yield (
            f"strategy.mu={mu:g}: with training.learning_rate={rate:g} each step would go all the way back to the "
            f"shared model and beyond; set strategy.mu={float(f'{0.1 / rate:.1g}'):g}"
        )


def _own_models(study: Study) -> Iterator[str]:
    """Of MR-MTL the server knows how long an honest update is only where these hold (``honest_updates.py``)."""
    if not isinstance(study.strategy, MeanRegularised):
        return
    pull, rate, training = study.strategy.pull, study.training.learning_rate, study.training
    if training.optimizer == "adam":
        yield "training.optimizer=adam: it would drown the pull or the patients; set training.optimizer=sgd"
    if study.federation.participation < 1 or study.federation.over_selection:
        yield (
            "federation.participation, federation.over_selection: with strategy=mr_mtl everybody is asked in each "
            "round, for the mean is of all; set federation.participation=1 federation.over_selection=0"
        )
    if study.strategy.ema:
        yield f"strategy.ema={study.strategy.ema:g}: each hospital scores with its own model; set strategy.ema=0"
    if pull * rate >= 1:
        yield (
            f"strategy.pull={pull:g}: with training.learning_rate={rate:g} each step would go all the way back to the "
            f"mean and beyond; set strategy.pull={float(f'{0.1 / rate:.1g}'):g}"
        )
    if study.strategy.server_learning_rate != 1:
        yield (
            f"strategy.server_learning_rate={study.strategy.server_learning_rate:g}: with strategy=mr_mtl the server's "
            "model is the mean of the hospitals'; set strategy.server_learning_rate=1"
        )


def _adam(study: Study) -> Iterator[str]:
    training = study.training
    if training.optimizer != "adam":
        return
    if training.momentum:
        yield f"training.momentum={training.momentum:g}: Adam has a momentum of its own; set training.momentum=0"
    if isinstance(study.strategy, Scaffold):
        yield (
            "strategy=scaffold: its control variates are mean gradients, which Adam's steps do not tell; set "
            "training.optimizer=sgd"
        )


def _warm_up(study: Study) -> Iterator[str]:
    training, rounds = study.training, study.federation.rounds
    if 0 < rounds <= training.warm_up:
        yield f"training.warm_up={training.warm_up}: must be below federation.rounds={rounds}"
    elif training.warm_up > 0:
        yield from _vanishing("training.warm_up", training.warm_up, training.learning_rate / (training.warm_up + 1))


def _rates_that_vanish(study: Study) -> Iterator[str]:
    training, evaluation = study.training, study.evaluation
    rate = evaluation.arm_learning_rate or training.learning_rate
    final = evaluation.arm_final_rate or training.final_rate
    yield from _vanishing("training.final_rate", training.final_rate, training.learning_rate * training.final_rate)
    yield from _vanishing("evaluation.arm_final_rate", evaluation.arm_final_rate, rate * final)


def _vanishing(key: str, final: float | None, last: float) -> Iterator[str]:
    if 0 < last < LEAST_RATE:
        yield (
            f"{assigned(key, final)}: the learning rate would fall to {last:g}; it must stay at {LEAST_RATE:g} or "
            f"above: set {key}=1.0"
        )


def _late_updates(study: Study) -> Iterator[str]:
    if study.federation.late_rounds and study.strategy.no_late_updates:
        yield (
            f"federation.late_rounds={study.federation.late_rounds}: {study.strategy.name} "
            f"{study.strategy.no_late_updates}; set federation.late_rounds=0"
        )


def _nothing_left_for_the_rest(study: Study) -> Iterator[str]:
    if isinstance(study.strategy, FedRep) and study.strategy.head_steps >= study.training.steps:
        yield (
            f"strategy.head_steps={study.strategy.head_steps}: must be below training.steps={study.training.steps}, or "
            "none is left for the rest of the model"
        )


def _turns_of_unknown_many(study: Study) -> Iterator[str]:
    cyclic = isinstance(study.strategy, Cyclic)
    if cyclic and study.federation.participation == 1 and not named_hospitals(study.federation):
        yield (
            "strategy=cyclic: each hospital plans its noise for its own turns; set federation.participation=FRACTION, "
            "one over the number of hospitals"
        )


def _average_that_is_not_sent(study: Study) -> Iterator[str]:
    if study.strategy.ema and study.wire.down != "float32":
        yield f"strategy.ema={study.strategy.ema}: the average is a second model to send; set wire.down=float32"


def _tables_that_cannot_be(study: Study) -> Iterator[str]:
    key = assigned("ask.by", study.ask.by)
    tables = [table.split(JOINED) for table in study.ask.by]
    seen = [frozenset(table) for table in tables]
    for number, (table, both) in enumerate(zip(tables, seen, strict=True)):
        if len(both) < len(table):
            yield f"{key}: {JOINED.join(table)} is twice the same; set each once"
        elif "intensity" in both and len(both) > 1:
            yield f"{key}: a patient's pixels lie in many cells, so intensity stands alone; set ask.by=[intensity]"
        elif both in seen[:number]:
            yield f"{key}: asks for {JOINED.join(table)} twice; set each once"


def _bands_out_of_order(study: Study) -> Iterator[str]:
    for name in ("ages", "spacings_mm", "thicknesses_mm"):
        edges = getattr(study.ask, name)
        rising = sorted(set(edges))
        if not edges or list(edges) != rising:
            yield (
                f"{assigned(f'ask.{name}', edges)}: must rise, each above the one before; "
                f"set {assigned(f'ask.{name}', rising or getattr(Ask(), name))}"
            )
    makers = [maker.lower() for maker in study.ask.vendors]
    if not makers or len(set(makers)) < len(makers):
        yield f"{assigned('ask.vendors', study.ask.vendors)}: names none or one twice; set each once"


def _no_images(study: Study) -> Iterator[str]:
    if isinstance(study.federation, ManifestFederation | MedmnistFederation) and not study.data_root:
        yield f"data_root is empty: {study.federation.kind} hospitals read real images; set data_root=FOLDER"


def _no_archive(study: Study) -> Iterator[str]:
    if isinstance(study.federation, MedmnistFederation) and not study.federation.archive:
        yield "archive is empty: medmnist hospitals read a file of MedMNIST; set archive=FOLDER/pathmnist.npz"
    elif study.archive and not archives.PUBLISHED.fullmatch(Path(study.archive).name):
        yield (
            f"{assigned('archive', study.archive)}: is not called as MedMNIST publishes its files, so its task is not "
            "known; set archive=FOLDER/pathmnist.npz, organmnist3d_64.npz or another one's name"
        )


def _matrix_of_another_size(study: Study) -> Iterator[str]:
    asked, there = study.evaluation.matrix, len(named_hospitals(study.federation))
    if asked and there and asked != there:
        yield f"evaluation.matrix={asked}: there are {there} hospitals; set evaluation.matrix={there}, or 0"


def _neither_here_nor_there(study: Study) -> Iterator[str]:
    """Enrolled hospitals are elsewhere, and those of this machine are not enrolled."""
    if isinstance(study.runtime, SuperlinkRuntime) != isinstance(study.federation, EnrolledFederation):
        yield (
            f"runtime={study.runtime.name} and {study.federation.kind} hospitals: superlink and enrolled go together; "
            "set runtime=superlink and federation=enrolled, or neither"
        )


def _device_of_others(study: Study) -> Iterator[str]:
    how = (study.runtime.device, study.runtime.precision)
    if isinstance(study.runtime, SuperlinkRuntime) and how != ("cpu", "float32"):
        yield (
            f"runtime.device={how[0]}, runtime.precision={how[1]}: real hospitals decide for themselves, in site.yaml; "
            "leave both out"
        )


def _arms_of_real_hospitals(study: Study) -> Iterator[str]:
    if isinstance(study.federation, EnrolledFederation) and study.evaluation.arms:
        yield (
            f"{assigned('evaluation.arms', study.evaluation.arms)}: possible in simulation only; set evaluation.arms=[]"
        )


RULES: tuple[Rule, ...] = (
    _frozen_without_weights,
    _encoder_without_file,
    _no_groups,
    _phantoms,
    _invited_twice,
    _subgroups_twice,
    _subgroups_come_last,
    _matrix_without_its_arm,
    _nothing_but_noise,
    _robust_weighs_alike,
    _weighting_by_no_noise,
    _rates_that_vanish,
    _pulled_back_at_once,
    _own_models,
    _adam,
    _warm_up,
    _late_updates,
    _nothing_left_for_the_rest,
    _turns_of_unknown_many,
    _average_that_is_not_sent,
    _tables_that_cannot_be,
    _bands_out_of_order,
    _no_images,
    _no_archive,
    _matrix_of_another_size,
    _neither_here_nor_there,
    _device_of_others,
    _arms_of_real_hospitals,
    sums.shared_noise,
    sums.pooled_figures,
    sums.sums,
)
