"""Settings that say one thing twice, or nothing, are refused with their line; no YAML ends in a traceback."""

from __future__ import annotations

import pytest

from tasks.machine import yaml_text
from tasks.machine.yaml_text import BadYaml

WRONG = [
    ("cap: 1\nother: 2\ncap: 8\n", "cap is set twice, in lines 1 and 3; take one out"),
    ("policy:\n  cap: 1\n  cap: 8\n", "cap is set twice, in lines 2 and 3; take one out"),
    ("a:\n\tb: 1\n", "line 2.*indent with spaces, YAML takes no tabs"),
    ("a: 'x\n", "correct that line"),
    ("a: *nobody\n", "undefined alias.*correct that line"),
    ("a: !!python/object/apply:os.system [x]\n", "could not determine a constructor"),
    ("a: 2026-99-99\n", "month must be in"),
    ("? [1]\n: 2\n", "unhashable key"),
    ("a: 1\n---\nb: 2\n", "another document"),
    ("a: \0\n", "special characters are not allowed"),
    ("", "it holds no settings"),
    ("- a\n", "it holds no settings"),
    ("words\n", "it holds no settings"),
]


@pytest.mark.parametrize(("text", "told"), WRONG, ids=range(len(WRONG)))
def test_it_is_refused_in_words(text: str, told: str) -> None:
    with pytest.raises(BadYaml, match=told):
        yaml_text.values(text)


def test_what_is_written_once_is_read() -> None:
    assert yaml_text.values("a: 1\nb: {c: [2]}\n") == {"a": 1, "b": {"c": [2]}}
