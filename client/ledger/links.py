"""Rows linked by keyed hashes, and what can be wrong with them. ``client.ledger.chain`` keeps them in a file.

A row's hash is the HMAC-SHA256 (RFC 2104) of its number, time, kind, body and the hash of the row before it, under a
key that is derived from the hospital's secret, one for each purpose.

Tested in ``tests/client/ledger/test_chain.py``.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

BEFORE_ALL = "0" * 64
"""The hash that the first row follows."""

_SHIFT = 64  # how far away a moved row's own place is looked for
_CHANGED = "was changed after it was written, or was written without this hospital's key"

StoredRow = tuple[Any, ...]
"""A row as stored in the file, unchecked: seq, at, kind, body, previous, hash."""


class Head(NamedTuple):
    """Number and hash of a row: whoever has recorded it can later check whether the chain still contains that row."""

    seq: int
    hash: str


@dataclass(frozen=True)
class Row:
    """One row whose hash was checked. ``at`` is UTC in ISO 8601."""

    seq: int
    at: str
    kind: str
    body: dict[str, Any]
    hash: str


@dataclass(frozen=True)
class Fault:
    """A fault of a row, or of the file if there is no number."""

    seq: int | None
    what: str

    def __str__(self) -> str:
        return self.what if self.seq is None else f"row {self.seq}: {self.what}"


def derived_key(secret: bytes, purpose: str) -> bytes:
    """The key for one purpose, 32 bytes, from the hospital's secret (one step of HKDF-Expand, RFC 5869)."""
    return hmac.digest(secret, f"consilium {purpose}".encode() + b"\x01", "sha256")


def link(key: bytes, seq: int, at: str, kind: str, body: dict[str, Any], previous: str) -> StoredRow:
    """The row in the form in which it is stored.

    Raises:
        ValueError: a number in the body is not finite.
    """
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return seq, at, kind, text, previous, _mac(key, seq, at=at, kind=kind, body=text, previous=previous)


def row(stored: StoredRow) -> Row:
    """A genuine row, read."""
    seq, at, kind, body, _, own_hash = stored
    return Row(seq, at, kind, json.loads(body), own_hash)


def is_genuine(key: bytes, stored: StoredRow, seq: int | None = None) -> bool:
    """Whether this row was written with the key, under this or another number."""
    if [type(value) for value in stored] != [int, str, str, str, str, str]:
        return False
    number, at, kind, body, previous, own_hash = stored
    return bool(own_hash == _mac(key, number if seq is None else seq, at=at, kind=kind, body=body, previous=previous))


def faults(stored_rows: Iterable[StoredRow], key: bytes, expected: int, previous: str) -> Iterator[Fault]:
    """What is wrong with rows that should be numbered from ``expected`` on and follow the hash ``previous``."""
    empty = True
    for stored in stored_rows:
        seq, empty = stored[0], False
        if type(seq) is not int:
            yield Fault(None, f"a row is numbered {seq!r}")
            continue
        if seq > expected:
            others = "" if seq == expected + 1 else f", as are all others up to {seq - 1}"
            yield Fault(expected, "is missing" + others)
        if not is_genuine(key, stored):
            yield Fault(seq, _origin(key, stored))
        elif seq < expected:
            yield Fault(seq, "exists more than once")
        elif seq == expected and stored[4] != previous:
            yield Fault(seq, "does not follow the row before it, which was replaced")
        expected, previous = seq + 1, stored[5]
    if empty and expected == 0:
        yield Fault(0, "is missing, as are all others: the chain is empty")


def _mac(key: bytes, seq: int, at: str, kind: str, body: str, previous: str) -> str:
    """Lengths come first, so that no two rows give the same text."""
    text = f"{seq};{len(at)}:{at};{len(kind)}:{kind};{len(previous)}:{previous};{len(body)}:{body}"
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256").hex()


def _origin(key: bytes, stored: StoredRow) -> str:
    """Where a row comes from that is not genuine under its number."""
    seq = stored[0]
    near = (other for step in range(1, _SHIFT + 1) for other in (seq - step, seq + step) if other >= 0)
    moved = next((other for other in near if is_genuine(key, stored, other)), None)
    return _CHANGED if moved is None else f"was written as row {moved}: rows were moved, removed or inserted before it"
