"""The server's folder copied while it runs, and made again from a copy.

Tested in ``tests/server/deployment/test_backup.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.output import HERE, AsJson, HomeFolder, answer
from server.deployment import backup as copies
from server.deployment import backup_series
from server.deployment.server_dir import read

NewFolder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="A new folder on another disk; with --keep, the folder of them all.")
]
Keep = Annotated[int | None, typer.Option("--keep", min=1, help="Make another backup in FOLDER, keep so many of them.")]
BackupFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="What `consilium-server backup` wrote.")]


def backup(folder: NewFolder, keep: Keep = None, home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Copy everything that cannot be made anew to a new folder, also while the server runs. It contains keys.

    Exit code 1 if that fails, which the server's metrics and `notify` tell as well.
    """
    server_dir = read(home)
    with backup_series.noted(server_dir):
        if keep is None:
            damaged = copies.backup(server_dir, folder)
        else:
            folder, damaged = backup_series.add(server_dir, folder, keep)
    lines = [f"wrote {folder}; keep it as safe as the server: it contains the authority's key"]
    lines += [f"The files of study {name} are damaged, here as well as there" for name in damaged]
    answer(as_json, {"backup": folder, "damaged": damaged}, *lines)


def restore(folder: BackupFolder, home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Make the server's folder from a backup. The old server must never run again."""
    restored = copies.restore(folder, home)
    lines = [
        f"restored {restored.path}, from {folder}",
        f"Hospitals and researchers look for it at {restored.settings.host}. The old server must never run again.",
        f"Then: consilium-server up --home {restored.path}",
    ]
    answer(as_json, {"home": restored.path}, *lines)
