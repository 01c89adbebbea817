"""Every ``consilium ...`` on a page of the repository is a command: each is found and composed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from conf import load
from server.command_line import COMMANDS, in_place_of_a_study

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("client", "conf", "server", "tasks", "tests")
PAGES = [
    *sorted(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
    *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")),
    *sorted((ROOT / "conf" / "experiment").glob("*.yaml")),
]


def lines_of(page: Path) -> list[str]:
    """Commands in blocks of code, one a line as a shell would read it, and those in backticks or at a file's head."""
    text = page.read_text("utf-8")
    if page.suffix == ".yaml":
        return re.findall(r"^# (consilium .*)$", text, re.MULTILINE)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    whole = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    beside = re.findall(r"`(consilium [^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [*whole, *(" ".join(command.split()) for command in beside)]


def commands_of(page: Path) -> list[list[str]]:
    """The words after ``consilium``, without comments; what has an ellipsis is no whole command."""
    found = []
    for line in lines_of(page):
        if match := re.match(r"(?:\S*/)?consilium (?P<words>.*?)(?:   *[(#].*)?$", line):
            words = shlex.split(match["words"], comments=True)
            if "..." not in words:
                found.append(words)
    return found


COMMANDS_OF_PAGES = [
    pytest.param(words, id=f"{page.relative_to(ROOT)}: {' '.join(words)}")
    for page in PAGES
    for words in commands_of(page)
]


def test_commands_are_found() -> None:
    found = {page.relative_to(ROOT).as_posix() for page in PAGES if commands_of(page)}
    assert found >= {"README.md", "conf/README.md", "server/README.md", "CONTRIBUTING.md", "tasks/README.md"}
    assert found >= {f"conf/experiment/{path.name}" for path in (load.FOLDER / "experiment").glob("*.yaml")}


@pytest.mark.parametrize("words", COMMANDS_OF_PAGES)
def test_a_command_of_a_page_is_one(words: list[str]) -> None:
    if any(word.startswith(("hydra/launcher=", "hydra/sweeper=")) for word in words):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra `sweep` is not installed")
    if words[0] not in COMMANDS and words[0] != "--version":
        load.check(in_place_of_a_study(words))


def test_a_command_that_is_none_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "```\n.venv/bin/consilium experiment=dmo   # a comment\n```\nand `consilium seed=x`, `consilium ...`\n"
    )
    assert commands_of(page) == [["experiment=dmo"], ["seed=x"]]
    for words in commands_of(page):
        with pytest.raises(load.ConfigError):
            load.check(words)
