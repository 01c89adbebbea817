"""The README of a folder names what lies in it, so that nothing is there which a newcomer is not told about.

Every file and sub-folder beside it must stand in backticks in one of its tables. Where a README describes its
sub-folders as well, their files must stand there too.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("server", "server/strategy", "tasks", "client", "conf", "conf/experiment")
WITH_SUB_FOLDERS = ("server", "tasks")
"""Their READMEs name the files of every sub-folder that has no README of its own."""
SELF_EVIDENT = {"__init__.py", "README.md", "__pycache__", "py.typed"}


def named(readme: str) -> set[str]:
    """All that stands in backticks in the tables of a README."""
    rows = [line for line in readme.splitlines() if line.startswith("|")]
    return {name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)}


def missing(names: set[str], beside: list[Path]) -> list[str]:
    """Which of the files and folders the names leave out; a YAML file may be named as the choice that it is."""
    return [
        path.name
        for path in sorted(beside)
        if path.name not in names and not (path.suffix == ".yaml" and path.stem in names)
    ]


def beside(folder: Path) -> list[Path]:
    """The files and folders in a folder that need a word; an empty one left behind by a move is not there for Git."""
    return [path for path in folder.iterdir() if path.name not in SELF_EVIDENT and (path.is_file() or any_file(path))]


def any_file(folder: Path) -> bool:
    return any(path.is_file() and "__pycache__" not in path.parts for path in folder.rglob("*"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_readme_names_every_file_and_folder_beside_it(folder: str) -> None:
    names = named((ROOT / folder / "README.md").read_text("utf-8"))
    assert missing(names, beside(ROOT / folder)) == []


@pytest.mark.parametrize("folder", WITH_SUB_FOLDERS)
def test_it_names_the_files_of_its_sub_folders(folder: str) -> None:
    names = named((ROOT / folder / "README.md").read_text("utf-8"))
    rooms = [path for path in beside(ROOT / folder) if path.is_dir() and not (path / "README.md").exists()]
    assert {room.name: missing(names, beside(room)) for room in rooms} == {room.name: [] for room in rooms}


@pytest.mark.parametrize("folder", FOLDERS)
def test_its_tables_name_no_file_that_is_gone(folder: str) -> None:
    names = {name for name in named((ROOT / folder / "README.md").read_text("utf-8")) if re.fullmatch(r"\w+\.py", name)}
    there = {path.name for path in (ROOT / folder).rglob("*.py")}
    assert names - there == set()


def test_a_file_that_is_left_out_would_be_seen() -> None:
    readme = "Text about `round.py`.\n\n| file | |\n|---|---|\n| `state.py`, `pages/` | words |\n| `demo` | a study |\n"
    files = [Path("round.py"), Path("state.py"), Path("pages"), Path("demo.yaml"), Path("other.yaml")]
    assert missing(named(readme), files) == ["other.yaml", "round.py"]
