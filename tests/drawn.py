"""Phantoms that several tests want: each is drawn once a run, whichever process asks first, and copied."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from typing import NoReturn

from tasks.task import PhantomHospital, Task

SHARED = "CONSILIUM_TEST_PHANTOMS"
"""The variable that names a folder which all processes of a run share; ``tests/conftest.py`` sets it."""


def draw(task: Task, folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """As ``task.draw_phantom(folder, hospital, seed)``, which gives the same files for the same arguments."""
    asked = hashlib.sha256(f"{task.name} {hospital} {seed}".encode()).hexdigest()[:16]
    kept = Path(os.environ[SHARED]) / asked
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            task.draw_phantom(draft := kept.with_suffix(".draft"), hospital, seed)
            draft.rename(kept)
    shutil.copytree(kept, folder, dirs_exist_ok=True)


def undrawn(*_: object) -> NoReturn:
    """For commands that draw no phantoms."""
    raise AssertionError("no phantoms are drawn here")
