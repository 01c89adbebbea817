"""The spool: a folder in the hospital with the files received from an archive, and proof of what they are.

``images/`` has one DICOM file per instance, exactly as received; ``spool.sqlite`` records which are complete, the
transfer syntax in which each was received, that in which the archive stores it, and the digest of its pixels.

Tested in ``tests/client/sources/pacs/test_dicomweb.py``.
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import hashlib
import json
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword

from client.errors import SiteMisconfigured, SpoolFull
from client.sources.pacs.fidelity import Fidelity, judge
from client.sources.pacs.integrity import NotWhole, examine
from tasks.machine.disk import close_to_others, private_database, private_file, private_folder, private_tree

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS instances (
    uid TEXT PRIMARY KEY, bytes INTEGER NOT NULL, received TEXT NOT NULL, held TEXT NOT NULL, verdict TEXT NOT NULL,
    pixel_sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS told (
    uid TEXT PRIMARY KEY, study TEXT NOT NULL, told TEXT NOT NULL, retrieved REAL NOT NULL);
"""
_UID = re.compile(r"[0-9][0-9.]{0,63}")  # PS3.5 9.1; the leading zeros of some vendors' parts do no harm


_INDEX = "spool.sqlite"


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
    OUTSIDE_HOURS = "OUTSIDE_HOURS"
    """It was not requested: images may be retrieved at other hours only."""
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
        told: what else the archive tells of it, by keyword; a change there means that the image may have changed.
    """

    study: str
    series: str
    uid: str
    patient_id: str
    accession: str
    modality: str
    sop_class: str = ""
    held: frozenset[str] = frozenset()
    told: Mapping[str, str] = field(default_factory=dict)


class Spool:
    """An open spool; ``opened`` creates it.

    Attributes:
        images, parts: folders of the files that are here, and of those in transfer.
        replaced: instances whose pixels were others when they were retrieved again.
    """

    def __init__(self, folder: Path, index: sqlite3.Connection, max_bytes: int, holds: frozenset[str]) -> None:
        self.images, self.parts = folder / "images", folder / "parts"
        self._max_bytes, self._holds = max_bytes, holds
        self._folder, self._index = folder, index
        self.replaced: set[str] = set()
        shutil.rmtree(self.parts, ignore_errors=True)  # what an interrupted retrieval left
        private_folder(self.parts)
        private_tree(self.images)
        self._used: int = index.execute("SELECT COALESCE(SUM(bytes), 0) FROM instances").fetchone()[0]

    def missing(self, instances: list[Instance], older_than: float = 0) -> list[Instance]:
        """Instances that are not complete here, that were transcoded, of which the archive tells something else than
        when they were retrieved, or that were retrieved before a time (seconds since 1970)."""
        rows = self._index.execute("SELECT uid, bytes, received FROM instances")
        known = {uid: (size, received) for uid, size, received in rows}
        told = {uid: (text, at) for uid, text, at in self._index.execute("SELECT uid, told, retrieved FROM told")}
        absent = ("", 0.0)
        wanted = [
            one
            for one in instances
            if one.uid not in known
            or not self._stands(one, *known[one.uid])
            or self._may_have_changed(one, *told.get(one.uid, absent), older_than)
        ]
        self._index.commit()
        return wanted

    def _may_have_changed(self, instance: Instance, told: str, at: float, older_than: float) -> bool:
        """A keyword that the archive did not tell before is no change, nor is one that it tells no more."""
        if not told:  # retrieved by a release that did not remember
            changed = _differs_from_file(self._file(instance.uid), instance.told)
        else:
            before = json.loads(told)
            changed = any(before.get(keyword, text) != text for keyword, text in instance.told.items())
        if not changed:
            self._note(instance, at)
        return changed or at < older_than

    def _note(self, instance: Instance, at: float) -> None:
        row = (instance.uid, instance.study, json.dumps(dict(instance.told)), at)
        self._index.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?)", row)

    def spooled(self) -> dict[str, str]:
        """StudyInstanceUID of every instance that is here, by SOPInstanceUID; "" where it is not remembered."""
        query = "SELECT uid, COALESCE(study, '') FROM instances LEFT JOIN told USING (uid)"
        return dict(self._index.execute(query).fetchall())

    def _stands(self, instance: Instance, size: int, received: str) -> bool:
        verdict = judge(received, instance.held, self._holds)
        values = (" ".join(sorted(instance.held)), verdict, instance.uid)
        self._index.execute("UPDATE instances SET held = ?, verdict = ? WHERE uid = ?", values)
        if verdict is Fidelity.TRANSCODED:
            self._remove(instance.uid)
        return verdict is not Fidelity.TRANSCODED and _size(self._file(instance.uid)) == size

    def forget_stale(self, instances: list[Instance]) -> None:
        """Delete what has changed in the archive and could not be retrieved again: a copy of what is no more."""
        here = self.spooled()
        self.forget([one.uid for one in self.missing(instances) if one.uid in here])

    def belongs_to(self, uid: str, patients: frozenset[str]) -> bool:
        """Whether the archive said that an instance is one of these patients', by PatientID."""
        row = self._index.execute("SELECT told FROM told WHERE uid = ?", (uid,)).fetchone()
        return row is not None and json.loads(row[0]).get("PatientID") in patients

    def forget(self, uids: Iterable[str]) -> None:
        """Delete these: they left the archive or the scope, lost their label, or were withdrawn."""
        for uid in uids:
            self._remove(uid)
        self._index.commit()
        known = set(self.spooled())
        for path in self.images.rglob("*.dcm"):  # a file without a row: the process died between the two
            if path.stem not in known:
                path.unlink()

    def _remove(self, uid: str) -> None:
        self._file(uid).unlink(missing_ok=True)
        for (size,) in self._index.execute("DELETE FROM instances WHERE uid = ? RETURNING bytes", (uid,)).fetchall():
            self._used -= size
        self._index.execute("DELETE FROM told WHERE uid = ?", (uid,))

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
        before = self._index.execute("SELECT pixel_sha256 FROM instances WHERE uid = ?", (instance.uid,)).fetchone()
        same = place.is_file() and filecmp.cmp(place, part, shallow=False)
        if same:
            part.unlink()  # the file keeps its time, by which the catalog knows that nothing has changed
            self._used -= size
        else:
            if before is not None and before[0] != digest:
                self.replaced.add(instance.uid)
            self._remove(instance.uid)
            close_to_others(part)
            part.replace(place)  # the row comes after the file: a crash between them fetches again, trusts no half file
        row = (instance.uid, size, received, " ".join(sorted(instance.held)), verdict, digest)
        self._index.execute("INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?, ?)", row)
        self._note(instance, time.time())
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


def _differs_from_file(path: Path, told: Mapping[str, str]) -> bool:
    """Whether a file says something else than the archive, of what both say."""
    header = dcmread(path, stop_before_pixels=True, specific_tags=[tag_for_keyword(keyword) or 0 for keyword in told])
    own = {element.keyword: str(element.value or "").strip() for element in header if element.VM <= 1}
    return any(plain(own.get(keyword, "")) not in ("", plain(text)) for keyword, text in told.items() if text)


def plain(text: str) -> str:
    """A text as it is compared: archives pad, and change the case of names and their empty components."""
    return " ".join(re.sub(r"[\^=]+", "^", text.upper()).strip("^ ").split())


def is_uid(text: str) -> bool:
    """Whether the text is a valid UID, and so safe as a file name."""
    return _UID.fullmatch(text) is not None


def is_spool(folder: Path) -> bool:
    """Whether something was ever spooled there."""
    return (folder / _INDEX).exists()


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
        file = private_database(folder / _INDEX)
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
