"""`--version` names release and commit, however Consilium was installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tasks.machine import version
from tasks.protocol.study import release


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package that no commit is known of."""
    monkeypatch.setattr(version, "_PACKAGE", tmp_path / "checkout" / "tasks")
    monkeypatch.setattr(version, "_WRITTEN", tmp_path / "checkout" / "tasks" / "commit.txt")
    monkeypatch.setattr(version, "_noted_by_pip", lambda: "")
    (tmp_path / "checkout" / "tasks").mkdir(parents=True)
    return tmp_path / "checkout" / "tasks"


def _git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_an_installation_that_nobody_knows_says_so(package: Path) -> None:
    assert version.line("consilium-site") == f"consilium-site {release()} (commit unknown)"


def test_a_wheel_carries_its_commit(package: Path) -> None:
    (package / "commit.txt").write_text("0123456789abcdef0123\n")
    assert version.commit() == "0123456789ab"


def test_a_checkout_says_its_commit_and_whether_files_have_changed(package: Path) -> None:
    _git(package.parent, "init", "--quiet")
    (package / "task.py").write_text("a = 1\n")
    _git(package.parent, "add", "--all")
    _git(package.parent, "commit", "--quiet", "--message", "one")
    head = _git(package.parent, "rev-parse", "HEAD")
    assert version.commit() == head[:12]
    (package / "task.py").write_text("a = 2\n")
    assert version.commit() == f"{head[:12]}+"
