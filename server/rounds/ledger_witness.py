"""What the server saw last of each hospital's books: by this witness a hospital learns that they were put back.

Every report brings the hash of the last row of the hospital's ledger, and every order to that hospital brings it back.
A hospital that cannot find it among its rows has older books than it once had, and refuses with ``LEDGER_BEHIND``. To
the server a hash is opaque.

A study remembers what it saw in its checkpoint. A deployed server also keeps one small file a hospital, for all
studies: several processes write there, each file at once and whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tasks.machine.disk import write_whole

_HASH = re.compile(r"[0-9a-f]{64}")


class Witness:
    """By hospital the head of its ledger that was seen last.

    Args:
        seen: what the study has seen before.
        folder: where a deployed server keeps what any of its studies has seen, which counts more; ``None`` for none.
    """

    def __init__(self, seen: Mapping[str, str] | None = None, folder: Path | None = None) -> None:
        self._seen, self._folder = dict(seen or {}), folder

    def head(self, hospital: str) -> str | None:
        """What an order to the hospital brings; ``None`` before its first report."""
        return self._kept(hospital) or self._seen.get(hospital)

    def saw(self, hospital: str, head: str) -> None:
        """A report of the hospital has come, whatever becomes of its figures.

        Raises:
            OSError: it cannot be kept.
        """
        self._seen[hospital] = head
        if self._folder is not None and self._kept(hospital) != head:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_whole(self._folder / hospital, head.encode())

    def seen(self) -> dict[str, str]:
        """What this study has seen, for its checkpoint."""
        return dict(self._seen)

    def _kept(self, hospital: str) -> str | None:
        if self._folder is None:
            return None
        try:
            head = (self._folder / hospital).read_text("ascii").strip()
        except (OSError, ValueError):
            return None
        return head if _HASH.fullmatch(head) else None


def forget(folder: Path, hospital: str) -> None:
    """Whoever comes back under this name brings new books."""
    (folder / hospital).unlink(missing_ok=True)
