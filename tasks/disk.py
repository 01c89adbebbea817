"""Files that are whole, whatever happens while they are written, and files that their owner alone can read."""

from __future__ import annotations

import os
from pathlib import Path


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


def write_secret(path: Path, content: bytes) -> None:
    """A new file that its owner alone can read.

    Raises:
        FileExistsError: there is one already.
    """
    _write(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), content)


def _write(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
