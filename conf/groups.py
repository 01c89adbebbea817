"""Which settings each group of a study may have: found in the modules of ``conf/schema/``, listed nowhere else.

A group is a field of ``Study`` whose type is a class of settings. Where its module has subclasses with a name of their
own, the choice of the group is told by that name (``kind`` in a federation), otherwise there is one class for all.

Tested in ``tests/conf/test_schema.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from conf.schema.constraints import MISSING
from conf.schema.study import Study

Kinds = Mapping[str, type[Any]]


@cache
def groups() -> dict[str, Kinds]:
    """The classes of each group by the name that tells them apart; a single one under the name of its group."""
    hints = get_type_hints(Study)
    return {name: _kinds(name, base) for name, base in hints.items() if isinstance(base, type) and is_dataclass(base)}


def _kinds(group: str, base: type[Any]) -> Kinds:
    key = told_apart_by(group)
    classes = [kind for kind in vars(sys.modules[base.__module__]).values() if isinstance(kind, type)]
    named = {
        vars(kind)[key]: kind for kind in classes if issubclass(kind, base) and vars(kind).get(key, MISSING) != MISSING
    }
    return named if len(named) > 1 else {group: base}


def told_apart_by(group: str) -> str:
    """The setting that tells the classes of a group apart."""
    return "kind" if group == "federation" else "name"


def kind_of(group: str, values: object) -> type[Any] | None:
    """The class whose name the values of a group bear; ``None`` where there is no such class."""
    kinds = groups()[group]
    if len(kinds) == 1:
        return next(iter(kinds.values()))
    name = values.get(told_apart_by(group)) if isinstance(values, Mapping) else None
    return kinds.get(name) if isinstance(name, str) else None


def defaults(kind: type[Any]) -> dict[str, Any]:
    """What the settings of a class are before anybody sets them; ``???`` where somebody must."""
    return {field.name: default_of(field) for field in fields(kind)}


def default_of(field: Any) -> Any:
    """The default of one field, as a YAML file would say it."""
    value = field.default
    if value is NO_DEFAULT:
        value = MISSING if field.default_factory is NO_DEFAULT else field.default_factory()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def keys_of(kind: type[Any], prefix: str = "") -> Iterator[str]:
    """Every setting of a class by its dotted key."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        inner = hints[field.name]
        if isinstance(inner, type) and is_dataclass(inner):
            yield from keys_of(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"
