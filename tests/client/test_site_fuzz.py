"""Whatever stands in ``site.yaml``, it is settings that can be used or a sentence that says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from client.errors import SiteMisconfigured
from client.setup.provisioning import write_example
from client.site import SiteSettings, load

WRONG_YAML = [
    *("[" * 2_000, "name: 2020-13-45", f"name: {'1' * 5000}", "name: !!int x", "name: !!bool x", "name: !!int ''"),
    *(
        "name: !!timestamp x",
        "name: !!float x",
        "name: !!binary \xff",
        "? [a]\n: b",
        "<<: 3",
        "&a [*a]",
        "name: &x {b: *x}",
    ),
    *("", "[]", "\t", "\x01", "!!python/object/apply:os.system ['true']", "!!omap [a]", "- name", "name: 1: 2"),
]
SCALARS = [
    *(
        None,
        True,
        0,
        -1,
        2**70,
        1e308,
        -0.0,
        math.inf,
        -math.inf,
        math.nan,
        "",
        "\0",
        "a\0b",
        "\ud800",
        "x" * 5000,
        "../x",
    ),
    *("/", "1e400", "noised", "10", date(2026, 1, 1), b"\xff", [], {}, [None], {"kind": "folder"}, {"x": 1}),
]
JSON = st.sampled_from(SCALARS) | st.recursive(
    st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


def proper() -> dict[str, Any]:
    """One of each kind of source, in full."""
    dicom = {"task": "breast_ultrasound", "issuer": "a", "path": "dicom", "labels": "labels.csv"}
    scope = {"modalities": ["US"], "since": "2020-01-01"}
    sr = {"kind": "sr", "path": "sr", "concept": "finding", "positive": ["SCT:1"], "negative": ["SCT:2"]}
    return {
        "name": "st-anne",
        "public_size": 300,
        "server": "localhost:1",
        "policy": {"tasks": ["breast_ultrasound"], "max_epsilon_study": 3.0, "subgroups": ["sex"]},
        "sources": [
            {"kind": "folder"} | dicom,
            {"kind": "folder", "task": "breast_ultrasound", "issuer": "b", "path": "b", "annotations": sr},
            {"kind": "dicomweb", "url": "https://a/", "scope": scope} | dicom,
            {"kind": "dimse", "host": "a", "port": 104, "called_ae": "A", "tls": True, "scope": scope} | dicom,
        ],
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from places(below, (*path, key))


OPTIONAL = [
    *(
        ("policy", name)
        for name in ("max_delta", "min_patients", "max_rounds", "max_steps", "max_bins", "scores", "models")
    ),
    *(
        (name,)
        for name in ("max_cache_gigabytes", "max_memory_mb", "validation_fraction", "catalog", "log", "withdrawals")
    ),
    *(("sources", 2, name) for name in ("max_gigabytes", "attempts", "token", "holds", "page", "silence_seconds")),
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A file of which one to three places say something else, or are gone."""
    values = proper()
    for place in draw(st.lists(st.sampled_from([*places(values), *OPTIONAL]), min_size=1, max_size=3)):
        holder: Any = values
        with suppress(KeyError, IndexError, TypeError):
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = draw(JSON)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=draw(st.booleans()))
    at = draw(st.integers(0, len(text) * 3))
    return text if at > len(text) else text[:at] + draw(st.text(max_size=3)) + text[at + draw(st.integers(0, 4)) :]


def read(folder: Path, text: str) -> SiteSettings | None:
    path = folder / "site.yaml"
    path.write_text(text, "utf-8", "replace")
    try:
        return load(path)
    except SiteMisconfigured as refusal:
        assert str(path) in str(refusal)  # noqa: PT017
        return None


def numbers_and_paths(part: BaseModel) -> Iterator[float | Path]:
    for _, value in part:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, BaseModel):
                yield from numbers_and_paths(one)
            elif isinstance(one, float | Path):
                yield one


@given(text=mutated())
@settings(deadline=None)  # a busy machine
def test_settings_are_read_or_refused_in_words(folder: Path, text: str) -> None:
    found = read(folder, text)
    for one in () if found is None else numbers_and_paths(found):
        assert math.isfinite(one) if isinstance(one, float) else "\0" not in str(one) and one.is_absolute()


@given(text=st.text(max_size=60))
def test_any_text_is_refused_in_words(folder: Path, text: str) -> None:
    assert read(folder, text) is None


@pytest.mark.parametrize("text", WRONG_YAML, ids=lambda text: repr(text[:30]))
def test_yaml_that_is_wrong_is_refused_in_words(folder: Path, text: str) -> None:
    assert read(folder, text) is None


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("max_cache_gigabytes",), math.inf),
        (("sources", 2, "max_gigabytes"), math.inf),
        (("sources", 2, "silence_seconds"), math.inf),
        (("log",), "a\0b"),
        (("sources", 0, "labels"), "a\0b"),
        (("sources", 0, "issuer"), "\0"),
    ],
)
def test_no_bound_and_no_nul_is_a_setting(folder: Path, place: tuple[Any, ...], value: object) -> None:
    values: Any = proper()
    holder = values
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    assert read(folder, yaml.safe_dump(values)) is None


def test_what_is_proper_is_read(folder: Path, tmp_path: Path) -> None:
    assert read(folder, yaml.safe_dump(proper())) is not None
    write_example(tmp_path / "site.yaml", "st-anne")
    assert load(tmp_path / "site.yaml").name == "st-anne"
