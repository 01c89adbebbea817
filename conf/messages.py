"""How a problem of a configuration is told: ``KEY=VALUE: what is wrong; what to set instead``, one line each.

Tested in ``tests/conf/test_wrong_input.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from conf.groups import default_of, groups, keys_of, told_apart_by
from conf.schema.constraints import MISSING, NotOneOf
from conf.schema.study import Study

LONGEST = 80
"""Characters that are shown, and compared, of a text that may come from another machine."""
_OF_TYPE = {
    "bool": "must be true or false",
    "dataclass": "stands for several settings, each to be set by itself",
    "dict": "must be NAME: VALUE pairs in braces",
    "float": "must be a number",
    "int": "must be a whole number",
    "list": "must be a list in brackets",
    "string": "must be a text",
}
"""By the first word of pydantic's name for a fault."""


def of_fault(kind: type[Any], group: str, fault: Mapping[str, Any]) -> Iterator[str]:
    """The problems in one fault that pydantic found in the values of a group; "" is the study itself."""
    places = [str(place) for place in fault["loc"] if isinstance(place, str) and place != "[key]"]
    key = ".".join(filter(None, [group, *places]))
    if fault["type"] == "unexpected_keyword_argument":
        for path, value in _leaves(key, fault["input"]):
            yield no_such_setting(path, value, _owner(kind, places) or kind, group)
    elif fault["type"] == "missing":
        yield no_value(key)
    else:
        told = shown(key) if "[key]" in fault["loc"] else assigned(key, fault["input"])
        yield f"{told}: {_what(fault)}{_remedy(kind, key, places, fault)}"


def no_value(key: str) -> str:
    """A setting that has no default and was not set."""
    return f"{shown(key)}: has no value; set {shown(key)}=VALUE"


def no_such_setting(key: str, value: object, owner: type[Any] = Study, group: str = "") -> str:
    """A key that the settings of a class have not."""
    if others := _others_with(key, group):
        hint = f"it belongs to {group}={' or '.join(others)}"
    elif near := _close(key, owner):
        hint = f"did you mean {' or '.join(assigned(other, value) for other in near)}?"
    else:
        hint = f"it has {', '.join(field.name for field in fields(owner))}"
    return f"{assigned(key, value)}: {_name(owner, group)} has no such setting; {hint}"


def no_such_choice(group: str, value: object, choices: Sequence[str]) -> str:
    """A choice of a group that has no file."""
    near = difflib.get_close_matches(str(value)[:LONGEST], choices, 1)
    hint = f"did you mean {group}={near[0]}? The" if near else "the"
    return f"{assigned(group, value)}: there is no such choice; {hint} choices are {', '.join(choices)}"


def no_such_kind(group: str, part: object) -> str:
    """The values of a group bear a name that no class of settings has."""
    key = told_apart_by(group)
    named = part.get(key) if isinstance(part, Mapping) else None
    return f"{assigned(f'{group}.{key}', named)}: must be one of {', '.join(groups()[group])}; set {group}=NAME"


def assigned(key: str, value: object) -> str:
    """``KEY=VALUE``, as it would be typed; the key alone where the value is settings of its own."""
    return shown(key) if isinstance(value, Mapping) else f"{shown(key)}={shown(value)}"


def shown(value: object) -> str:
    """A value as the command line has it, shortened; what would not print is escaped."""
    if isinstance(value, list | tuple):
        text = f"[{','.join(map(shown, value))}]"
    elif isinstance(value, bool) or value is None:
        text = {True: "true", False: "false", None: "null"}[value]
    else:
        text = str(value)
    short = text[:LONGEST]
    return f"{short if short.isprintable() else repr(short)}{'...' if len(text) > LONGEST else ''}"


def _what(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    return _OF_TYPE.get(fault["type"].split("_")[0], str(fault["msg"]))


def _remedy(kind: type[Any], key: str, places: Sequence[str], fault: Mapping[str, Any]) -> str:
    """What to set instead: the nearest of the few that there are, or what it is by default."""
    error = fault.get("ctx", {}).get("error")
    if isinstance(error, NotOneOf):
        near = difflib.get_close_matches(str(fault["input"])[:LONGEST], error.choices, 1)
        return f"; did you mean {near[0]}?" if near else ""
    owner = _owner(kind, places)
    default = next((default_of(f) for f in fields(owner) if f.name == places[-1]), MISSING) if owner else MISSING
    return "" if default == MISSING or isinstance(default, dict) else f"; for instance {assigned(key, default)}"


def _owner(kind: type[Any], places: Sequence[str]) -> type[Any] | None:
    """The class that has the setting at the end of a path; ``None`` where that is an entry of a mapping."""
    inner: Any = kind
    for place in places[:-1]:
        inner = get_type_hints(inner).get(place) if is_dataclass(inner) else next(iter(get_args(inner)[1:]), None)
    return inner if places and is_dataclass(inner) else None  # type: ignore[return-value]


def _name(owner: type[Any], group: str) -> str:
    """What a person calls the settings of a class."""
    if owner is Study:
        return "a study"
    own = {kind: name for kinds in groups().values() for name, kind in kinds.items()}
    return own.get(owner, owner.__name__.lower())


def _others_with(key: str, group: str) -> list[str]:
    """Other choices of a group that have this very setting."""
    return [name for name, kind in groups().get(group, {}).items() if key in keys_of(kind, f"{group}.")]


def _close(key: str, owner: type[Any]) -> list[str]:
    """Settings that may have been meant: of the very name elsewhere, or of one that is nearly the same."""
    *above, last = key.split(".")
    own = [".".join([*above, field.name]) for field in fields(owner)] if above else []
    known = list(dict.fromkeys([*own, *_all_keys()]))
    same = [other for other in known if other.split(".")[-1] == last and other != key]
    return same[:3] or difflib.get_close_matches(key[:LONGEST], known, 1, 0.75)


@cache
def _all_keys() -> list[str]:
    """Every setting of every choice, by its dotted key."""
    kinds = [(group, kind) for group, choices in groups().items() for kind in choices.values()]
    keys = [*groups(), *keys_of(Study), *(key for group, kind in kinds for key in keys_of(kind, f"{group}."))]
    return list(dict.fromkeys(keys))


def _leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    """Every value below a key that was set as a whole."""
    if isinstance(value, Mapping) and value:
        for inner, below in value.items():
            yield from _leaves(f"{key}.{inner}", below)
    else:
        yield key, value
