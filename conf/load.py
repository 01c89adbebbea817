"""From a Hydra configuration to a checked ``Study``, with messages that name the key at fault.

This file and ``server/launch.py`` are the only ones that know Hydra.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import schema

FOLDER = Path(__file__).parent
MAIN = "run"


class ConfigError(ValueError):
    """The configuration cannot be meant; the message lists every problem that was found."""


def register() -> None:
    """Tell Hydra the dataclasses that the YAML files build on (as ``_name`` in their defaults lists)."""
    store = ConfigStore.instance()
    store.store(name="_study", node=schema.Study)
    nodes = {
        "task": {"_task": schema.Task},
        "model": {"_scatter_linear": schema.ScatterLinear, "_densenet": schema.DenseNet, "_resnet": schema.ResNet},
        "strategy": {"_strategy": schema.Strategy},
        "privacy": {"_privacy": schema.Privacy},
        "federation": {
            "_phantom": schema.PhantomFederation,
            "_manifest": schema.ManifestFederation,
            "_medmnist": schema.MedmnistFederation,
        },
        "runtime": {"_runtime": schema.Runtime},
        "tracking": {"_tracking": schema.Tracking},
    }
    for group, choices in nodes.items():
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
        ConfigError: listing every missing and every impossible value.
    """
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}: give it in the experiment's file or as KEY=VALUE")
    try:
        study = cast(schema.Study, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise ConfigError(_first_causes(error)) from error
    found = schema.problems(study)
    if found:
        raise ConfigError("\n".join(found))
    return study


def to_plain(study: schema.Study) -> dict[str, object]:
    """The configuration as JSON-ready nested dictionaries."""
    return cast(dict[str, object], OmegaConf.to_container(OmegaConf.structured(study), resolve=True))


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
