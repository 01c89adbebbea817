"""The catalog's index: its images, their patients by pseudonym, and what was found in them.

It can be rebuilt from the sources at any time, so another version's tables are dropped, not converted. Reads continue
while an ingest writes (write-ahead log).

The side of the split a patient is on is not stored: it follows from the patient's position and the fraction in
``site.yaml``, which must match the ledger's. So no earlier ingest under other settings can have moved anyone.

Tested in ``tests/client/cohort/test_catalog.py``.
"""

from __future__ import annotations

import atexit
import hmac
import json
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from client.cohort.rows import AlikePair, Image, Ingest, Patient, image_of, row_of, signed
from client.errors import CatalogStale
from client.ledger.handle_cache import HandleCache
from client.site import SiteSettings, secret
from tasks.machine.disk import private_database

_VERSION = 10
_SCHEMA = """
CREATE TABLE IF NOT EXISTS patients (pseudonym TEXT PRIMARY KEY, position REAL NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    image TEXT NOT NULL, task TEXT NOT NULL, issuer TEXT NOT NULL, patient TEXT NOT NULL REFERENCES patients,
    label INTEGER NOT NULL, signature TEXT NOT NULL, example TEXT NOT NULL, fingerprint INTEGER, jpeg REAL,
    levels INTEGER, unreadable TEXT NOT NULL, rejected TEXT NOT NULL, warned TEXT NOT NULL, facts TEXT NOT NULL,
    usable INTEGER NOT NULL, findings TEXT NOT NULL, outlined INTEGER NOT NULL, glyphs INTEGER NOT NULL,
    PRIMARY KEY (image, task));
CREATE INDEX IF NOT EXISTS images_of_patients ON images (patient);
CREATE INDEX IF NOT EXISTS images_of_issuers ON images (task, issuer);
CREATE INDEX IF NOT EXISTS images_of_examples ON images (example);
CREATE TABLE IF NOT EXISTS ingests (
    task TEXT NOT NULL, issuer TEXT NOT NULL, contract TEXT NOT NULL, left_out TEXT NOT NULL, warnings TEXT NOT NULL,
    at TEXT NOT NULL, PRIMARY KEY (task, issuer));
CREATE TABLE IF NOT EXISTS compared (
    image TEXT NOT NULL, task TEXT NOT NULL, fingerprint INTEGER, among TEXT NOT NULL, PRIMARY KEY (image, task));
CREATE TABLE IF NOT EXISTS alike (
    pair TEXT PRIMARY KEY, one TEXT NOT NULL, issuer TEXT NOT NULL, other TEXT NOT NULL, other_issuer TEXT NOT NULL,
    images INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS told_apart (pair TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS key (fingerprint TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS owner (ledger TEXT PRIMARY KEY);
INSERT OR IGNORE INTO state VALUES ('written', 0);
"""
_MOST_REMEMBERED = 1024  # many simulated hospitals play in one process
_ANEW = "".join(
    f"DROP TABLE IF EXISTS {table};"
    for table in ("images", "patients", "ingests", "compared", "alike", "told_apart", "state", "key", "owner")
)
_WRITTEN = "UPDATE state SET number = abs(random()) WHERE name = 'written'"
_MINE = "task = ? AND issuer IN (SELECT value FROM json_each(?))"

_OPEN_HANDLES: HandleCache[sqlite3.Connection] = HandleCache()
atexit.register(_OPEN_HANDLES.close)
_REMEMBERED: OrderedDict[tuple[Path, Hashable], tuple[Any, Any]] = OrderedDict()
T = TypeVar("T")


class Index:
    """An open index. Every method that writes is one transaction."""

    def __init__(self, path: Path, connection: sqlite3.Connection, fraction: float) -> None:
        """Use ``opened``. Patients whose position is below ``fraction`` are for validation."""
        self._path, self._connection, self._fraction = path, connection, fraction

    def images(self, task: str, issuers: Iterable[str]) -> list[Image]:
        """All images of these issuers for a task, in no particular order of patients."""
        rows = self._connection.execute(f"SELECT * FROM images WHERE {_MINE}", _mine(task, issuers))
        return [image_of(row) for row in rows]

    def remembered(self, question: Hashable, answer: Callable[[], T]) -> T:
        """The result of a query on the catalog, computed once and again after every write.

        Every round asks what the last one asked, and a large catalog takes a second to go through.

        Args:
            question: with all that the answer depends on besides the catalog.
        """
        query = "SELECT number FROM state WHERE name = 'written'"
        current = (self._connection.execute(query).fetchone()[0], self._path.stat().st_ino)
        key = self._path, (self._fraction, question)
        version, result = _REMEMBERED.pop(key, (None, None))
        if version != current:
            result = answer()
        _REMEMBERED[key] = current, result
        while len(_REMEMBERED) > _MOST_REMEMBERED:
            _REMEMBERED.popitem(last=False)
        return cast(T, result)

    def put(self, images: Iterable[tuple[Patient, Image]]) -> None:
        """Add images or replace what is known about them."""
        both = list(images)
        with self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO patients VALUES (?, ?)", {astuple(patient) for patient, _ in both}
            )
            self._connection.executemany(
                f"INSERT OR REPLACE INTO images VALUES ({', '.join('?' * 18)})", [row_of(image) for _, image in both]
            )
            self._connection.execute(_WRITTEN)

    def forget(self, images: Iterable[Image]) -> list[str]:
        """Delete images. Returns the names of examples that no other image uses."""
        gone = list(images)
        with self._connection:
            self._connection.executemany(
                "DELETE FROM images WHERE image = ? AND task = ?", [(image.image, image.task) for image in gone]
            )
            self._connection.execute(_WRITTEN)
        return self.unused(image.example for image in gone)

    def examples(self, task: str) -> set[str]:
        """The names of all examples of a task, of any issuer."""
        return {name for (name,) in self._connection.execute("SELECT example FROM images WHERE task = ?", (task,))}

    def unused(self, examples: Iterable[str]) -> list[str]:
        """The examples that no image uses."""
        return [example for example in examples if not self._in_use(example)]

    def of_patients(self, pseudonyms: Iterable[str]) -> list[Image]:
        """All images of some patients, of every task."""
        query = "SELECT * FROM images WHERE patient IN (SELECT value FROM json_each(?))"
        return [image_of(row) for row in self._connection.execute(query, (json.dumps(list(pseudonyms)),))]

    def positions(self) -> dict[str, float]:
        """The position of every patient whom the catalog has ever had."""
        return dict(self._connection.execute("SELECT pseudonym, position FROM patients"))

    def sides(self, task: str, issuers: Iterable[str]) -> dict[str, str]:
        """Side of the split of each patient with images of a task."""
        query = f"""
            SELECT DISTINCT pseudonym, CASE WHEN position < ? THEN 'validation' ELSE 'train' END
            FROM images JOIN patients ON patient = pseudonym WHERE {_MINE}"""
        return dict(self._connection.execute(query, (self._fraction, *_mine(task, issuers))))

    def usable(self, task: str, side: str, issuers: Iterable[str]) -> list[tuple[str, str, float, str, str, int]]:
        """Issuer, patient, label, findings as JSON and example of each usable image of these issuers on a side, and the
        patient's rank in the issuer's order of positions, from 1; ordered by patient."""
        query = f"""
            SELECT issuer, patient, label, findings, example,
                DENSE_RANK() OVER (PARTITION BY issuer ORDER BY position, pseudonym)
            FROM images JOIN patients ON patient = pseudonym
            WHERE {_MINE} AND (position < ?) = ? AND usable ORDER BY patient, image"""
        values = (*_mine(task, issuers), self._fraction, side == "validation")
        return self._connection.execute(query, values).fetchall()

    def usable_images(self, issuers: Iterable[str]) -> list[Image]:
        """All usable images of these issuers, of every task."""
        query = "SELECT * FROM images WHERE usable AND issuer IN (SELECT value FROM json_each(?))"
        return [image_of(row) for row in self._connection.execute(query, (json.dumps(list(issuers)),))]

    def are_compared(self, issuers: list[str]) -> bool:
        """Whether every usable image of these issuers was compared with those of the others, as it is now."""
        query = """
            SELECT NOT EXISTS (
                SELECT 1 FROM images LEFT JOIN compared USING (image, task)
                WHERE usable AND issuer IN (SELECT value FROM json_each(?1))
                AND (among IS NOT ?1 OR compared.fingerprint IS NOT images.fingerprint))"""
        return bool(self._connection.execute(query, (json.dumps(issuers),)).fetchone()[0])

    def note_compared(self, issuers: list[str], images: Iterable[Image], alike: Iterable[AlikePair]) -> None:
        """Record which images of these issuers were compared, and the pairs that look alike."""
        rows = [(image.image, image.task, signed(image.fingerprint), json.dumps(issuers)) for image in images]
        with self._connection:
            self._connection.execute("DELETE FROM alike")
            self._connection.executemany("INSERT OR REPLACE INTO compared VALUES (?, ?, ?, ?)", rows)
            self._connection.executemany("INSERT INTO alike VALUES (?, ?, ?, ?, ?, ?)", map(astuple, alike))
            self._connection.execute(_WRITTEN)

    def tell_apart(self, pairs: Iterable[str]) -> None:
        """Record, by digest, pairs that are signed as different people."""
        with self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO told_apart VALUES (?)", [(pair,) for pair in pairs])
            self._connection.execute(_WRITTEN)

    def alike(self, issuers: Iterable[str], task: str | None = None) -> list[AlikePair]:
        """Unsigned pairs, both with usable images, at least one of them of the given task, if any."""
        query = """
            SELECT * FROM alike WHERE pair NOT IN (SELECT pair FROM told_apart)
            AND issuer IN (SELECT value FROM json_each(?1)) AND other_issuer IN (SELECT value FROM json_each(?1))
            AND EXISTS (SELECT 1 FROM images WHERE patient = one AND usable)
            AND EXISTS (SELECT 1 FROM images WHERE patient = other AND usable)
            AND (?2 IS NULL OR EXISTS (SELECT 1 FROM images WHERE patient IN (one, other) AND task = ?2 AND usable))
            ORDER BY images DESC, pair"""
        rows = self._connection.execute(query, (json.dumps(list(issuers)), task))
        return [AlikePair(*row) for row in rows]

    def note_ingest(self, ingest: Ingest) -> None:
        """Record when an issuer's images were ingested, and under which contract."""
        with self._connection:
            values = json.dumps(ingest.left_out), json.dumps(ingest.warnings), ingest.at.isoformat(timespec="seconds")
            row = (ingest.task, ingest.issuer, ingest.contract, *values)
            self._connection.execute("INSERT OR REPLACE INTO ingests VALUES (?, ?, ?, ?, ?, ?)", row)
            self._connection.execute(_WRITTEN)

    def ingests(self, task: str, issuers: Iterable[str]) -> list[Ingest]:
        """The last ingest of each issuer that had one."""
        rows = self._connection.execute(f"SELECT * FROM ingests WHERE {_MINE}", _mine(task, issuers))
        return [
            Ingest(
                task=name,
                issuer=issuer,
                contract=contract,
                left_out=json.loads(left_out),
                warnings=json.loads(warnings),
                at=datetime.fromisoformat(at),
            )
            for name, issuer, contract, left_out, warnings, at in rows
        ]

    def _in_use(self, example: str) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM images WHERE example = ?)"
        return bool(self._connection.execute(query, (example,)).fetchone()[0])


@contextmanager
def opened(site: SiteSettings) -> Iterator[Index]:
    """The hospital's index, created if missing. It stays open for the next query.

    Raises:
        CatalogStale: it was made with another key than the site's, so pseudonyms and split are another hospital's.
    """
    with connected(site) as connection:
        yield Index(path_of(site), connection, site.validation_fraction)


def path_of(site: SiteSettings) -> Path:
    """Where the index lies."""
    return site.catalog / "index.sqlite"


@contextmanager
def connected(site: SiteSettings) -> Iterator[sqlite3.Connection]:
    """A connection to the index's database, with all its tables; see ``opened``."""
    path = path_of(site)
    with _OPEN_HANDLES.use((path,), partial(_new_connection, path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            connection.executescript(f"{_ANEW} {_SCHEMA} PRAGMA user_version = {_VERSION};")
            connection.execute("PRAGMA journal_mode = WAL")
        _require_key(connection, site)
        yield connection


def _require_key(connection: sqlite3.Connection, site: SiteSettings) -> None:
    fingerprint = hmac.digest(secret(site), b"consilium catalog", "sha256").hex()
    stored = connection.execute("SELECT fingerprint FROM key").fetchone()
    if stored is None:
        with connection:
            connection.execute("INSERT INTO key VALUES (?)", (fingerprint,))
    elif stored[0] != fingerprint:
        raise CatalogStale(
            f"the catalog {site.catalog} was made with a key other than {site.key}, so its patients would change sides "
            "of the split. Set `catalog` in site.yaml to a separate folder, or delete this one, and run: "
            "consilium-site ingest"
        )


@contextmanager
def _new_connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(private_database(path), timeout=60)) as connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        yield connection


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


def _mine(task: str, issuers: Iterable[str]) -> tuple[str, str]:
    return task, json.dumps(list(issuers))
