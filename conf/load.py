"""From a command line to a checked ``Study``: Hydra composes the files, ``conf/validation.py`` judges the result.

This file, ``conf/overrides.py`` and ``server/command_line.py`` are the only ones that know Hydra.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from copy import deepcopy
from functools import cache, lru_cache
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import archives, messages, overrides, validation
from conf.groups import defaults, groups
from conf.schema.study import Study

FOLDER = overrides.FOLDER
MAIN = "run"
_BEGINS = "${"
_SHOWN = 5
_SEARCH = "hydra.searchpath="
_PLUGINS = ("hydra/launcher", "hydra/sweeper")
_OPTUNA = "hydra/sweeper=optuna"


class ConfigError(ValueError):
    """The configuration is wrong; the message lists every problem that was found, one a line."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(dict.fromkeys(problems)))


_FORCED = "++"
_ASKS_SOMETHING_ELSE = (
    *("help", "hydra_help", "shell_completion", "info"),
    *("experimental_rerun", "config_path", "config_name"),  # not our files
)


@cache
def register() -> None:
    """Tell Hydra the defaults of every class of settings, which the YAML files build on as ``_NAME``."""
    for word, meaning in archives.MEANINGS.items():
        OmegaConf.register_new_resolver(word, meaning, replace=True)
    store = ConfigStore.instance()
    own = {name: value for name, value in defaults(Study).items() if name not in overrides.FILE_GROUPS}
    store.store(name="_study", node=own | {"experiment": Study.experiment})
    for group in overrides.FILE_GROUPS & groups().keys():
        for name, kind in groups()[group].items():
            store.store(group=group, name=f"_{name}", node=defaults(kind))


def load(words: Sequence[str] = ()) -> Study:
    """Compose ``run.yaml`` with the overrides of a command line and check the result.

    >>> study = load(["experiment=demo", "privacy.epsilon=3"])
    >>> study.task.name, study.federation.rounds, study.privacy.epsilon
    ('breast_ultrasound', 10, 3.0)
    >>> load(["experiment=demo", "privacy.epsilon=0"])
    Traceback (most recent call last):
    conf.load.ConfigError: privacy.epsilon=0: must lie above 0 and not above 1000; for instance privacy.epsilon=8.0

    Raises:
        ConfigError: listing every unknown key or choice, wrong type, missing value and value that makes no sense.
    """
    asked, problems = overrides.studies(words)
    study, more = _judged(asked[0])
    if study is None or problems or more:
        raise ConfigError(*problems, *more)
    return study


def check(words: Sequence[str], commands: Sequence[str] = ()) -> None:
    """Refuse a command line of ``consilium`` before anything is done: of a sweep every value.

    Args:
        words: flags of Hydra's may stand among them.
        commands: what may have been meant by a word that is no setting.

    Raises:
        ConfigError: as ``load``.
    """
    given = get_args_parser().parse_args(list(words))
    if given.config_name or given.config_path:
        raise ConfigError(
            "--config-name, --config-path: a study begins with the files of Consilium; choose among them by KEY=VALUE, "
            "or add a folder of your own with --config-dir FOLDER"
        )
    if given.config_dir and not os.path.isdir(given.config_dir):
        raise ConfigError(f"--config-dir {given.config_dir}: there is no such folder")
    if any(getattr(given, option) for option in _ASKS_SOMETHING_ELSE):
        if wrong := overrides.studies(given.overrides, True, commands)[1]:
            raise ConfigError(*wrong)
        register()  # Hydra composes the configuration to show it
        return
    more = [f"{_SEARCH}[file://{given.config_dir}]"] if given.config_dir else []
    asked, problems = overrides.studies([*more, *given.overrides], given.multirun, commands)
    unfit = list(_unfit_search(given.overrides))
    if unfit:  # Hydra could not compose them; our own words are judged all the same
        asked = [[one for one in each if not one.is_hydra_override()] for each in asked]
    judged = [_judged(each) for each in asked]
    problems += [*(problem for _, told in judged for problem in told), *unfit]
    proposed = [study.propose for study, _ in judged if study is not None and study.propose]
    if twice := [path for path in dict.fromkeys(proposed) if proposed.count(path) > 1]:
        problems.append(f"propose={twice[0]}: studies of a sweep would overwrite each other's document; name one for "
                        "each, as in 'propose=study-${seed}.json'")  # fmt: skip
    if problems:
        raise ConfigError(*problems)


def _unfit_search(words: Sequence[str]) -> Iterator[str]:
    """What is wrong with the launcher and the sweeper that a command line names. Optuna makes small what it is given
    unless it is told otherwise, and ``objective`` names what should be large."""
    for word in words:
        kind, _, name = word.partition("=")
        if kind in _PLUGINS and name not in _choices(kind, []):
            yield f"{word}: is not installed; run pip install 'consilium-fl[sweep]' -c constraints.txt"
    if _OPTUNA in words and "hydra.sweeper.direction=maximize" not in words:
        yield f"{_OPTUNA}: looks for the smallest objective; set hydra.sweeper.direction=maximize as well"
    if _OPTUNA not in words:
        for word in overrides.intervals(words):
            yield f"{word}: an interval is for a search; add {_OPTUNA} hydra.sweeper.direction=maximize"


def for_hydra(words: Sequence[str]) -> list[str]:
    """A command line that ``check`` has passed, as Hydra takes it: it would refuse a known setting that the composed
    files leave at its default, so single values are forced. ``as_given`` takes that back."""
    given = set(get_args_parser().parse_args(list(words)).overrides)
    return [f"{_FORCED}{word}" if word in given and overrides.is_plain_value(word) else word for word in words]


def as_given(words: Sequence[str]) -> list[str]:
    """Words of a command line as they were before ``for_hydra``."""
    return [word.removeprefix(_FORCED) for word in words]


def _judged(asked: Sequence[Override]) -> tuple[Study | None, list[str]]:
    """One study and all its problems."""
    words = overrides.told_apart(asked, lambda group: _choices(group, asked))
    try:
        composed = deepcopy(_composed(tuple(words.chosen)))
        wrong, new = overrides.apply(words.values, composed)
        study, problems = validation.judged(_container(composed))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        return None, [*words.problems, _cause(error)]
    told = {re.split("[:=]", problem)[0] for problem in problems}
    lacking = [f"{line}: is not there yet; set +{line}" for key, line in new.items() if not _is_told(key, told)]
    return study, [*words.problems, *wrong, *problems, *lacking]


def _is_told(key: str, told: Set[str]) -> bool:
    """Whether something is told of a key, of what it lies in, or of what lies in it."""
    return any(f"{key}.".startswith(f"{other}.") or other.startswith(f"{key}.") for other in told)


@lru_cache(maxsize=100)
def _composed(chosen: tuple[str, ...]) -> DictConfig:
    """The files of these choices, not to be changed: of a sweep most studies have the same."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(FOLDER), version_base=None):
        try:
            return compose(MAIN, overrides=list(chosen))
        except OmegaConfBaseException:
            raise
        except (AssertionError, AttributeError) as error:  # a value where Hydra's own settings have none
            raise ConfigCompositionException(str(error)) from error


def _choices(group: str, asked: Sequence[Override]) -> list[str]:
    """The names of a group's files, those in folders of the user's own as well."""
    register()
    GlobalHydra.instance().clear()
    searched = [word for override in asked if (word := overrides.as_typed(override)).startswith(_SEARCH)]
    with initialize_config_dir(str(FOLDER), version_base=None):
        loader = GlobalHydra.instance().config_loader()
        names = loader.get_group_options(group, ObjectType.CONFIG, MAIN, searched)
    return [name for name in names if not name.startswith("_")]


def to_study(composed: DictConfig) -> Study:
    """A checked ``Study`` from what Hydra composed.

    Raises:
        ConfigError: as ``load``.
    """
    try:
        return _checked(_container(composed))
    except OmegaConfBaseException as error:
        raise ConfigError(_cause(error)) from error


def _checked(values: Mapping[str, object]) -> Study:
    study, problems = validation.judged(values)
    if study is None or problems:
        raise ConfigError(*problems)
    return study


def _container(composed: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))


def to_plain(study: Study) -> dict[str, Any]:
    """The configuration as JSON-ready nested dictionaries."""
    return validation.plain(study)


def from_plain(values: Mapping[str, object]) -> Study:
    """The inverse of ``to_plain``, checked anew: the values may come from another machine.

    They are text and nothing else: OmegaConf would put this machine's environment and files in the place of
    ``${...}``, so a text that has any is refused, although nothing here would read it so.

    Raises:
        ConfigError: as ``load``; or something in it would be interpolated.
    """
    try:
        places = list(_interpolated(values))
        if places:
            raise ConfigError(f"{', '.join(places[:_SHOWN])}: '${{' stands for a value of the machine that reads it; "
                              "write the value itself")  # fmt: skip
        if not isinstance(values, Mapping):
            raise ConfigError("a configuration has keys and values")
        return _checked(values)
    except RecursionError:
        raise ConfigError("the configuration is nested deeper than any that could be meant") from None


def _interpolated(value: object, place: str = "") -> Iterator[str]:
    """Where a text, of a key or a value, holds the beginning of an interpolation."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            inner = f"{place}.{key}" if place else str(key)
            yield from [repr(inner[: messages.LONGEST])] if _BEGINS in str(key) else _interpolated(below, inner)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _interpolated(below, place)
    elif isinstance(value, str) and _BEGINS in value:
        yield place[: messages.LONGEST]


def _cause(error: Exception) -> str:
    """What Hydra, OmegaConf or a YAML file has to say that is not told above: in one line, each sentence once."""
    if isinstance(error, yaml.YAMLError):
        return f"a file cannot be read: {' '.join(str(error).split())}"
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = next(iter(str(cause).strip().splitlines()), "")
        lines += [text] if text and text not in lines else []
        cause = cause.__cause__
    where = getattr(error, "full_key", None)
    return f"{where or 'the files cannot be composed'}: {'; '.join(lines)}"
