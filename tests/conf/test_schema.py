"""The settings themselves: each is explained, and each number has a constraint beside it."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from pydantic import AfterValidator, PlainValidator, TypeAdapter, ValidationError

from conf.groups import defaults, groups
from conf.load import FOLDER
from conf.schema.constraints import TYPES_ALONE
from conf.schema.evaluation import Gate
from conf.schema.federation import Phantom
from conf.schema.report import LANGUAGES, Report
from conf.schema.study import Study

KINDS = [Study, Gate, Phantom, *(kind for kinds in groups().values() for kind in kinds.values())]
NEEDED = {
    "patients": 9,
    "archive": "set.npz",
    "sizes": {"elm": 9},
    "address": "server:8444",
    "name": "chest_xray",
    "authority": "authority.crt",
    "certificate": "me.pem",
    "entry": "my_package.net:build",
    "hospitals": {"elm": Phantom(patients=9)},
}
FILES = sorted((FOLDER / "schema").glob("*.py"))


def numbers(hint: Any, guarded: bool = False) -> Iterator[bool]:
    """Of each number in an annotation, whether a constraint of ours stands beside it."""
    if get_origin(hint) is Annotated:
        inner, *beside = get_args(hint)
        ours = any(isinstance(mark, AfterValidator | PlainValidator) for mark in beside)
        yield from numbers(inner, guarded or ours)
    elif hint in (int, float):
        yield guarded
    elif get_origin(hint) is not None:
        for inner in get_args(hint):
            yield from numbers(inner, guarded and get_origin(hint) is tuple)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_number_has_a_constraint_beside_it(kind: type[Any]) -> None:
    """A setting that nobody checks would let a senseless value through to a hospital."""
    hints = get_type_hints(kind, include_extras=True)
    assert [field.name for field in fields(kind) if not all(numbers(hints[field.name]))] == []


def test_a_number_without_a_constraint_would_be_seen() -> None:
    assert [*numbers(int), *numbers(float | None), *numbers(dict[str, int])] == [False] * 3
    assert not all(numbers(Annotated[list[int], AfterValidator(bool)]))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_float_is_ever_nan_and_no_number_is_true(kind: type[Any]) -> None:
    given = {name: value for name, value in defaults(kind).items() if isinstance(value, int | float)}
    for name in (name for name, value in given.items() if not isinstance(value, bool)):
        for senseless in (math.nan, True):
            with pytest.raises(ValidationError) as caught:
                TypeAdapter(kind).validate_python({name: senseless})
            assert (name,) in [fault["loc"] for fault in caught.value.errors()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_default_keeps_its_own_constraint(kind: type[Any]) -> None:
    given = {name: value for name, value in defaults(kind).items() if value != "???" and not isinstance(value, dict)}
    if kind is Study:
        given = {name: value for name, value in given.items() if name not in groups()}
    missing = {name: value for name, value in NEEDED.items() if defaults(kind).get(name) == "???"}
    assert TypeAdapter(kind).validate_python(given | missing) == kind(**given, **missing)


def test_a_look_at_types_alone_lets_every_value_of_the_right_type_pass() -> None:
    adapter = TypeAdapter(next(iter(groups()["training"].values())))
    assert adapter.validate_python({"steps": -1, "momentum": 7}, context=TYPES_ALONE).steps == -1
    with pytest.raises(ValidationError):
        adapter.validate_python({"steps": "many"}, context=TYPES_ALONE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_field_of_the_schema_is_documented(file: Path) -> None:
    bare = []
    for kind in (node for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.ClassDef)):
        assert ast.get_docstring(kind), kind.name
        for line, after in zip(kind.body, [*kind.body[1:], None], strict=True):
            if (
                isinstance(line, ast.AnnAssign)
                and not ast.unparse(line.target).startswith("__")
                and not _is_text(after)
            ):
                bare.append(f"{kind.name}.{ast.unparse(line.target)}")
    assert bare == []


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def test_every_class_of_settings_is_found() -> None:
    """A class with a name of its own is a choice; nothing lists them."""
    found = {kind for kinds in groups().values() for kind in kinds.values()}
    for group in groups():
        module = ast.parse((FOLDER / "schema" / f"{group}.py").read_text("utf-8"))
        names = {node.name for node in module.body if isinstance(node, ast.ClassDef)}
        assert names - {kind.__name__ for kind in found} <= {
            *("ModelSettings", "Deep", "StrategySettings", "Robust", "Federation", "Phantom", "Gate"),
        }
    assert all(is_dataclass(kind) for kind in found)


@pytest.mark.parametrize("group", sorted(group for group, kinds in groups().items() if len(kinds) > 1))
def test_every_class_has_a_file_that_builds_on_it(group: str) -> None:
    texts = [file.read_text("utf-8") for file in (FOLDER / group).glob("*.yaml")]
    assert [name for name in groups()[group] if not any(f"defaults: [_{name}]" in text for text in texts)] == []


def test_a_report_speaks_the_languages_that_there_are() -> None:
    report = TypeAdapter(Report)
    assert [report.validate_python({"language": name}).language for name in LANGUAGES] == list(LANGUAGES)
    with pytest.raises(ValidationError, match="en, zh, de"):
        report.validate_python({"language": "fr"})
