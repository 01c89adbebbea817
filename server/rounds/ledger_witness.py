"""The last state of each hospital's ledger that the server has seen: it tells a hospital that an old copy was restored.

Every report brings the hash of the last row of the hospital's ledger, and every order to that hospital returns it. A
hospital that cannot find the hash among its rows has an older ledger than it once had, and refuses with
``LEDGER_BEHIND``. To the server the hash is opaque.

A study keeps what it saw in its checkpoint. A deployed server also keeps one small file per hospital, for all studies:
several processes write there, each file at once and whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tasks.machine.disk import write_whole

_HASH = re.compile(r"[0-9a-f]{64}")


class Witness:
    """The ledger hash that was seen last, by hospital.

    Args:
        seen: what the study has seen before.
        folder: where a deployed server keeps what any of its studies has seen, which takes precedence; ``None`` for
            none.
    """

    def __init__(self, seen: Mapping[str, str] | None = None, folder: Path | None = None) -> None:
        self._seen, self._folder = dict(seen or {}), folder

    def head(self, hospital: str) -> str | None:
        """The hash that an order returns to the hospital; ``None`` before its first report."""
        return self._kept(hospital) or self._seen.get(hospital)

    def saw(self, hospital: str, head: str) -> None:
        """A report of the hospital has arrived, whether its figures are used or not.

        Raises:
            OSError: the file cannot be written.
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
    """Whoever is admitted again under this name brings a new ledger."""
    (folder / hospital).unlink(missing_ok=True)
