"""Backups one after the other: each in a folder named after its time, of which the newest are kept. How the last
attempt went stands in the server's folder, where Prometheus and the operators' hook find it.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from server.deployment.backup import LISTED, backup
from server.deployment.server_dir import ServerDir
from server.errors import BackupRefused
from tasks.machine.disk import private_folder, write_whole
from tasks.machine.supervision import only_one

_LONGEST_S = 6 * 3600.0
"""A backup that has not ended by then is lost: its process was killed."""
_NAME = "%Y-%m-%dT%H%M%SZ"
_NAMED = re.compile(r"\d{4}-\d{2}-\d{2}T\d{6}Z?")


@dataclass(frozen=True)
class Attempt:
    """The last backup that was tried; times in seconds since 1970.

    Attributes:
        ended: when, well or not; 0 for not yet.
        error: why it has failed; "" if it has not.
        newest: when the newest complete one was begun: it holds what was committed before; 0 for never.
    """

    began: float = 0.0
    ended: float = 0.0
    error: str = ""
    newest: float = 0.0

    def problem(self, now: float) -> str:
        """What is wrong, in a few words; "" if nothing is."""
        if self.error:
            return f"the last backup has failed: {self.error}"
        if self.began and not self.ended and now - self.began > _LONGEST_S:
            return "the last backup was begun and has not ended"
        return ""


def last(server_dir: ServerDir) -> Attempt:
    """How the last backup went; nothing where none was tried, or where that cannot be read."""
    try:
        return Attempt(**json.loads(server_dir.backed_up.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return Attempt()


@contextmanager
def noted(server_dir: ServerDir) -> Iterator[None]:
    """Note how the backup goes that is made in this block, whatever ends it; one at a time.

    Raises:
        BackupRefused: another one is being made.
    """
    with only_one(server_dir.path / "backup.lock") as alone:
        if not alone:
            raise BackupRefused("another backup is being made; wait for it")
        attempt = Attempt(began=time.time(), newest=last(server_dir).newest)
        _note(server_dir, attempt)
        try:
            yield
        except BaseException as error:
            _note(server_dir, replace(attempt, ended=time.time(), error=f"{type(error).__name__}: {error}"))
            raise
        _note(server_dir, replace(attempt, ended=time.time(), newest=attempt.began))


def add(server_dir: ServerDir, series: Path, keep: int) -> tuple[Path, list[str]]:
    """Make one more backup in a folder. Returns its own, and the studies whose files are damaged.

    What an attempt has left behind that failed goes first, since it takes room. The oldest ones go last: as many
    complete ones as wanted are there at every moment.

    Args:
        keep: so many of this server are kept.

    Raises:
        BackupRefused, OSError: as ``backup``.
    """
    private_folder(series)
    for path in _named(series):
        if not (path / LISTED).exists():
            shutil.rmtree(path)
    made = series / datetime.now(UTC).strftime(_NAME)
    damaged = backup(server_dir, made)
    complete = [path for path in _named(series) if _is_of(path, server_dir.settings.host)]
    for path in complete[:-keep]:
        (path / LISTED).unlink()  # first: what is half deleted is no backup
        shutil.rmtree(path)
    return made, damaged


def _named(series: Path) -> list[Path]:
    """Folders with the name of a backup, the oldest first; anything else in the folder is somebody else's."""
    return sorted(path for path in series.iterdir() if _NAMED.fullmatch(path.name) and path.is_dir())


def _is_of(path: Path, host: str) -> bool:
    with suppress(OSError, ValueError, TypeError, KeyError):
        return bool(json.loads((path / LISTED).read_text("utf-8"))["host"] == host)
    return False


def _note(server_dir: ServerDir, attempt: Attempt) -> None:
    with suppress(OSError):  # on a full disk a backup elsewhere is worth more than this note
        write_whole(server_dir.backed_up, json.dumps(asdict(attempt)).encode(), mode=0o600)
