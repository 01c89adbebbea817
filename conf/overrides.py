"""The words of a command line, each told apart or refused: Hydra would stop at the first wrong one, in its own words.

experiment=demo      the choice of a group
seed=2               a single value
seed=1,2,3           a sweep; of each of its values one study
+where={site: [a]}   a new entry
~privacy.epsilon     back to the default

Tested in ``tests/conf/test_wrong_input.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from conf import messages
from conf.groups import groups, told_apart_by

FOLDER = Path(__file__).parent
FILE_GROUPS = frozenset(path.parent.name for path in FOLDER.glob("*/*.yaml"))
"""The groups whose choices are files."""
_MOST_VALUES = 200
"""Of a longer sweep only the beginning is looked at before it runs."""

Studies = tuple[list[list[Override]], list[str]]
Choices = Callable[[str], Sequence[str]]
"""Gives the names of a group's files."""


@dataclass
class Words:
    """What was asked for.

    Attributes:
        chosen: choices of groups, and what is for Hydra itself: whole words.
        values: single values, in their order.
        problems: of words that cannot be followed.
    """

    chosen: list[str] = field(default_factory=list)
    values: list[Override] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def studies(words: Sequence[str], multirun: bool = False, commands: Sequence[str] = ()) -> Studies:
    """The studies that a command line asks for, and the words that are none.

    Of a sweep only as many studies as show each value once: a value that cannot be is refused wherever it stands.
    ``commands`` are what else could have been meant.
    """
    read = [_parsed(word, commands) for word in words]
    parsed = [override for override in read if not isinstance(override, str)]
    problems = [problem for problem in read if isinstance(problem, str)]
    if not multirun:
        problems += [_no_sweep(override) for override in parsed if override.is_sweep_override()]
        return [[override for override in parsed if not override.is_sweep_override()]], problems
    swept = [(override, _values(override)) for override in parsed]
    problems += [f"{as_typed(override)}: gives no value" for override, each in swept if each == []]
    values = [each for _, each in swept if each]
    first = [each[0] for each in values]
    others = [[*first[:place], value, *first[place + 1 :]] for place, each in enumerate(values) for value in each[1:]]
    return [first, *others], problems


def _parsed(word: str, commands: Sequence[str]) -> Override | str:
    """What a word says, or why it says nothing."""
    try:
        override = OverridesParser.create().parse_override(word)
    except (HydraException, ValueError):  # the latter of a number with thousands of digits
        override = None
    if override is None or not override.key_or_group:
        return f"{messages.shown(word)}: is not KEY=VALUE{_meant(word, commands)}"
    return override


def is_plain_value(word: str) -> bool:
    """Whether a word is a setting of ours and its value, and no choice, with nothing before it."""
    override = _parsed(word, ())
    if isinstance(override, str):  # beside ``--help`` a word may be anything
        return False
    key = override.key_or_group
    return word.startswith(key) and key not in FILE_GROUPS and not override.is_hydra_override()


def as_typed(override: Override) -> str:
    """The word as it stood on the command line."""
    return str(override.input_line)


def _meant(word: str, commands: Sequence[str]) -> str:
    if "=" in word:
        return "; put a value with special characters in quotes: KEY='VALUE'"
    if near := difflib.get_close_matches(word, commands, 1):
        return f"; did you mean `consilium {near[0]}`?"
    groups_of_it = sorted(path.parent.name for path in FOLDER.glob("*/*.yaml") if path.stem == word)
    return "".join(f"; did you mean {group}={word}?" for group in groups_of_it[:1]) or "; set KEY=VALUE"


def _no_sweep(override: Override) -> str:
    line = messages.shown(as_typed(override))
    return f"{line}: several values are a sweep, which starts with consilium -m; a list stands in brackets"


def _values(override: Override) -> list[Override] | None:
    """Of a sweep each value as if it stood alone, of an interval its ends; ``None`` where only Hydra can tell them."""
    if not override.is_sweep_override():
        return [override]
    value = override.value()
    if isinstance(value, Glob):
        return None
    if isinstance(value, IntervalSweep):
        words: Iterable[str] = [f"{value.start}", f"{value.end}"]
    else:
        words = islice(override.sweep_string_iterator(), _MOST_VALUES)
    return [OverridesParser.create().parse_override(f"{override.get_key_element()}={value}") for value in words]


def intervals(words: Sequence[str]) -> list[str]:
    """Those of the words that give an interval in place of values."""
    parsed = [override for word in words if isinstance(override := _parsed(word, ()), Override)]
    return [as_typed(override) for override in parsed if isinstance(override.value(), IntervalSweep)]


def told_apart(overrides: Sequence[Override], choices: Choices) -> Words:
    """Choices, values, and what is neither."""
    words = Words()
    for override in overrides:
        group, value = override.key_or_group.split("@")[0], override.value()
        if override.is_hydra_override():
            words.chosen.append(as_typed(override))
        elif group not in FILE_GROUPS or isinstance(value, dict):
            words.values.append(override)
        elif override.is_delete():
            words.chosen.append(as_typed(override))
        elif as_typed(override).startswith("+") or override.package is not None:
            words.problems.append(f"{as_typed(override)}: is a choice; set {group}={messages.shown(value)}")
        elif wrong := _wrong_choices(group, value, choices):
            words.problems += wrong
        else:
            words.chosen.append(as_typed(override))
    return words


def _wrong_choices(group: str, value: object, choices: Choices) -> list[str]:
    if group != "experiment" and not isinstance(value, str | int | float):
        return [f"{messages.assigned(group, value)}: must be one choice; set {group}=NAME"]
    named = [str(name) for name in (value if isinstance(value, list) else [value]) if name is not None]
    absent = [name for name in named if not (FOLDER / group / f"{name}.yaml").is_file()]
    return [messages.no_such_choice(group, name, there) for name in absent if name not in (there := choices(group))]


def apply(values: Sequence[Override], config: DictConfig) -> tuple[list[str], dict[str, str]]:
    """Set values in a composed configuration.

    Returns:
        what is wrong with them, and of those that are not there yet the word by its key: they are set all the same, so
        that it can be told whether they are unknown or only want a plus sign.
    """
    problems, new = [], dict[str, str]()
    for override in values:
        try:
            if problem := _refused(override, config):
                problems.append(problem)
            elif override.is_delete():
                _delete(override.key_or_group, config)
            elif not _set(override, config):
                new[override.key_or_group] = as_typed(override)
        except OmegaConfBaseException as error:
            problems.append(f"{messages.shown(as_typed(override))}: cannot be set: {str(error).splitlines()[0]}")
    return problems, new


def _refused(override: Override, config: DictConfig) -> str:
    """Why a value must not be set or deleted, whatever it is; "" where it may."""
    key, value = override.key_or_group, override.value()
    there = OmegaConf.select(config, key, throw_on_missing=False)
    group, _, setting = key.partition(".")
    if len(groups().get(group, {})) > 1 and setting == told_apart_by(group) and value != there:
        return f"{messages.assigned(key, value)}: belongs to the choice and is {there}; set another with {group}=NAME"
    if override.is_delete() and (there is None or value not in (None, there)):
        return f"{as_typed(override)}: there is no such value to take away; leave it out"
    if override.is_add() and there is not None and not isinstance(value, dict | list):
        return f"{as_typed(override)}: is set already; set {as_typed(override)[1:]}"
    return ""


def _delete(key: str, config: DictConfig) -> None:
    above, _, last = key.rpartition(".")
    with open_dict(config):
        del (OmegaConf.select(config, above) if above else config)[last]


def _set(override: Override, config: DictConfig) -> bool:
    """Whether a value could be set without being new. A setting of a hospital that is there is not, though the composed
    files leave it at its default; whether there is such a setting is told with all other keys."""
    key, value = override.key_or_group, override.value()
    entry = key if isinstance(value, dict) else key.rpartition(".")[0]
    of_an_entry = entry.count(".") > 1 and OmegaConf.is_dict(OmegaConf.select(config, entry))
    try:
        OmegaConf.update(config, key, value, merge=True, force_add=override.is_add() or override.is_force_add())
    except (ConfigAttributeError, ConfigKeyError):
        OmegaConf.update(config, key, value, merge=True, force_add=True)
        return of_an_entry
    return True
