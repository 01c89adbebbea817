"""Credentials for an archive: files that only their owner can read, never part of settings or log.

Tested in ``tests/client/sources/pacs/test_dicomweb.py``.
"""

from __future__ import annotations

import stat
from pathlib import Path

from client.errors import SiteMisconfigured

_MOST = 64 * 1024


def read_secret(path: Path) -> str:
    """The file's text without the line break at its end.

    Raises:
        SiteMisconfigured: as for ``owned``; or the file is empty, larger than 64 KiB, or has more than one line.
    """
    owned(path)
    try:
        text = path.read_bytes()[: _MOST + 1].decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SiteMisconfigured(f"cannot read the secret {path}: {type(error).__name__}") from None
    if not text or len(text) > _MOST or "\n" in text or "\r" in text:
        raise SiteMisconfigured(f"{path} must hold one secret on one line; it is empty, too long or has several lines")
    return text


def owned(path: Path) -> Path:
    """The same path, after checking that only its owner can read the file.

    Raises:
        SiteMisconfigured: it is missing, no regular file, or readable by others.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SiteMisconfigured(f"the secret {path} is missing: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise SiteMisconfigured(f"the secret {path} is not a file")
    if mode & 0o077:
        raise SiteMisconfigured(f"{path} is readable by users other than its owner; run: chmod 600 {path}")
    return path
