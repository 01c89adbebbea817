"""``consilium new-task``: what it writes, and that it overwrites nothing. What it wrote is run in ``tests/e2e``."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from server import commands
from tasks import new_task
from tasks.answers import KINDS, Kind
from tasks.new_task import NewTaskRefused, create
from tasks.template import TASK as TEMPLATE
from tests.drawn import undrawn


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of the source as the command looks at."""
    for folder in ("tasks/template", "tasks/phantoms/template", "tests/tasks/phantoms/template", "conf/task"):
        shutil.copytree(new_task.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(new_task.ROOT / "tasks" / "README.md", tmp_path / "tasks")
    (tmp_path / "tasks" / "losses.py").touch()
    (tmp_path / "tasks" / "phantoms" / "fields.py").touch()
    return tmp_path


def _everything(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_it_writes_the_files_of_a_task_under_its_own_name(checkout: Path) -> None:
    before = _everything(checkout)
    written = create("thyroid_ultrasound", checkout)
    new = {path: data for path, data in _everything(checkout).items() if before.get(path) != data}
    names = {path.name for path in (new_task.ROOT / "tasks" / "template").iterdir() if path.is_file()}
    assert names == {"__init__.py", "example.py", "contract.yaml", "labels.md"}
    assert new.keys() == {
        *(f"tasks/thyroid_ultrasound/{name}" for name in names),
        "tasks/phantoms/thyroid_ultrasound/__init__.py",
        "tasks/phantoms/thyroid_ultrasound/phantom.py",
        "tests/tasks/phantoms/thyroid_ultrasound/test_phantom.py",
        "conf/task/thyroid_ultrasound.yaml",
        "tasks/README.md",
    }
    assert all(path.exists() for path in written)
    for path, data in new.items():
        assert path == "tasks/README.md" or b"template" not in data, path
        if path.endswith(".py"):
            ast.parse(data)
    assert yaml.safe_load(new["tasks/thyroid_ultrasound/contract.yaml"])["task"] == "thyroid_ultrasound"
    assert yaml.safe_load(new["conf/task/thyroid_ultrasound.yaml"]) == {
        "defaults": ["_task"],
        "name": "thyroid_ultrasound",
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "binary"])
def test_a_task_of_another_kind_declares_its_answer(checkout: Path, kind: Kind) -> None:
    create("thyroid_ultrasound", checkout, kind)
    source = (checkout / "tasks" / "thyroid_ultrasound" / "__init__.py").read_text("utf-8")
    ours = source.replace("tasks.thyroid_ultrasound.example", "tasks.template.example")
    defined: dict[str, Any] = {}
    exec(compile(ours, "thyroid_ultrasound", "exec"), defined)
    task = defined["TASK"]
    assert task.answer.kind == kind
    card = (checkout / "tasks" / "thyroid_ultrasound" / "labels.md").read_text("utf-8")
    assert f"**Answer.** {task.answer.permitted}." in card
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--diff", "--line-length", "120", "-"],
        input=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_table_of_tasks_gains_one_row_in_its_place(checkout: Path) -> None:
    table = checkout / "tasks" / "README.md"
    before = table.read_text("utf-8").split("\n")
    create("nodule_ct", checkout)
    after = table.read_text("utf-8").split("\n")
    row = f"| `nodule_ct` | {TEMPLATE.question} | {TEMPLATE.classes[0]}, {TEMPLATE.classes[1]} |"
    assert [line for line in after if line != row] == before
    place = after.index(row)
    assert after[place - 1].startswith("| `lung_ultrasound`")
    assert after[place + 1].startswith("| `pneumonia_xray`")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "Thyroid", "thyroid ultrasound", "thyroid-ultrasound", "9th", "_x", "x_", "a__b",
     "class", "x" * 41, "ä", "x\n", "template.py"],
)  # fmt: skip
def test_bad_names_are_refused_and_nothing_is_written(checkout: Path, name: str) -> None:
    before = _everything(checkout)
    with pytest.raises(NewTaskRefused, match="cannot name a task"):
        create(name, checkout)
    assert _everything(checkout) == before


@given(name=st.text(max_size=12))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    problems = new_task._naming(name)
    assert problems or (name.isidentifier() and Path(name).name == name)


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("template", "tasks/template"),
        ("losses", "tasks/losses.py"),
        ("fields", "tasks/phantoms/fields.py"),
        ("lung_ultrasound", "conf/task/lung_ultrasound.yaml"),
    ],
)
def test_what_is_there_is_not_overwritten(checkout: Path, name: str, there: str) -> None:
    before = _everything(checkout)
    with pytest.raises(NewTaskRefused, match="already exists") as caught:
        create(name, checkout)
    assert str(checkout / there) in str(caught.value)
    assert _everything(checkout) == before


def test_an_installed_package_is_no_checkout(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    with pytest.raises(NewTaskRefused, match=r"(?s)not a checkout.*--root FOLDER"):
        create("thyroid_ultrasound", tmp_path)


def test_a_failure_half_way_leaves_nothing_behind(checkout: Path) -> None:
    before = _everything(checkout)
    table = checkout / "tasks" / "README.md"
    real = Path.write_text

    def failing(self: Path, *words: str) -> int:
        if self == table:
            raise OSError("disk full")
        return real(self, *words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", failing)
        with pytest.raises(OSError, match="disk full"):
            create("thyroid_ultrasound", checkout)
    assert not (checkout / "tasks" / "thyroid_ultrasound").exists()
    assert not (checkout / "tasks" / "phantoms" / "thyroid_ultrasound").exists()
    assert not (checkout / "tests" / "tasks" / "phantoms" / "thyroid_ultrasound").exists()
    assert _everything(checkout).keys() <= before.keys()


def test_the_command_says_what_it_did_or_why_not(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["new-task", "thyroid_ultrasound", "--root", str(checkout)], undrawn) == 0
    assert "tests/tasks/test_every_task.py -k thyroid_ultrasound" in capsys.readouterr().out
    assert commands.main(["new-task", "thyroid_ultrasound", "--root", str(checkout)], undrawn) == 2
    assert "already exists" in capsys.readouterr().out
