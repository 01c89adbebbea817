"""From a Hydra configuration to a checked ``Study``, with messages that name the key at fault.

This file and ``server/launch.py`` are the only ones that know Hydra.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import schema
from conf.checks import problems

FOLDER = Path(__file__).parent
MAIN = "run"
_BEGINS = "${"
_SHOWN, _LONGEST = 5, 80


class ConfigError(ValueError):
    """The configuration cannot be meant; the message lists every problem that was found."""


_NODES: dict[str, dict[str, type]] = {
    "task": {"_task": schema.TaskSettings},
    "model": {
        "_scatter_linear": schema.ScatterLinear,
        "_scatter_outline": schema.ScatterOutline,
        "_densenet": schema.DenseNet,
        "_resnet": schema.ResNet,
        "_efficientnet": schema.EfficientNet,
        "_vit": schema.ViT,
        "_unet": schema.UNet,
        "_segresnet": schema.SegResNet,
        "_dynunet": schema.DynUNet,
    },
    "training": {"_training": schema.TrainingSettings},
    "strategy": {
        "_fedavg": schema.FedAvg,
        "_fedavgm": schema.FedAvgM,
        "_fedadagrad": schema.FedAdagrad,
        "_fedadam": schema.FedAdam,
        "_fedyogi": schema.FedYogi,
        "_fedprox": schema.FedProx,
        "_scaffold": schema.Scaffold,
        "_fedbn": schema.FedBN,
        "_fedper": schema.FedPer,
        "_fedrep": schema.FedRep,
        "_ditto": schema.Ditto,
        "_cyclic": schema.Cyclic,
        "_norm_bounding": schema.NormBounding,
        "_median": schema.Median,
        "_trimmed_mean": schema.TrimmedMean,
        "_krum": schema.Krum,
        "_multi_krum": schema.MultiKrum,
        "_geometric_median": schema.GeometricMedian,
    },
    "privacy": {"_privacy": schema.Privacy},
    "federation": {
        "_phantom": schema.PhantomFederation,
        "_manifest": schema.ManifestFederation,
        "_medmnist": schema.MedmnistFederation,
        "_enrolled": schema.EnrolledFederation,
    },
    "wire": {"_wire": schema.Wire},
    "runtime": {"_runtime": schema.Runtime, "_superlink": schema.SuperlinkRuntime},
    "tracking": {"_tracking": schema.Tracking},
}
"""What the YAML files build on, by group."""


@cache
def register() -> None:
    """Tell Hydra the dataclasses that the YAML files build on (as ``_name`` in their defaults lists)."""
    store = ConfigStore.instance()
    store.store(name="_study", node=schema.Study)
    for group, choices in _NODES.items():
        for name, node in choices.items():
            store.store(group=group, name=name, node=node)


def load(overrides: Sequence[str] = ()) -> schema.Study:
    """Compose ``run.yaml`` with the overrides of a command line and check the result.

    Raises:
        ConfigError: an unknown key or choice, a wrong type, a missing value or a value that makes no sense.
    """
    register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(FOLDER), version_base=None):
            composed = compose(MAIN, overrides=list(overrides))
    except (HydraException, ConfigCompositionException, OmegaConfBaseException) as error:
        raise ConfigError(_first_causes(error)) from error
    return to_study(composed)


def to_study(composed: DictConfig) -> schema.Study:
    """A checked ``Study`` from what Hydra composed.

    Raises:
        ConfigError: listing every unknown key, or every missing value, or every impossible one.
    """
    unknown = sorted(_unknown_keys(composed))
    if unknown:
        raise ConfigError(f"no such key: {', '.join(unknown)}; conf/schema.py says what there is")
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}: give it in the experiment's file or as KEY=VALUE")
    try:
        study = cast(schema.Study, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise ConfigError(_first_causes(error)) from error
    if study.privacy.epsilon == math.inf:  # what a sweep writes for "without"
        study.privacy.epsilon = None
    found = problems(study)
    if found:
        raise ConfigError("\n".join(found))
    return study


def to_plain(study: schema.Study) -> dict[str, object]:
    """The configuration as JSON-ready nested dictionaries."""
    return cast(dict[str, object], OmegaConf.to_container(OmegaConf.structured(study), resolve=True))


def from_plain(values: Mapping[str, object]) -> schema.Study:
    """The inverse of ``to_plain``, checked anew: the values may come from another machine.

    They are text and nothing else: OmegaConf would put this machine's environment and files in the place of
    ``${...}``, so a text that has any is refused before OmegaConf sees it.

    Raises:
        ConfigError: as ``load``; or something in it would be interpolated.
    """
    try:
        places = list(_interpolated(values))
    except RecursionError:
        raise ConfigError("the configuration is nested deeper than any that could be meant") from None
    if places:
        raise ConfigError(f"{', '.join(places[:_SHOWN])}: '${{' stands for a value of the machine that reads it; "
                          "write the value itself")  # fmt: skip
    if not isinstance(values, Mapping):
        raise ConfigError("a configuration has keys and values")
    composed = OmegaConf.structured(schema.Study)
    try:
        for group, choices in _NODES.items():
            composed[group] = OmegaConf.structured(_node_of(group, list(choices.values()), values.get(group)))
        return to_study(cast(DictConfig, OmegaConf.merge(composed, OmegaConf.create(dict(values)))))
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(_first_causes(error)) from error


def _interpolated(value: object, place: str = "") -> Iterator[str]:
    """Where a text, of a key or a value, holds the beginning of an interpolation."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            inner = f"{place}.{key}" if place else str(key)
            yield from [repr(inner[:_LONGEST])] if _BEGINS in str(key) else _interpolated(below, inner)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _interpolated(below, place)
    elif isinstance(value, str) and _BEGINS in value:
        yield place[:_LONGEST]


def _node_of(group: str, nodes: Sequence[type], part: object) -> type:
    """The dataclass whose name or kind the values of a group bear."""
    if len(nodes) == 1:
        return nodes[0]
    key = "kind" if group == "federation" else "name"
    wanted = part.get(key) if isinstance(part, Mapping) else None
    known = {next(f.default for f in fields(node) if f.name == key): node for node in nodes}
    if wanted not in known:
        raise ConfigError(f"{group}.{key}={wanted}: must be one of {', '.join(map(str, known))}")
    return known[wanted]


def _unknown_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys that no dataclass has: Hydra itself lets ``+training.stepz=3`` pass."""
    kind = OmegaConf.get_type(node)
    known = {f.name for f in fields(kind)} if is_dataclass(kind) else set(node)
    for key in map(str, node):
        if key not in known:
            yield f"{prefix}{key}"
        elif not OmegaConf.is_missing(node, key) and isinstance(child := node[key], DictConfig):
            yield from _unknown_keys(child, f"{prefix}{key}.")


def _first_causes(error: BaseException) -> str:
    """Hydra wraps the useful sentence; show the wrapper's and the cause's first paragraph, once each."""
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip()
        if text and not any(text in line for line in lines):
            lines.append(text)
        cause = cause.__cause__
    return "\n".join(lines)
