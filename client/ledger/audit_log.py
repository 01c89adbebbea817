"""The hospital's audit log: a receipt of every message that left, and every decision of a person, in its own chain.

A receipt is written when the reply is final and before it is sent: a message without a receipt cannot leave, while a
receipt whose message was lost on the way can exist. Each receipt names the ledger's head, so that a ledger that was put
back to an older state is recognised. Nothing in here names a patient or a file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from client.ledger.chain import Chain
from client.ledger.database import Outlives
from client.ledger.links import Head, Row

_PURPOSE = "audit log"
_RECEIPT = "receipt"
_NUMBERS = ("update_norm", "epsilon_before", "epsilon_after")
_UID = re.compile(r"\b[0-2](\.(0|[1-9]\d*)){5,}\b")  # DICOM PS3.5 section 9.1; shorter ones may be version numbers
_PATH = re.compile(r"(^|[\s'\"=(])(~|[A-Za-z]:)?[/\\]\S")

Fact = str | int | float | bool | None


class Kind(StrEnum):
    """Kinds of event."""

    APPROVAL = "approval"
    REVOCATION = "revocation"
    STOP = "stop"
    RESUMPTION = "resumption"
    WITHDRAWAL = "withdrawal"
    INGEST = "ingest"
    PREDICTION = "prediction"
    REBASE = "rebase"
    LEDGER_BEHIND = "ledger_behind"
    ACKNOWLEDGEMENT = "acknowledgement"
    AUDIT_LOG_REPLACED = "audit_log_replaced"
    IDENTITIES = "identities"
    IDENTITY = "identity"
    REPLACEMENT = "replacement"


@dataclass(frozen=True)
class Receipt:
    """One message that left, or was about to leave."""

    study: str
    round: int
    message: str
    """Its kind: the name of the class in ``tasks.protocol.wire``."""
    cohort: str | None
    """The cohort whose privacy it spent; ``None`` for a refusal."""
    bytes: int
    sha256: str
    """Of the packed message, in hexadecimal."""
    tensors: Mapping[str, str]
    """Data type and shape by name; see ``tensors_of``."""
    update_norm: float | None
    """L2 norm of all tensors together, after noise."""
    epsilon_before: float | None
    """What the study had spent on the cohort before this order; infinite without noise, ``None`` for a refusal."""
    epsilon_after: float | None
    ledger: Head | None
    """The ledger's last row at that moment; ``None`` only for a refusal because no ledger could be read."""
    policy: str = ""
    """SHA-256 of the hospital's policy and caps at that moment, so that raised caps leave a trace."""
    repeated: bool = False
    """Whether it is the stored reply to an order that was answered before; then it spent nothing."""
    seq: int | None = None
    """Its row in the audit log; set by the audit log, like ``at``."""
    at: datetime | None = None


@dataclass(frozen=True)
class Event:
    """A decision or an action."""

    seq: int
    at: datetime
    kind: Kind
    facts: Mapping[str, Fact]


class AuditLog:
    """The audit log file of one hospital. A context manager, for one thread; several processes may have it open.

    >>> from tempfile import TemporaryDirectory
    >>> folder = TemporaryDirectory()
    >>> audit_log = AuditLog.create(Path(folder.name) / "audit.sqlite", secret=bytes(32), ledger=Head(0, "00" * 32))
    >>> approval = audit_log.append_event(Kind.APPROVAL, {"study": "demo-1", "by": "Dr. A. Weber"})
    >>> [event.facts["by"] for event in audit_log.events(study="demo-1")]
    ['Dr. A. Weber']
    >>> audit_log.append_event(Kind.STOP, {"reason": "cannot read /data/pacs/1.dcm"})
    Traceback (most recent call last):
    ValueError: audit log event stop: reason looks like a UID or a path
    >>> folder.cleanup()
    """

    def __init__(self, chain: Chain) -> None:
        """Use ``create`` or ``open``."""
        self._chain = chain
        self._events: list[Event] = []
        self._read: Head | None = None

    @classmethod
    def create(cls, path: Path, secret: bytes, ledger: Head) -> Self:
        """A new audit log beside the ledger with this head.

        Raises:
            LedgerBroken: there is one already.
        """
        return cls(Chain.create(path, secret, _PURPOSE, {"ledger": list(ledger)}))

    @classmethod
    def open(cls, path: Path, secret: bytes, outlives: Outlives = Outlives.POWER_FAILURE) -> Self:
        """An existing audit log; never makes one. ``outlives``: what a transaction outlives.

        Raises:
            LedgerMissing, LedgerTampered, LedgerUnwritable: see ``Chain.open``.
        """
        return cls(Chain.open(path, secret, _PURPOSE, outlives))

    def check(self) -> None:
        """See ``Chain.check``."""
        self._chain.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._chain.close()

    def append_receipt(self, receipt: Receipt) -> Receipt:
        """Enter a receipt. Returns it with its row and time."""
        body = {name: value for name, value in asdict(receipt).items() if name not in ("seq", "at")}
        body |= {name: _written(body[name]) for name in _NUMBERS}
        with self._chain.transaction():
            row = self._chain.append(_RECEIPT, {**body, "tensors": dict(receipt.tensors)})
        return replace(receipt, seq=row.seq, at=datetime.fromisoformat(row.at))

    def append_event(self, kind: Kind, facts: Mapping[str, Fact]) -> Event:
        """Enter a decision or an action, for instance ``{"study": ..., "code": ...}``.

        Raises:
            ValueError: a fact looks like a UID or a path. That is a net, no proof: pass codes, counts and digests.
        """
        suspicious = [name for name, value in facts.items() if isinstance(value, str) and _names_something(value)]
        if suspicious:
            raise ValueError(f"audit log event {kind}: {', '.join(suspicious)} looks like a UID or a path")
        with self._chain.transaction():
            return _event(self._chain.append(kind, dict(facts)))

    def receipts(
        self, study: str | None = None, round: int | None = None, since: datetime | None = None
    ) -> list[Receipt]:
        """Receipts, oldest first; every filter that is given must hold. ``since`` carries its time zone.

        Raises:
            LedgerTampered: a row is not as it was written.
        """
        entries = (_receipt(row) for row in self._rows_since(since) if row.kind == _RECEIPT)
        return [r for r in entries if study in (None, r.study) and round in (None, r.round)]

    def events(self, kind: Kind | None = None, study: str | None = None, since: datetime | None = None) -> list[Event]:
        """Events, oldest first; ``study`` compares the fact of that name. Otherwise as ``receipts``.

        Every order asks for the approvals; rows that were read before are not read again.
        """
        for row in self._chain.rows(after=self._read):
            if row.kind in set(Kind):
                self._events.append(_event(row))
            self._read = Head(row.seq, row.hash)
        entries = (e for e in self._events if since is None or e.at >= since)
        return [e for e in entries if kind in (None, e.kind) and study in (None, e.facts.get("study"))]

    def head(self) -> Head:
        """Number and hash of the last row."""
        return self._chain.head()

    def last_seen_ledger(self) -> Head:
        """The ledger's head in the newest receipt, or when the audit log was created."""
        seen = (row.body["ledger"] for row in self._chain.backwards() if row.kind in (_RECEIPT, "genesis"))
        return next(Head(*head) for head in seen if head is not None)

    def require_not_older_than(self, witness: Head) -> None:
        """Refuse an audit log that lacks a row seen in it before.

        Raises:
            LedgerRolledBack: see ``Chain.require``.
        """
        self._chain.require(witness)

    def verify(self, witness: Head | None = None) -> list[str]:
        """All faults, row by row, and against a witness at the end."""
        return [str(fault) for fault in self._chain.verify(witness)]

    def backup(self, target: Path) -> None:
        """Copy to a new file; see ``Chain.backup``. ``Records.backup`` copies ledger and audit log together."""
        self._chain.backup(target)

    def hold(self) -> AbstractContextManager[None]:
        """Block all other writers in the meantime."""
        return self._chain.transaction()

    def _rows_since(self, since: datetime | None) -> Iterator[Row]:
        return (row for row in self._chain.rows() if since is None or datetime.fromisoformat(row.at) >= since)


def tensors_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Data type and shape by name, for instance ``{"weight": "float32 (1, 1296)"}``."""
    return {name: f"{value.dtype.name} {value.shape}" for name, value in arrays.items()}


def norm_of(arrays: Mapping[str, NDArray[Any]]) -> float:
    """L2 norm of all arrays together, summed in float64; 0 without any."""
    return math.sqrt(sum(float(np.sum(np.square(value, dtype=np.float64))) for value in arrays.values()))


def _names_something(text: str) -> bool:
    return bool(_UID.search(text) or _PATH.search(text))


def _written(number: float | None) -> float | str | None:
    """JSON has no infinity."""
    return number if number is None or math.isfinite(number) else str(number)


def _number(written: float | str | None) -> float | None:
    return None if written is None else float(written)


def _receipt(row: Row) -> Receipt:
    head = row.body["ledger"]
    read = {name: _number(row.body[name]) for name in _NUMBERS} | {"ledger": None if head is None else Head(*head)}
    return Receipt(**{**row.body, **read, "seq": row.seq, "at": datetime.fromisoformat(row.at)})


def _event(row: Row) -> Event:
    return Event(row.seq, datetime.fromisoformat(row.at), Kind(row.kind), row.body)
