"""Files written atomically, and files and folders that only their owner can read.

Modes are set explicitly, not left to the process's umask, and corrected where an older release or a copy left them
open. Files of another user are not changed; the security checklists report them.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OTHERS = 0o077


def keep_to_owner() -> None:
    """From now on, files that this process, its children and libraries create are for their owner only."""
    os.umask(_OTHERS)


def private_folder(path: Path) -> Path:
    """Create a folder, and missing parents, that only its owner can enter; an existing one is closed to others. Returns
    it.

    Raises:
        OSError: it cannot be created.
    """
    for missing in reversed([one for one in path.parents if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    close_to_others(path)
    return path


def private_tree(path: Path) -> Path:
    """``private_folder``, with everything in it closed to others. Returns it.

    Raises:
        OSError: it cannot be created or read.
    """
    private_folder(path)
    for one in list(open_to_others(path)):
        with suppress(FileNotFoundError):  # it was deleted meanwhile
            close_to_others(one)
    return path


def private_file(path: Path) -> Path:
    """Create an empty file that only its owner can read; an existing one is closed to others and keeps its content.
    Returns it.

    For files that something else opens afterwards, such as a log or a database. An existing one is not opened here:
    closing it would release this process's SQLite locks (https://sqlite.org/howtocorrupt.html, section 2.2).

    Raises:
        OSError: it cannot be created.
    """
    if not path.exists():  # nor does the target of a link, which is then created
        with suppress(FileExistsError):  # another process has just created it
            os.close(os.open(os.path.realpath(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    close_to_others(path)
    return path


def private_database(path: Path) -> Path:
    """``private_file`` for a SQLite database in a folder of its own, and for SQLite's files beside it. Returns it.

    Raises:
        OSError: it cannot be created.
    """
    private_folder(path.parent)
    for beside in ("-wal", "-shm", "-journal"):  # SQLite creates them with the mode of the database
        with suppress(FileNotFoundError):
            close_to_others(path.with_name(path.name + beside))
    return private_file(path)


def close_to_others(path: Path) -> None:
    """Remove all permissions of other users from one of our files or folders.

    Nothing happens if there are none, if the path is neither file nor folder, such as /dev/stderr, or if it is not ours
    or on a read-only disk.

    Raises:
        FileNotFoundError: it does not exist.
    """
    status = path.stat()
    ours = status.st_uid == os.geteuid() and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))
    if ours and status.st_mode & _OTHERS:
        with suppress(OSError):
            path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)


def open_to_others(path: Path) -> Iterator[Path]:
    """Those of a file or folder and all below it on which other users have any permission, links followed.

    Raises:
        OSError: it cannot be read, for instance because it does not exist or is not ours.
    """
    yield from _open_to_others(path, set())


def _open_to_others(path: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = path.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    if status.st_mode & _OTHERS and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        yield path
    if stat.S_ISDIR(status.st_mode):
        for below in sorted(path.iterdir()):
            with suppress(FileNotFoundError):  # it was deleted meanwhile, or is a broken link
                yield from _open_to_others(below, seen)


def write_whole(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of it, whoever else writes it.

    Args:
        mode: of the file, minus the process's umask.
    """
    partial = path.with_name(path.name + ".partial")  # what a crash has left of an earlier one is written over
    descriptor = _draft(partial, mode)
    held = os.dup(descriptor)
    try:
        _write(descriptor, content)
        partial.replace(path)
    finally:
        os.close(held)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name must survive as well
    finally:
        os.close(folder)


def _draft(path: Path, mode: int) -> int:
    """Descriptor of an empty file under this name that nobody else has while it, or a copy of it, is open."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, mode)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):  # whoever had it before has given it its lasting name
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.ftruncate(descriptor, 0)
                return descriptor
        os.close(descriptor)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Whoever comes with the same file waits until the one before has finished or died. The file stays, empty.

    Raises:
        OSError: the file cannot be made.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_changed(path: Path, content: bytes, mode: int = 0o666) -> None:
    """``write_whole`` unless the file holds ``content`` already; one that is deleted meanwhile is written.

    Raises:
        OSError: it cannot be read or written.
    """
    with suppress(FileNotFoundError):
        if path.read_bytes() == content:
            return
    write_whole(path, content, mode)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, in a folder likewise; a reader sees the old one or the new one.

    It does not wait for the disk: for files that can be recreated after a power failure.

    Raises:
        OSError: it cannot be written.
    """
    private_folder(path.parent)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")  # several processes may write it at once
    try:
        _write(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), content, sync=False)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read; a kill leaves it whole or not at all.

    Raises:
        FileExistsError: there already is one.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        _write(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), content)
        os.link(draft, path)  # unlike a rename it replaces nothing
    finally:
        draft.unlink(missing_ok=True)


def _write(descriptor: int, content: bytes, sync: bool = True) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())
