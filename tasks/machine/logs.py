"""Logs that stay small: a file and a few older ones beside it, ``NAME.1`` the youngest, all for their owner only."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Container
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from tasks.machine.disk import close_to_others, private_file, private_folder

OLDER = 3
"""So many older files are kept of each log."""
MEGABYTES = 10.0
"""Size at which a log is set aside, unless the settings say otherwise."""
_PIPE_BYTES = 2**20


def append(path: Path, content: bytes, most_bytes: int, older: int = OLDER) -> None:
    """Append to a log; one that would become larger than ``most_bytes`` is set aside first. Several processes may
    append to the same one. Whatever is no ordinary file, such as /dev/stderr, is only written to.

    Raises:
        OSError: it cannot be written, for instance because the disk is full.
    """
    while True:
        with private_file(path).open("ab") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and not path.is_symlink():
                fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_still(path, file.fileno()):  # another process has just set it aside
                    continue
                size = os.fstat(file.fileno()).st_size
                if size and size + len(content) > most_bytes:
                    set_aside(path, older)
                    continue
            file.write(content)
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def set_aside(path: Path, older: int = OLDER) -> None:
    """Give a log the name of its youngest older one, after those have moved up; the oldest is lost. An empty one takes
    its place. Whoever has it open goes on writing to what is now ``NAME.1`` until he opens it again.

    Raises:
        OSError: it cannot be renamed.
    """
    for number in range(older, 0, -1):
        younger = path if number == 1 else _numbered(path, number - 1)
        with suppress(FileNotFoundError):
            close_to_others(younger)
            younger.replace(_numbered(path, number))
    private_file(path)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def outgrown(path: Path, most_bytes: int) -> bool:
    """Whether a log that something else writes is larger than it should be."""
    try:
        return path.stat().st_size > most_bytes
    except OSError:
        return False


def size_of(folder: Path) -> int:
    """Bytes of all logs in a folder, older ones included."""
    total = 0
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                total += path.stat().st_size
    return total


def keep_newest(folder: Path, pattern: str, most: int, kept: Container[str] = ()) -> list[str]:
    """Delete the oldest logs of a pattern in a folder, such as those of single runs, with their older ones, until so
    many are left. Returns their names.

    Args:
        kept: names of logs that stay, however old they are.
    """
    dated = dict[str, int]()
    for path in folder.glob(f"{pattern}*"):
        name = path.name if fnmatch(path.name, pattern) else path.stem
        with suppress(OSError):
            dated[name] = max(dated.get(name, 0), path.stat().st_mtime_ns)
    may_go = sorted((name for name in dated if name not in kept), key=lambda name: dated[name])
    dropped = may_go[: max(0, len(dated) - most)]
    for name in dropped:
        for path in (folder / name, *(_numbered(folder / name, number) for number in range(1, OLDER + 1))):
            path.unlink(missing_ok=True)
    return dropped


class Output:
    """Keeps what a program prints in a log of bounded size.

    Nothing is raised and the program is never held up: what a full disk does not take is lost, and counted in the log
    once there is room again.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path, self._most_bytes = path, most_bytes
        self._lost, self._why = 0, ""

    def pipe(self) -> tuple[int, threading.Thread]:
        """A descriptor for a program to write to, and the thread that keeps what it writes; whoever has started the
        program closes the descriptor.

        Raises:
            OSError: too many files are open.
        """
        read_end, write_end = os.pipe()
        with suppress(OSError):  # more than this user may have
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        thread = threading.Thread(target=self.take_all, args=(read_end,), daemon=True, name=f"log {self._path.name}")
        thread.start()
        return write_end, thread

    def take_all(self, descriptor: int) -> None:
        """Read from a pipe until everybody has closed its other end."""
        with open(descriptor, "rb", buffering=0) as pipe:
            while piece := pipe.read(65536):
                self._take(piece)

    def _take(self, piece: bytes) -> None:
        gap = f"[{self._lost} bytes of output are missing here: {self._why}]\n".encode() if self._lost else b""
        try:
            private_folder(self._path.parent)
            append(self._path, gap + piece, self._most_bytes)
            self._lost = 0
        except OSError as error:
            self._lost, self._why = self._lost + len(piece), os.strerror(error.errno or errno.EIO)
