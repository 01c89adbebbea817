"""Values that have the right type and make no sense: each refused by its key, with the remedy, all at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import fields

from conf import schema
from conf.schema import (
    Deep,
    EnrolledFederation,
    ManifestFederation,
    MedmnistFederation,
    Phantom,
    PhantomFederation,
    Robust,
    Study,
    SuperlinkRuntime,
)

_CHOICES = {
    "strategy.weighting": ("public_size", "uniform", "inverse_noise_variance"),
    "evaluation.deliver": ("last", "best"),
    "wire.up": ("float32", "float16", "int8"),
    "wire.down": ("float32", "float16", "int8"),
    "tracking.name": ("mlflow", "none"),
}
_FREEZES = ("nothing", "encoder")
_ARMS = ("local", "pooled", "shuffled")
_SUBGROUPS = ("sex", "age", "vendor")
_LARGEST_SEED = 2**32 - 1
_EXPERIMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_STUDY = re.compile(r"auto|never|[A-Za-z0-9][A-Za-z0-9_.-]{0,39}-[0-9a-f]{8}-[0-9]{1,6}")
_HOSPITAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_RESERVED = ("pooled", "shuffled")
"""The comparison plays imaginary hospitals of these names."""

Number = int | float
StudyRule = Callable[[Number], bool]


def problems(study: Study) -> list[str]:
    """Every value in the configuration that cannot be meant, each with its key and the remedy."""
    return [
        *_choices(study),
        *_numbers(study),
        *_names(study),
        *_hospitals(study),
        *_combinations(study),
    ]


def _choices(study: Study) -> Iterator[str]:
    for key, choices in _CHOICES.items():
        value = _at(study, key)
        if value not in choices:
            yield f"{key}={value}: must be one of {', '.join(choices)}"
    for arm in study.evaluation.arms:
        if arm not in _ARMS:
            yield f"evaluation.arms={arm}: must be one of {', '.join(_ARMS)}"
    if study.evaluation.subgroups and (study.evaluation.patience or study.evaluation.deliver != "last"):
        yield "evaluation.subgroups: they are told apart after the last round only; say patience=0 and deliver=last"
    for attribute in study.evaluation.subgroups:
        if attribute not in _SUBGROUPS or study.evaluation.subgroups.count(attribute) > 1:
            yield f"evaluation.subgroups={attribute}: each at most once, of {', '.join(_SUBGROUPS)}"
    for part, attribute in (("model", "name"), ("strategy", "name"), ("federation", "kind"), ("runtime", "name")):
        value, meant = _at(study, f"{part}.{attribute}"), _default(getattr(study, part), attribute)
        if value != meant:
            yield f"{part}.{attribute}={value}: belongs to the choice and is {meant}; choose another with {part}=NAME"


def _numbers(study: Study) -> Iterator[str]:
    for (text, rule), keys in _RULES.items():
        for key in keys:
            yield from _unless(rule, text, key, _at(study, key))
    for option in fields(study.model):
        value = getattr(study.model, option.name)
        if option.name == "resolution" or (option.name == "groups" and getattr(study.model, "freeze", "") == "encoder"):
            yield from _unless(_not_negative, _NOT_NEGATIVE, f"model.{option.name}", value)
        elif isinstance(value, int | float):
            yield from _unless(_positive, _POSITIVE, f"model.{option.name}", value)
    for name, (text, rule) in _OPTIONS_OF_STRATEGIES.items():
        yield from _unless(rule, text, f"strategy.{name}", getattr(study.strategy, name, None))


def _names(study: Study) -> Iterator[str]:
    if not _EXPERIMENT.fullmatch(study.experiment):
        yield f"experiment={study.experiment}: names a folder: at most 40 letters, digits, '_', '-' and '.'"
    if not _STUDY.fullmatch(study.resume):
        yield f"resume={study.resume}: must be one of auto, never, or the name of a study"
    if not study.output_dir.strip():
        yield "output_dir is empty: say output_dir=FOLDER"
    for key, name in named_hospitals(study):
        if not _HOSPITAL.fullmatch(name) or name in _RESERVED:
            yield (
                f"{key}.{name}: a hospital's name has at most 40 letters, digits, '_', '-', "
                f"and is not {' or '.join(_RESERVED)}"
            )


def named_hospitals(study: Study) -> list[tuple[str, str]]:
    """The hospitals that the configuration itself names, each with the key that does; none where others decide."""
    federation = study.federation
    if isinstance(federation, PhantomFederation):
        return [("federation.hospitals", name) for name in federation.hospitals]
    if isinstance(federation, MedmnistFederation):
        return [("federation.sizes", name) for name in federation.sizes]
    if isinstance(federation, EnrolledFederation):
        return [("federation.hospitals", name) for name in federation.hospitals]
    return []


def _hospitals(study: Study) -> Iterator[str]:
    federation = study.federation
    if isinstance(federation, PhantomFederation):
        if not federation.hospitals:
            yield "federation.hospitals is empty: name at least one"
        for name, phantom in federation.hospitals.items():
            yield from _phantom(f"federation.hospitals.{name}", phantom)
    if isinstance(federation, MedmnistFederation):
        if not federation.sizes:
            yield "federation.sizes is empty: name at least one hospital"
        for name, size in federation.sizes.items():
            yield from _unless(_positive, _POSITIVE, f"federation.sizes.{name}", size)
        yield from _unless(_positive, _POSITIVE, "federation.label_skew", federation.label_skew)
    if isinstance(federation, ManifestFederation):
        yield from _unless(_positive, _POSITIVE, "federation.min_patients", federation.min_patients)
        yield from _unless(_not_negative, _NOT_NEGATIVE, "federation.blocks", federation.blocks)
        for name, most in federation.max_training_patients.items():
            yield from _unless(_positive, _POSITIVE, f"federation.max_training_patients.{name}", most)


def _phantom(key: str, phantom: Phantom) -> Iterator[str]:
    for name in ("patients", "gain", "frequency_mhz"):
        yield from _unless(_positive, _POSITIVE, f"{key}.{name}", getattr(phantom, name))
    if not 0 <= phantom.prevalence <= 1:
        yield f"{key}.prevalence={phantom.prevalence}: must lie between 0 and 1"
    if phantom.positives is not None and not 0 <= phantom.positives <= phantom.patients:
        yield f"{key}.positives={phantom.positives}: must lie between 0 and its {phantom.patients} patients"
    images = list(phantom.images_per_patient)
    if len(images) != 2 or not 1 <= images[0] <= images[1]:
        yield f"{key}.images_per_patient={images}: must be the least and the most, like [1, 4]"


def _combinations(study: Study) -> Iterator[str]:
    yield from _deployment(study)
    if isinstance(study.model, Deep):
        if study.model.freeze not in _FREEZES:
            yield f"model.freeze={study.model.freeze}: must be one of {', '.join(_FREEZES)}"
        elif study.model.freeze != "nothing" and not study.model.weights:
            yield f"model.freeze={study.model.freeze}: say model.weights=FILE, or model.freeze=nothing"
    for key, rate, final in (
        ("training.final_rate", study.training.learning_rate, study.training.final_rate),
        ("evaluation.arm_final_rate", study.evaluation.arm_learning_rate, study.evaluation.arm_final_rate),
    ):
        last = (rate or study.training.learning_rate) * (final or study.training.final_rate)
        if 0 < last < 1e-6:
            yield f"{key}={final}: the learning rate would fall to {last:g}; it must stay at 1e-06 or above"
    if study.federation.late_rounds and (why := _takes_nothing_late(study.strategy)):
        yield f"federation.late_rounds={study.federation.late_rounds}: {why}; say federation.late_rounds=0"
    if isinstance(study.strategy, Robust) and study.strategy.weighting != "uniform":
        yield f"strategy.weighting={study.strategy.weighting}: {study.strategy.name} allows uniform only"
    elif study.strategy.weighting == "inverse_noise_variance" and study.privacy.epsilon is None:
        yield "strategy.weighting=inverse_noise_variance: there is no noise with privacy.epsilon=null; say uniform"
    if isinstance(study.strategy, schema.FedRep) and study.strategy.head_steps >= study.training.steps:
        yield (
            f"strategy.head_steps={study.strategy.head_steps}: must be below training.steps={study.training.steps}, or "
            "none is left for the rest of the model"
        )
    if isinstance(study.strategy, schema.Cyclic) and study.federation.participation == 1 and not named_hospitals(study):
        yield (
            "strategy=cyclic: each hospital plans its noise for its own turns; say federation.participation=FRACTION, "
            "one over the number of hospitals"
        )
    if study.strategy.ema and study.wire.down != "float32":
        yield f"strategy.ema={study.strategy.ema}: the average is a second model to send; say wire.down=float32"
    if isinstance(study.federation, ManifestFederation | MedmnistFederation) and not study.data_root:
        yield f"data_root is empty: this experiment reads real images; say data_root=FOLDER ({study.federation.kind})"
    if study.evaluation.matrix and "local" not in study.evaluation.arms:
        yield f"evaluation.matrix={study.evaluation.matrix}: it is of the arm local; say evaluation.arms=[local]"
    named = named_hospitals(study)
    if study.evaluation.matrix and named and study.evaluation.matrix != len(named):
        yield f"evaluation.matrix={study.evaluation.matrix}: there are {len(named)} hospitals; say so many, or 0"
    if study.evaluation.epsilon is not None and study.evaluation.bins > 64:
        yield (
            f"evaluation.bins={study.evaluation.bins}: a noised histogram of so many bins is nothing but noise; "
            "say evaluation.bins=16"
        )


def _takes_nothing_late(strategy: schema.StrategySettings) -> str:
    """Why a strategy cannot use an update of an older model; empty where it can."""
    match strategy:
        case Robust():
            return f"{strategy.name} gives each hospital one voice a round, and a late update would be a second one"
        case schema.Scaffold():
            return "scaffold computes its control variates from updates that were made with the newest ones"
        case schema.Cyclic():
            return "cyclic hands one model on, and a late update is of a model that was handed on without it"
    return ""


def _deployment(study: Study) -> Iterator[str]:
    """Enrolled hospitals are elsewhere, and those of this machine are not enrolled."""
    federation = study.federation
    if isinstance(study.runtime, SuperlinkRuntime) != isinstance(federation, EnrolledFederation):
        yield f"runtime={study.runtime.name} and {federation.kind} hospitals: superlink and enrolled go together"
    if isinstance(federation, EnrolledFederation):
        if study.evaluation.arms:
            yield f"evaluation.arms={study.evaluation.arms}: possible in simulation only; say evaluation.arms=[]"
        yield from _unless(_not_negative, _NOT_NEGATIVE, "federation.patience_s", federation.patience_s)
        yield from _unless(_positive, _POSITIVE, "federation.attempts", federation.attempts)
        if len(set(federation.hospitals)) < len(federation.hospitals):
            yield f"federation.hospitals={federation.hospitals}: names one twice"
    if isinstance(study.runtime, SuperlinkRuntime) and not re.fullmatch(
        r"[A-Za-z0-9.-]+:\d{1,5}", study.runtime.address
    ):
        yield f"runtime.address={study.runtime.address}: must be HOST:PORT"


def _at(study: Study, key: str) -> object:
    value: object = study
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _default(
    part: schema.ModelSettings | schema.StrategySettings | schema.Federation | schema.Runtime, attribute: str
) -> object:
    return next(f.default for f in fields(part) if f.name == attribute)


def _unless(rule: StudyRule, text: str, key: str, value: object) -> Iterator[str]:
    """A problem unless the rule holds; ``None`` is a value that was left open."""
    if isinstance(value, int | float) and not rule(value):
        yield f"{key}={value}: {text}"


def _positive(value: Number) -> bool:
    return 0 < value < math.inf


def _not_negative(value: Number) -> bool:
    return 0 <= value < math.inf


_POSITIVE, _NOT_NEGATIVE = "must be a positive number", "must not be negative or infinite"
_FRACTION: tuple[str, StudyRule] = ("must be at least 0 and below 1", lambda value: 0 <= value < 1)
_OPTIONS_OF_STRATEGIES: dict[str, tuple[str, StudyRule]] = {
    "server_momentum": _FRACTION,
    "mu": (_POSITIVE, _positive),
    "pull": (_POSITIVE, _positive),
    "head_steps": (_POSITIVE, _positive),
    "beta_1": _FRACTION,
    "beta_2": _FRACTION,
    "tau": (_POSITIVE, _positive),
    "norm_bound": (_POSITIVE, _positive),
    "memory_limit_gb": (_POSITIVE, _positive),
    "trim": ("must lie above 0 and below 0.5", lambda value: 0 < value < 0.5),
    "attackers": (_POSITIVE, _positive),
    "selected": (_POSITIVE, _positive),
}
_RULES: dict[tuple[str, StudyRule], tuple[str, ...]] = {
    ("must lie between 1e-06 and 1e+06", lambda value: 1e-6 <= value <= 1e6): (
        "training.learning_rate",
        "privacy.clip_norm",
    ),
    ("must lie between 1 and 1000", lambda value: 1 <= value <= 1000): ("training.images_per_patient",),
    ("must lie between 1 and 100000", lambda value: 1 <= value <= 100_000): ("training.steps", "federation.rounds"),
    ("must lie above 0 and not above 1000", lambda value: 0 < value <= 1000): (
        "privacy.epsilon",
        "evaluation.epsilon",
    ),
    (_POSITIVE, _positive): (
        "federation.deadline_s",
        "evaluation.every",
        "evaluation.arm_learning_rate",
        "evaluation.shufflings",
        "strategy.server_learning_rate",
    ),
    ("must lie between 0 and 1", lambda value: 0 <= value <= 1): ("training.weight_decay",),
    (_NOT_NEGATIVE, _not_negative): (
        "runtime.workers",
        "evaluation.patience",
        "evaluation.matrix",
        "evaluation.least_gain",
        "federation.over_selection",
        "federation.late_rounds",
    ),
    _FRACTION: ("training.momentum", "strategy.ema"),
    ("must lie above 0 and not above 1", lambda value: 0 < value <= 1): (
        "training.sample_rate",
        "training.final_rate",
        "evaluation.arm_final_rate",
        "federation.quorum",
        "federation.participation",
    ),
    ("must lie between 0 and 1, both excluded", lambda value: 0 < value < 1): (
        "evaluation.gate.auc",
        "evaluation.gate.sensitivity",
        "evaluation.gate.specificity",
        "privacy.delta",
        "federation.validation_fraction",
    ),
    ("must lie between 0.1 and 10", lambda value: 0.1 <= value <= 10): ("training.final_noise",),
    ("must lie between 2 and 65536", lambda value: 2 <= value <= 65536): ("evaluation.bins",),
    (f"must lie between 0 and {_LARGEST_SEED}", lambda value: 0 <= value <= _LARGEST_SEED): ("seed",),
}
