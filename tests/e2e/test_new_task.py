"""A task that ``consilium new-task`` has just written passes the suite of every task, and style and types with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.answers import KINDS

ROOT = Path(__file__).parents[2]
NAME = "thyroid_ultrasound"


@pytest.fixture(scope="module", params=KINDS)
def checkout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source with a new task of each kind in it."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("client", "conf", "server", "tasks", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "e2e"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    done = _run(copy, "-m", "server", "new-task", NAME, "--root", str(copy), "--kind", request.param)
    assert done.returncode == 0, done.stdout + done.stderr
    return copy


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python in the copy, which wins over the source that is installed."""
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )


def test_it_passes_the_suite_of_every_task_and_its_own(checkout: Path) -> None:
    where = ["tests/tasks/test_every_task.py", f"tests/tasks/phantoms/{NAME}", "tests/tasks/test_contract.py"]
    done = _run(checkout, "-m", "pytest", "-p", "no:cacheprovider", *where, "-k", NAME, "-rs")
    assert done.returncode == 0, done.stdout + done.stderr
    count = int(done.stdout.split(" passed")[0].split()[-1])
    assert count >= 16, done.stdout
    assert "skipped" not in done.stdout


def test_its_style_types_and_imports_are_those_of_the_house(checkout: Path) -> None:
    where = [f"tasks/{NAME}", f"tasks/phantoms/{NAME}", f"tests/tasks/phantoms/{NAME}"]
    for words in (
        ["ruff", "check", *where],
        ["ruff", "format", "--check", *where],
        ["mypy", "-p", f"tasks.phantoms.{NAME}"],
    ):
        done = _run(checkout, "-m", *words)
        assert done.returncode == 0, done.stdout + done.stderr
    done = _run(checkout, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_arrows.py")
    assert done.returncode == 0, done.stdout
