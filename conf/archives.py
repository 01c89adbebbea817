"""From the file of a public archive to the settings that follow from its name, for ``experiment=medmnist``.

A YAML file says ``${archive_task:${archive}}``, ``${archive_folder:...}`` and ``${archive_file:...}``.
"""

from __future__ import annotations

import re
from pathlib import Path

PUBLISHED = re.compile(r"([a-z]+mnist(?:3d)?)(?:_(?:64|128|224))?\.npz")
"""How MedMNIST calls its files: without a number images have 28 pixels."""


def task_of(archive: str) -> str:
    """The task that an archive's published name stands for, such as ``pathmnist``; of another name the name itself.

    >>> task_of("sets/organmnist3d_64.npz")
    'organmnist3d'
    """
    found = PUBLISHED.fullmatch(Path(archive).name)
    return found[1] if found else Path(archive).stem


def folder_of(archive: str) -> str:
    """The folder that an archive is in; "" for none."""
    return str(Path(archive).parent) if archive else ""


def file_of(archive: str) -> str:
    """An archive's name without its folder."""
    return Path(archive).name


MEANINGS = {"archive_task": task_of, "archive_folder": folder_of, "archive_file": file_of}
"""Of the words."""
