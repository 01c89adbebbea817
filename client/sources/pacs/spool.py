"""The spool: a folder in the hospital with the files received from an archive, and proof of what they are.

``images/`` has one DICOM file per instance, exactly as received; ``spool.sqlite`` records which are complete, the
transfer syntax in which each was received, that in which the archive stores it, and the digest of its pixels.

Tested in ``tests/client/sources/pacs/test_dicomweb.py``.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from client.errors import SiteMisconfigured, SpoolFull
from client.sources.pacs.fidelity import Fidelity, judge
from client.sources.pacs.integrity import NotWhole, examine
from tasks.machine.disk import close_to_others, private_database, private_file, private_folder, private_tree

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS instances (
    uid TEXT PRIMARY KEY, bytes INTEGER NOT NULL, received TEXT NOT NULL, held TEXT NOT NULL, verdict TEXT NOT NULL,
    pixel_sha256 TEXT NOT NULL);
"""
_UID = re.compile(r"[0-9][0-9.]{0,63}")  # PS3.5 9.1; the leading zeros of some vendors' parts do no harm


class MissingReason(StrEnum):
    """Why an instance is not in the spool although it was requested."""

    TRANSCODED = "TRANSCODED"
    """It was received in an encoding other than the stored one, and one of the two is compressed."""
    ARCHIVE_FAILED = "ARCHIVE_FAILED"
    """The archive answers, but does not send this instance."""
    GONE_FROM_ARCHIVE = "GONE_FROM_ARCHIVE"
    """The archive listed it, but no longer has it."""
    BROKEN_IN_ARCHIVE = "BROKEN_IN_ARCHIVE"
    """The transfer was complete, but the result is not a complete DICOM file."""
    INVALID_UID = "INVALID_UID"
    """Its SOPInstanceUID is invalid (PS3.5 9.1)."""


class InstanceMissing(Exception):
    """One instance is not stored; the others may be."""

    def __init__(self, reason: MissingReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason


@dataclass(frozen=True)
class Instance:
    """One image that an archive lists.

    Attributes:
        study, series, uid: its instance UIDs.
        patient_id, accession: PatientID and AccessionNumber, empty when the archive does not tell.
        modality: Modality of its series.
        sop_class: SOPClassUID, empty when the archive does not tell.
        held: transfer syntaxes in which the archive stores it, from AvailableTransferSyntaxUID (0008,3002); empty
            when the archive does not tell.
    """

    study: str
    series: str
    uid: str
    patient_id: str
    accession: str
    modality: str
    sop_class: str = ""
    held: frozenset[str] = frozenset()


class Spool:
    """An open spool; ``opened`` creates it. ``parts`` is for files in transfer."""

    def __init__(self, folder: Path, index: sqlite3.Connection, max_bytes: int, holds: frozenset[str]) -> None:
        self.images, self.parts = folder / "images", folder / "parts"
        self._max_bytes, self._holds = max_bytes, holds
        self._folder, self._index = folder, index
        shutil.rmtree(self.parts, ignore_errors=True)  # what an interrupted retrieval left
        private_folder(self.parts)
        private_tree(self.images)
        self._used: int = index.execute("SELECT COALESCE(SUM(bytes), 0) FROM instances").fetchone()[0]

    def missing(self, instances: list[Instance]) -> list[Instance]:
        """Instances that are not complete here, or that were transcoded, judged by what the archive reports now."""
        rows = self._index.execute("SELECT uid, bytes, received FROM instances")
        known = {uid: (size, received) for uid, size, received in rows}
        return [i for i in instances if i.uid not in known or not self._stands(i, *known[i.uid])]

    def _stands(self, instance: Instance, size: int, received: str) -> bool:
        verdict = judge(received, instance.held, self._holds)
        values = (" ".join(sorted(instance.held)), verdict, instance.uid)
        self._index.execute("UPDATE instances SET held = ?, verdict = ? WHERE uid = ?", values)
        if verdict is Fidelity.TRANSCODED:
            self._remove(instance.uid)
        return verdict is not Fidelity.TRANSCODED and _size(self._file(instance.uid)) == size

    def forget_others(self, instances: list[Instance]) -> int:
        """Delete all others: they left the archive or the scope, lost their label, or were withdrawn."""
        keep = {instance.uid for instance in instances}
        gone = [uid for (uid,) in self._index.execute("SELECT uid FROM instances") if uid not in keep]
        for uid in gone:
            self._remove(uid)
        self._index.commit()
        for path in self.images.rglob("*.dcm"):  # a file without a row: the process died between the two
            if path.stem not in keep:
                path.unlink()
        return len(gone)

    def _remove(self, uid: str) -> None:
        self._file(uid).unlink(missing_ok=True)
        for (size,) in self._index.execute("DELETE FROM instances WHERE uid = ? RETURNING bytes", (uid,)).fetchall():
            self._used -= size

    def refuse_beyond(self, incoming: int) -> None:
        """Raise ``SpoolFull`` if this many more bytes do not fit."""
        if self._used + incoming > self._max_bytes:
            raise SpoolFull(
                f"the spool {self._folder} may hold {self._max_bytes / 1e9:g} GB and has {self._used / 1e9:.3f}; raise "
                "max_gigabytes of the source or narrow its scope. What is there is kept, and not retrieved again"
            )

    def take_in(self, instance: Instance, part: Path) -> None:
        """Move a received file to its place, after checking that it is complete and the requested one.

        Raises:
            Refused: it is cut, another instance than was asked for, or was transcoded on its way.
            SpoolFull: it does not fit.
        """
        try:
            evidence = examine(part)
        except NotWhole as error:
            raise InstanceMissing(MissingReason.BROKEN_IN_ARCHIVE, str(error)) from error
        if evidence.sop_instance != instance.uid:
            raise InstanceMissing(MissingReason.ARCHIVE_FAILED, "received an instance other than the requested one")
        verdict = judge(evidence.transfer_syntax, instance.held, self._holds)
        if verdict is Fidelity.TRANSCODED:
            stored = sorted(instance.held or self._holds)
            raise InstanceMissing(MissingReason.TRANSCODED, f"received {evidence.transfer_syntax}, stored as {stored}")
        size = part.stat().st_size
        self.refuse_beyond(size)
        self._store(instance, part, (size, evidence.transfer_syntax, verdict, evidence.pixel_sha256))

    def _store(self, instance: Instance, part: Path, found: tuple[int, str, Fidelity, str]) -> None:
        size, received, verdict, digest = found
        place = self._file(instance.uid)
        private_folder(place.parent)
        self._remove(instance.uid)
        close_to_others(part)
        part.replace(place)  # the row comes after the file: a crash between them fetches again, and trusts no half file
        row = (instance.uid, size, received, " ".join(sorted(instance.held)), verdict, digest)
        self._index.execute("INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?)", row)
        self._index.commit()
        self._used += size

    def verdicts(self) -> Counter[Fidelity]:
        """Number of instances by verdict on their transfer syntax."""
        rows = self._index.execute("SELECT verdict, COUNT(*) FROM instances GROUP BY verdict")
        return Counter({Fidelity(name): number for name, number in rows})

    def remember(self, name: str, words: Iterable[str]) -> None:
        """Store a fact about the archive, for later listings that need not query it."""
        self._index.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, " ".join(sorted(words))))
        self._index.commit()

    def remembered(self, name: str) -> set[str]:
        """The fact that ``remember`` stored under that name."""
        row = self._index.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return set(row[0].split()) if row else set()

    def digests(self) -> dict[str, str]:
        """SHA-256 of the pixels by SOPInstanceUID."""
        return dict(self._index.execute("SELECT uid, pixel_sha256 FROM instances").fetchall())

    def _file(self, uid: str) -> Path:
        return self.images / hashlib.sha256(uid.encode()).hexdigest()[:2] / f"{uid}.dcm"


def is_uid(text: str) -> bool:
    """Whether the text is a valid UID, and so safe as a file name."""
    return _UID.fullmatch(text) is not None


@contextmanager
def opened(folder: Path, owner: str, max_gigabytes: float, holds: Iterable[str] = ()) -> Iterator[Spool]:
    """The spool in that folder, for one process at a time.

    Args:
        owner: which source fills it; another one is refused.
        max_gigabytes: most that it may hold, in 10^9 bytes.
        holds: transfer syntaxes that the archive holds among all its images, see ``judge``.

    Raises:
        SiteMisconfigured: the folder belongs to another source or process, or cannot be written.
        SpoolFull: the disk is full.
    """
    try:
        file = private_database(folder / "spool.sqlite")
        with private_file(folder / "lock").open("a") as lock, closing(sqlite3.connect(file)) as index:
            _lock(folder, lock.fileno())
            index.executescript(_SCHEMA)
            _claim(folder, index, owner)
            yield Spool(folder, index, int(max_gigabytes * 1e9), frozenset(holds))
    except (OSError, sqlite3.OperationalError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in str(error):
            raise SpoolFull(f"the disk of {folder} is full; what is there is kept, and not retrieved again") from error
        raise SiteMisconfigured(f"cannot use the spool {folder}: {error}") from error


def _lock(folder: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SiteMisconfigured(f"another process is using the spool {folder}; wait until it ends") from None


def _claim(folder: Path, index: sqlite3.Connection, owner: str) -> None:
    known = index.execute("SELECT value FROM facts WHERE name = 'owner'").fetchone()
    if known is None:
        index.execute("INSERT INTO facts VALUES ('owner', ?)", (owner,))
        index.commit()
    elif known[0] != owner:
        raise SiteMisconfigured(
            f"the spool {folder} belongs to {known[0]}, not to {owner}; give each source its own path"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
