"""Which release runs here, and from which commit it was made."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import typer

from tasks.protocol.study import release

_PACKAGE = Path(__file__).parents[1]
_WRITTEN = _PACKAGE / "commit.txt"
"""Written by ``make wheels``, so that an image without Git knows it."""


def line(program: str) -> str:
    """What ``--version`` prints, such as ``consilium-site 0.2.0 (commit 1f0c33aa9b2e)``."""
    return f"{program} {release()} (commit {commit() or 'unknown'})"


def option(program: str) -> Any:
    """The option ``--version`` of a program whose commands Typer reads."""

    def show(wanted: bool) -> None:
        if wanted:
            print(line(program))
            raise typer.Exit

    return typer.Option("--version", callback=show, is_eager=True, help="Show release and commit, and exit.")


def commit() -> str:
    """The first twelve digits of the commit that is installed: as the wheel has it, as pip noted it, or as the checkout
    says; ``""`` if none knows. A ``+`` follows where files of the checkout have changed since."""
    if _WRITTEN.exists():
        return _WRITTEN.read_text("utf-8").strip()[:12]
    return _noted_by_pip() or _of_checkout()


def _noted_by_pip() -> str:
    """PEP 610: what was installed straight from a repository."""
    try:
        noted = json.loads(distribution("consilium-fl").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return ""
    return str(noted.get("vcs_info", {}).get("commit_id", ""))[:12]


def _of_checkout() -> str:
    if not (_PACKAGE.parent / ".git").exists():
        return ""
    git = ["git", "-C", str(_PACKAGE.parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip()[:12] + ("+" if changed.stdout.strip() else "")
