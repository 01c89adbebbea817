"""The server's unit of systemd: one, because ``consilium-server up`` keeps all of its programs running."""

from __future__ import annotations

import sys
from pathlib import Path

from server.deployment.server_dir import ServerDir
from tasks.machine.systemd import Service, write

USER = "consilium-server"
FOLDER = "systemd"
"""In the server's folder: what root installs."""
_BASE_MB, _STUDY_MB = 3072, 1024
"""Limits, not needs: of the server, and of each study that runs at the same time."""


def write_units(server_dir: ServerDir) -> list[Path]:
    """Write the unit of the server with this folder, and the script that installs it. Returns the files."""
    return write(server_dir.path / FOLDER, services(server_dir), [server_dir.path])


def services(server_dir: ServerDir) -> list[Service]:
    """The server with this folder."""
    s = server_dir.settings
    return [
        Service(
            "consilium-server",
            "Consilium: the coordinator's server",
            [str(Path(sys.executable).parent / "consilium-server"), "up", "--home", str(server_dir.path)],
            USER,
            server_dir.path,
            writes=[server_dir.path],
            reads=[server_dir.path / FOLDER],
            memory_mb=_BASE_MB + _STUDY_MB * s.studies_at_once,
            low_port=min(s.hospitals_port, s.researchers_port) < 1024,
        )
    ]
