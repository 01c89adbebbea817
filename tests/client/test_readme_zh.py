"""The first hour in Chinese gives the commands of the English page, and no others."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from typer.main import get_command

from client.cli.main import app
from client.site import SiteSettings

CLIENT = Path(__file__).parents[2] / "client"


def commands(page: str) -> list[str]:
    """What stands in its blocks of commands, without remarks."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = [line.split(" #")[0].strip() for kind, block in blocks if not kind for line in block.splitlines()]
    return [line for line in lines if line]


def is_accepted(line: str) -> bool:
    """Whether the parser of ``consilium-site`` takes a line; nothing is run."""
    program, *words = shlex.split(line)
    group = get_command(app)
    if program != "consilium-site" or not isinstance(group, click.Group):
        return False
    try:
        with click.Context(group, info_name=program) as above:
            while isinstance(group, click.Group) and words:
                name, found, words = group.resolve_command(above, words)
                if found is None:
                    return False
                if not isinstance(found, click.Group):
                    found.make_context(name, words, parent=above)
                    return True
                group = found
    except click.UsageError:
        return False
    return False


CHINESE = (CLIENT / "README.zh.md").read_text("utf-8")


@pytest.mark.parametrize("line", commands(CHINESE))
def test_every_command_stands_on_the_english_page(line: str) -> None:
    english = commands((CLIENT / "README.md").read_text("utf-8"))
    assert line in english or is_accepted(line)


def test_every_command_in_the_text_is_accepted() -> None:
    named = re.findall(r"`(consilium-site [^`]+)`", CHINESE)
    assert len(named) > 3
    assert [line for line in named if not is_accepted(line)] == []
    assert is_accepted("consilium-site check --html page.html")
    for wrong in ("consilium-site chek", "consilium-site check --htm page.html", "consilium check"):
        assert not is_accepted(wrong)


def test_the_settings_it_names_exist() -> None:
    source = re.search(r"^```yaml\n(.*?)^```", CHINESE, re.MULTILINE | re.DOTALL)
    assert source is not None
    example = (CLIENT / "container" / "site.example.yaml").read_text("utf-8")
    for line in source[1].replace("our-hospital", "example-hospital").splitlines():
        assert line.strip() in example
    assert "`lang: zh`" in CHINESE
    assert "lang" in SiteSettings.model_fields
