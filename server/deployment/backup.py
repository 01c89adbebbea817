"""A copy of the server's folder, taken while it runs, from which a server elsewhere goes on.

What depends on something else is copied before it. A submission is in the queue until its study has a folder, so the
queue comes first, and a study that is in both is recognised. The databases come next, each in one consistent state by
SQLite's own means (https://sqlite.org/backup.html). Every other file is replaced as a whole by those who write it, and
a study is copied again if it was committing a round in the meantime.

A backup contains the authority's key. It does not contain logs, nor what ``up`` makes anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from server.deployment import nginx
from server.deployment.server_dir import ServerDir, make, read
from server.errors import BackupRefused, CheckpointDamaged
from server.rounds import checkpoint
from tasks.machine.disk import private_folder, write_whole
from tasks.protocol.study import release

LISTED = "backup.json"
"""Names every file of a backup with its SHA-256; written last, so a backup without it is not complete."""
_RESTORING, _LOST_AND_FOUND, _SETTINGS = ".restoring", "lost+found", "server.yaml"
_DATABASES = ("superlink/state.db", "mlflow/mlflow.db")
_QUEUE, _STUDIES = "queue", "studies"
_MADE_ANEW = {"logs", "fence", "systemd", "up.lock", "up.json", "hospitals.lock", "backup.lock", "backed-up.json"}
_TRIES, _PAUSE_S = 10, 0.5


def backup(server_dir: ServerDir, folder: Path) -> list[str]:
    """Copy everything that cannot be made anew to a new folder. Returns the studies whose files are damaged.

    Raises:
        BackupRefused: the folder exists, or lies in the server's.
        OSError: there is no room, or something cannot be read.
    """
    home, folder = server_dir.path, folder.resolve()
    if folder.exists():
        raise BackupRefused(f"{folder} exists already; name a new folder for each backup")
    if folder.is_relative_to(home):
        raise BackupRefused(f"{folder} lies in the server's own folder, which a fault would take with it")
    private_folder(folder)
    for queued in sorted((home / _QUEUE).glob("*.json")):
        _copy(queued, folder / _QUEUE / queued.name)
    for name in _DATABASES:
        if (home / name).exists():
            _copy_database(home / name, folder / name)
    for path in _others(home):
        _copy(path, folder / path.relative_to(home))
    studies = sorted(path for path in (home / _STUDIES).iterdir() if path.is_dir())
    damaged = [study.name for study in studies if not _copy_study(study, folder / _STUDIES / study.name)]
    files = {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    listed = {"release": release(), "host": server_dir.settings.host, "at": at, "files": files}
    write_whole(folder / LISTED, json.dumps(listed, indent=1).encode(), 0o600)
    return damaged


def restore(folder: Path, home: Path) -> ServerDir:
    """Make a server's folder from a backup. It is complete or it is not there.

    Raises:
        BackupRefused: the backup is not complete or was changed, or there is something in ``home`` already.
        OSError: there is no room, or something cannot be read.
    """
    home = home.resolve()
    is_there = home.exists()
    if is_there and (not home.is_dir() or {path.name for path in home.iterdir()} - {_RESTORING, _LOST_AND_FOUND}):
        raise BackupRefused(f"{home} is not empty; restore to a new folder")
    files = _listed(folder)
    # A folder that exists may be a volume, which can be neither renamed nor replaced.
    partial = home / _RESTORING if is_there else home.with_name(f"{home.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    private_folder(partial)
    for name, digest in files.items():
        _copy(folder / name, partial / name)
        if _sha256(partial / name) != digest:
            raise BackupRefused(f"{folder / name} is not what was backed up; use another backup")
    if is_there:
        for path in sorted(partial.iterdir(), key=lambda path: path.name == _SETTINGS):  # without it there is no server
            path.rename(home / path.name)
        partial.rmdir()
    else:
        partial.rename(home)
    restored = make(home, read(home).settings)
    nginx.write(restored)
    return restored


def _listed(folder: Path) -> dict[str, str]:
    try:
        files = json.loads((folder / LISTED).read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupRefused(f"{folder} holds no complete backup: {error}") from error
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise BackupRefused(f"{folder} lacks {', '.join(missing[:5])}; use another backup")
    return {str(name): str(digest) for name, digest in files.items()}


def _others(home: Path) -> Iterator[Path]:
    """Files that are neither databases nor belong to a study or the queue."""
    for path in sorted(home.rglob("*")):
        top = path.relative_to(home).parts[0]
        name = str(path.relative_to(home))
        passing = path.suffix in (".partial", ".alive", ".heard") or name.startswith(_DATABASES)
        if path.is_file() and not passing and top not in _MADE_ANEW | {_QUEUE, _STUDIES}:
            yield path


def _copy_study(study: Path, target: Path) -> bool:
    """Copy a study's folder. Returns whether every checkpoint in it is whole."""
    for _ in range(_TRIES):
        shutil.rmtree(target, ignore_errors=True)
        for path in sorted(study.rglob("*")):
            if path.is_file() and path.suffix != ".partial":
                _copy(path, target / path.relative_to(study))
        if all(_is_whole(pointer.parent) for pointer in target.rglob("checkpoint.json")):
            return True
        time.sleep(_PAUSE_S)
    return False


def _is_whole(folder: Path) -> bool:
    try:
        checkpoint.read_state(folder)
    except CheckpointDamaged:
        return False
    return True


def _copy(path: Path, target: Path) -> None:
    """Copy a file for its owner alone; one that has been deleted meanwhile is left out."""
    private_folder(target.parent)
    try:
        content = path.open("rb")
    except FileNotFoundError:
        return
    with content, target.open("wb") as copied:
        target.chmod(0o600)
        shutil.copyfileobj(content, copied)


def _copy_database(path: Path, target: Path) -> None:
    private_folder(target.parent)
    source = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)
    with closing(source), closing(sqlite3.connect(target)) as copied:
        target.chmod(0o600)
        source.backup(copied)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
