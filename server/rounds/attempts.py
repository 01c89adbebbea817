"""Secure sums through a study: the hospitals' sum keys, and the number of the attempt that is under way.

A pad serves for one attempt, so its number is on the disk before an order with it goes out. After a kill the same order
goes out again: a hospital that had answered gives the same bytes, and one that was killed over it says so.

Tested in ``tests/client/test_secure_orders.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from server.errors import CheckpointDamaged
from tasks.machine.disk import write_whole
from tasks.protocol.sum_key import SumKey
from tasks.protocol.wire import SumAttempt

_FILE = "attempts.json"


@dataclass(frozen=True)
class _Begun:
    round: int
    attempt: SumAttempt


_WHAT = TypeAdapter(dict[str, _Begun])


class Attempts:
    """What is known of keys and attempts.

    Args:
        folder: where attempts are kept; ``None`` for nowhere, which suits tests.

    Attributes:
        keys: of those that have shown theirs to this process and could be part of the next sum.
        refused: hospitals that will refuse every further sum of the study, and why.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else folder / _FILE
        self._begun = self._read()
        self.keys: dict[str, SumKey] = {}
        self.refused: dict[str, str] = {}

    def begun(self, what: str, round: int) -> SumAttempt | None:
        """The attempt that was under way when the process ended; ``None`` if there was none in this round."""
        known = self._begun.get(what)
        return known.attempt if known is not None and known.round == round else None

    def begin(self, what: str, round: int, roster: Sequence[SumKey]) -> SumAttempt:
        """The next attempt of a round; on disk when this returns."""
        before = self.begun(what, round)
        number = 1 if before is None else before.number + 1
        attempt = SumAttempt(number, sorted(roster, key=lambda each: each.hospital))
        self._begun[what] = _Begun(round, attempt)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, _WHAT.dump_json(self._begun))
        return attempt

    def _read(self) -> dict[str, _Begun]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            return _WHAT.validate_json(self._path.read_bytes())
        except (OSError, ValidationError) as error:
            raise CheckpointDamaged(
                f"cannot read {self._path}: {error}; restore the folder from a backup. (Without the file attempts are "
                "numbered from 1 again, and hospitals refuse those that they have seen: delete it only if there is no "
                "backup)"
            ) from error
