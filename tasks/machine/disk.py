"""Files that are whole, whatever happens while they are written, and files and folders that their owner alone can read.

Modes are set, not left to the process's umask, and set again where an older release or a copy left them open. What
belongs to another user is left alone; the security checklists tell of it.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OTHERS = 0o077


def keep_to_owner() -> None:
    """Whatever this process and its children make from now on is for their owner alone, libraries' files included."""
    os.umask(_OTHERS)


def private_folder(path: Path) -> Path:
    """Make a folder, and what is missing above it, that its owner alone can enter; one that is there is closed to
    others. Returns it.

    Raises:
        OSError: it cannot be made.
    """
    for missing in reversed([one for one in path.parents if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    close_to_others(path)
    return path


def private_tree(path: Path) -> Path:
    """``private_folder``, and all that lies in it is closed to others. Returns it.

    Raises:
        OSError: it cannot be made or looked at.
    """
    private_folder(path)
    for one in list(open_to_others(path)):
        with suppress(FileNotFoundError):  # it went meanwhile
            close_to_others(one)
    return path


def private_file(path: Path) -> Path:
    """Make an empty file that its owner alone can read; one that is there is closed to others and keeps its content.
    Returns it.

    For files that something else opens afterwards, such as a log or a database. One that is there is not opened here:
    closing it would take SQLite's locks away from this process (https://sqlite.org/howtocorrupt.html, section 2.2).

    Raises:
        OSError: it cannot be made.
    """
    if not path.exists():  # nor is what it links to there, which is then made
        with suppress(FileExistsError):  # somebody else has made it this very moment
            os.close(os.open(os.path.realpath(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    close_to_others(path)
    return path


def private_database(path: Path) -> Path:
    """``private_file`` for a SQLite database in a folder of its own, and for what SQLite keeps beside it. Returns it.

    Raises:
        OSError: it cannot be made.
    """
    private_folder(path.parent)
    for beside in ("-wal", "-shm", "-journal"):  # SQLite makes them with the mode of the database
        with suppress(FileNotFoundError):
            close_to_others(path.with_name(path.name + beside))
    return private_file(path)


def close_to_others(path: Path) -> None:
    """Take every right to one of our files or folders from everybody but its owner.

    Nothing happens where that is so already, where the path is neither file nor folder, such as /dev/stderr, and where
    it is not ours or lies on a disk that cannot be written.

    Raises:
        FileNotFoundError: it is not there.
    """
    found = path.stat()
    ours = found.st_uid == os.geteuid() and (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode))
    if ours and found.st_mode & _OTHERS:
        with suppress(OSError):
            path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)


def open_to_others(path: Path) -> Iterator[Path]:
    """The file or folder itself and all below it of which others than the owner may do anything, links followed.

    Raises:
        OSError: it cannot be looked at, for instance because it is not there or not ours.
    """
    yield from _open_to_others(path, set())


def _open_to_others(path: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    found = path.stat()
    if (found.st_dev, found.st_ino) in seen:
        return
    seen.add((found.st_dev, found.st_ino))
    if found.st_mode & _OTHERS and (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        yield path
    if stat.S_ISDIR(found.st_mode):
        for below in sorted(path.iterdir()):
            with suppress(FileNotFoundError):  # it went meanwhile, or is a link to nothing
                yield from _open_to_others(below, seen)


def write_whole(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file such that a crash leaves the old one or the new one, never half of it.

    Args:
        mode: of the file, less the process's umask.
    """
    partial = path.with_name(path.name + ".partial")
    _write(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), content)
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name must survive as well
    finally:
        os.close(folder)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, in a folder likewise; who reads meets the old one or the new one.

    It does not wait for the disk: for what can be made again when the power fails.

    Raises:
        OSError: it cannot be written.
    """
    private_folder(path.parent)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")  # several may write it at once
    try:
        _write(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), content, sync=False)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_secret(path: Path, content: bytes) -> None:
    """A new file that its owner alone can read.

    Raises:
        FileExistsError: there is one already.
    """
    _write(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), content)


def _write(descriptor: int, content: bytes, sync: bool = True) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())
