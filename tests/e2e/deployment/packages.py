"""Debian packages that the tests install where they may."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


def debian(packages: dict[str, str]) -> None:
    """Install the package of each program that is missing; skip where that is impossible."""
    missing = [package for program, package in packages.items() if shutil.which(program, path=_PATH) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip(f"needs the Debian packages {' '.join(missing)}; only root on Debian can install them")
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True)
