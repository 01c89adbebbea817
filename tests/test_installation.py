"""What is installed without the extras: every program answers, and says which extra to install for what it lacks.

The modules of the extras are hidden from one process, which is a base installation as far as an import can tell.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks import task as tasks

ROOT = Path(__file__).parent.parent
EXTRAS = ("mlflow", "av", "tasks.phantoms")
"""What only extras install. Jinja2 is there all the same: torch needs it."""
HIDING = f"""
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = any(f"{{name}}.".startswith(f"{{extra}}.") for extra in {EXTRAS!r})
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


def _project(file: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / file).read_text("utf-8"))


def _base(words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program as a base installation would run it."""
    code = f"{HIDING}\n{words}"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)


def test_all_that_a_hospital_runs_imports_without_the_extras(tmp_path: Path) -> None:
    """The trainer's app, all commands, every task: and neither extra nor phantom is wanted by any of them."""
    modules = sorted(
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for package in ("client", "tasks")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" and "phantoms" not in path.parts
    )
    done = _base(f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\nprint('all')", tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("all", 0), done.stderr


def test_a_demo_without_phantoms_says_what_to_install(tmp_path: Path) -> None:
    drawing = "tasks.get('breast_ultrasound').draw_phantom(Path('x'), tasks.PhantomHospital('alder', 1), 0)"
    done = _base(f"from pathlib import Path\nfrom tasks import task as tasks\n{drawing}", tmp_path)
    assert "NoPhantoms: phantoms of breast_ultrasound are not installed: pip install 'consilium-fl[phantoms]'" in (
        done.stderr
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", ["consilium", "consilium_server"])
@pytest.mark.parametrize("words", [["--help"], ["experiment=demo"], ["init"], ["--version"]])
def test_the_coordinators_programs_say_what_to_install(program: str, words: list[str], tmp_path: Path) -> None:
    name = program.replace("_", "-")
    done = _base(f"sys.argv = {[name, *words]!r}\nfrom server import entry\nentry.{program}()", tmp_path)
    if words == ["--version"]:
        assert done.returncode == 0
        assert done.stdout.startswith(f"{name} ")
    else:
        assert done.returncode == 2
        assert "pip install 'consilium-fl[server]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_phantoms_are_in_no_wheel_but_their_own() -> None:
    assert _project("pyproject.toml")["tool"]["setuptools"]["packages"]["find"]["exclude"] == ["tasks.phantoms*"]
    assert _project("tasks/phantoms/pyproject.toml")["tool"]["setuptools"]["packages"]["find"]["include"] == [
        "tasks.phantoms*"
    ]
    folders = {path.parent.name for path in (ROOT / "tasks" / "phantoms").glob("*/__init__.py")}
    assert folders == {*tasks.clinical(), "template"}, "a folder without __init__.py would be left out"


@pytest.mark.parametrize("package", ["client", "conf", "server", "tasks"])
def test_a_wheel_carries_all_that_is_read_when_it_runs(package: str) -> None:
    """Catalogues, templates, choices, shipped models; but no page for readers, no picture, and nothing of containers
    except the example that ``init`` copies."""
    folder, patterns = ROOT / package, _project("pyproject.toml")["tool"]["setuptools"]["package-data"][package]
    carried = {path for pattern in patterns for path in folder.glob(pattern)}
    left_out = [
        path.relative_to(ROOT).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path not in carried
        and (path.name == "labels.md" or path.suffix not in {".py", ".pyc", ".md", ".png", ".svg"})
    ]
    assert [name for name in left_out if not name.startswith((f"{package}/container/", "tasks/phantoms/"))] == []
    assert all(any(folder.glob(pattern)) for pattern in patterns if pattern != "commit.txt"), "a pattern for nothing"


def test_one_release_has_one_version_and_one_description() -> None:
    project = _project("pyproject.toml")["project"]
    version = project["version"]
    phantoms = _project("tasks/phantoms/pyproject.toml")["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    released = re.search(rf"^## {re.escape(version)} - (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert phantoms["version"] == version
    assert phantoms["dependencies"] == [f"consilium-fl=={version}"]
    assert project["optional-dependencies"]["phantoms"] == [f"consilium-fl-phantoms=={version}"]
    assert released is not None
    assert (citation["version"], str(citation["date-released"])) == (version, released.group(1))
    assert (citation["title"], citation["license"]) == (
        f"Consilium: {_lower(project['description'])}",
        project["license"],
    )
    assert citation["keywords"] == project["keywords"]


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
