"""From the plain values of a configuration to a ``Study`` and to every problem that they have, at once.

Three looks: at each setting by itself (its type, and what ``conf/schema`` asks of it), at keys that there are not, and,
once all types are right, at what does not go together (``conf/combinations.py``).

Tested in ``tests/conf/test_every_pair.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from itertools import islice
from typing import Any

from pydantic import TypeAdapter, ValidationError

from conf import combinations, messages
from conf.groups import groups, kind_of
from conf.schema.constraints import MISSING, TYPES_ALONE
from conf.schema.study import Study

_MOST = 50
"""Problems of one group that are told: the values may come from another machine, with any number of them."""


def judged(values: Mapping[str, object]) -> tuple[Study | None, list[str]]:
    """The study, where at least all types are right, and every problem with it."""
    parts, problems = _given(values), []
    for group in groups():
        part = parts.pop(group, {})
        if (kind := kind_of(group, part)) is None:
            problems.append(messages.no_such_kind(group, part))
            continue
        problems += _problems(kind, part, group)
        if (typed := _typed(kind, part)) is not None:
            parts[group] = typed
    problems += _problems(Study, parts, "")
    study = _typed(Study, parts) if parts.keys() >= groups().keys() else None
    if study is not None:
        problems += combinations.problems(study)
    return study, problems


def problems(study: Study) -> list[str]:
    """Every problem with a study that was put together by hand."""
    return judged(plain(study))[1]


def plain(study: Study) -> dict[str, Any]:
    """The configuration as JSON-ready nested dictionaries."""
    return {name: _listed(value) for name, value in asdict(study).items()}


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(below) for key, below in value.items()}
    return [_listed(below) for below in value] if isinstance(value, list | tuple) else value


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that are still to be given."""
    return {
        key: _given(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if not (isinstance(value, str) and value == MISSING)
    }


def _problems(kind: Any, part: object, group: str) -> list[str]:
    try:
        _adapter(kind).validate_python(part)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        told = [*islice((line for fault in faults for line in messages.of_fault(kind, group, fault)), _MOST + 1)]
        return told if len(told) <= _MOST else [*told[:_MOST], f"{group or 'the study'}: has more problems than these"]
    return []


def _typed(kind: Any, part: object) -> Any:
    """The settings, if only their types are right."""
    try:
        return _adapter(kind).validate_python(part, context=TYPES_ALONE)
    except ValidationError:
        return None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
