"""The files under a source's folder, and a word for everything else that lies there."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from client.errors import EmptySource
from client.pixels.refusal import Reason, UnreadableDicom

_PACKED = (
    b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd",
)  # fmt: skip
"""How files begin that zip, gzip, 7z, rar, xz, bzip2 and zstd have made."""
_TAR_AT, _TAR = 257, b"ustar"


Refused = Callable[[Path, str], None]
"""Called with what is not used, and the reason."""


def files_under(folder: Path, refused: Refused) -> list[Path]:
    """All files under a folder, sorted; a link to a file counts as the file.

    Args:
        refused: called with ``UNREADABLE_FOLDER``, ``LINKED_FOLDER`` (which may lead anywhere, also in a circle),
            ``FILE_ABSENT`` (a link to nothing) and ``NOT_A_FILE`` (a pipe, a device).
    """
    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        refused(Path(error.filename or folder), "UNREADABLE_FOLDER")

    for place, folders, names in os.walk(folder, onerror=unreadable):
        for name in folders:
            if os.path.islink(os.path.join(place, name)):
                refused(Path(place, name), "LINKED_FOLDER")
        for name in names:
            path = Path(place, name)
            if reason := _not_a_file(path):
                refused(path, reason)
            else:
                found.append(path)
    return sorted(found)


def _not_a_file(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError:
        return "FILE_ABSENT"
    return "" if stat.S_ISREG(mode) else "NOT_A_FILE"


def nothing_there(folder: Path, left_out: Counter[str]) -> EmptySource:
    """There is no image: because nothing is there, or because nothing that is there can be read."""
    why = ", ".join(f"{reason} {number}" for reason, number in sorted((+left_out).items()))
    remedy = f"what lies there cannot be used ({why})" if why else "is the volume mounted?"
    return EmptySource(f"no DICOM image under {folder}; {remedy}", left_out)


def reason_of(path: Path, error: UnreadableDicom) -> str:
    """The word by which a file that is no image is counted."""
    return "PACKED_FILE" if error.reason == Reason.NOT_DICOM and _is_packed(path) else str(error.reason)


def _is_packed(path: Path) -> bool:
    """Whether a file begins as an archive or a compressed file does; nothing is unpacked."""
    try:
        with path.open("rb") as file:
            start = file.read(_TAR_AT + len(_TAR))
    except OSError:
        return False
    return start.startswith(_PACKED) or start[_TAR_AT:] == _TAR
