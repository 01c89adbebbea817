"""Commands of hospital and server on the tutorials are what the programs take: each command, each option."""

from __future__ import annotations

import re
import shlex

import click
import pytest
import typer

from client.cli.main import app as hospital
from server.cli.main import app as server
from tests.documentation.gather import ROOT

PAGES = ("client/APPROVING.md", "server/TWO_MACHINES.md", "server/MODEL.md", "conf/federation/README.md")
PROGRAMS = {"consilium-site": hospital, "consilium-server": server}


def written(page: str) -> list[list[str]]:
    """The words of each command of a hospital or a server, in blocks of code."""
    text = (ROOT / page).read_text("utf-8")
    lines = [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.split(" ")[0] in PROGRAMS]


COMMANDS = [pytest.param(words, id=f"{page}: {' '.join(words)}") for page in PAGES for words in written(page)]


def command_of(words: list[str]) -> click.Command:
    """The command that the words name.

    Raises:
        KeyError: there is none.
    """
    program = typer.main.get_command(PROGRAMS[words[0]])
    assert isinstance(program, click.Group)
    found = program.commands[words[1]]
    inner = isinstance(found, click.Group) and len(words) > 2 and not words[2].startswith("-")
    return found.commands[words[2]] if isinstance(found, click.Group) and inner else found


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_a_tutorial_is_one_with_these_options(words: list[str]) -> None:
    options = {name for parameter in command_of(words).params for name in parameter.opts}
    assert [word for word in words[1:] if word.startswith("--") and word not in options] == []


def test_the_tutorials_have_commands_and_a_wrong_one_would_be_seen() -> None:
    assert len(COMMANDS) > 20
    with pytest.raises(KeyError):
        command_of(["consilium-site", "aprove"])
