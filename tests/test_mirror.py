"""A module's test is where one looks for it, or the module says where: its docstring ends with ``Tested in ...``."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("client", "conf", "server", "tasks")
_SAYS_WHERE = re.compile(r"Tested in ``(tests/[\w/]+\.py)``\.")


def modules() -> list[str]:
    return [
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py"
    ]


def beside(file: str) -> list[Path]:
    """The tests of a module at the mirrored place."""
    path = Path(file)
    folder = ROOT / "tests" / path.parent
    return [*folder.glob(f"test_{path.stem}.py"), *folder.glob(f"test_{path.stem}_*.py")]


@cache
def imported(file: str) -> frozenset[str]:
    """The files of the repository that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            place = name.replace(".", "/")
            found |= {path for path in (f"{place}.py", f"{place}/__init__.py") if (ROOT / path).is_file()}
    return frozenset(found)


def reached(file: str) -> set[str]:
    """All files of the repository that a file imports, by whatever detour."""
    done: set[str] = set()
    ahead = [file]
    while ahead:
        for other in imported(ahead.pop()) - done:
            done.add(other)
            ahead.append(other)
    return done


def reaches(test: str, file: str) -> bool:
    """Whether a test imports a file, by whatever detour, or starts it as a program."""
    return file in reached(test) or Path(file).stem in (ROOT / test).read_text("utf-8")


def says_where(file: str) -> str | None:
    told = _SAYS_WHERE.search(ast.get_docstring(ast.parse((ROOT / file).read_text("utf-8"))) or "")
    return told.group(1) if told else None


def test_every_module_has_its_test_beside_it_or_says_where() -> None:
    homeless = [file for file in modules() if not beside(file) and says_where(file) is None]
    assert homeless == []


def test_what_modules_say_is_so() -> None:
    told = {file: test for file in modules() if (test := says_where(file))}
    assert [file for file, test in told.items() if not (ROOT / test).is_file()] == []
    assert [file for file, test in told.items() if not reaches(test, file)] == []
    assert [file for file in told if beside(file)] == [], "these have a test beside them"
    assert not reaches("tests/client/ledger/test_chain.py", "server/rounds/round.py"), "or all would be reached"
