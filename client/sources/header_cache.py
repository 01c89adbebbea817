"""What was read in headers of files that have not changed since: so that another ingest opens none of them.

Headers name patients. So the rows are sealed: each has a keyed hash for a name and is encrypted with a key that follows
from the hospital's secret; who has the file without ``site.key`` learns how many headers were read, and how long they
are. It lies in ``catalog/`` and can be made again at any time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from client.sources.record import signature_of
from tasks.machine.disk import private_database

FILE = "headers.sqlite"
_VERSION = 2
_SCHEMA = "CREATE TABLE IF NOT EXISTS headers (name BLOB PRIMARY KEY, scope BLOB NOT NULL, sealed BLOB NOT NULL)"
_NONCE = 12  # bytes, as AES-GCM takes it (NIST SP 800-38D)


class HeaderCache:
    """Sealed texts by file. One source and one way of reading at a time: see ``of``."""

    def __init__(self, connection: sqlite3.Connection, key: bytes) -> None:
        """Use ``opened``.

        Args:
            key: the hospital's secret.
        """
        self._connection = connection
        self._names = _derived(key, b"consilium header names")
        self._cipher = AESGCM(_derived(key, b"consilium header contents"))

    def get(self, paths: Sequence[Path], how: str) -> list[tuple[bytes, str | None]]:
        """For each file the name of its row, and what was read in it, ``None`` if that is not known.

        Args:
            how: all that the answer depends on besides the file.
        """
        return [(name, self._opened(name) if name else None) for name in (self._name(path, how) for path in paths)]

    def put(self, scope: str, rows: Iterable[tuple[bytes, str]]) -> None:
        """Keep what was read, under the names that ``get`` gave."""
        of = self._hash(scope)
        with self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO headers VALUES (?, ?, ?)",
                [(name, of, self._sealed(name, text)) for name, text in rows if name],
            )

    def keep_only(self, scope: str, names: Iterable[bytes]) -> None:
        """Forget what a source no longer has."""
        with self._connection:
            self._connection.execute("CREATE TEMP TABLE IF NOT EXISTS kept (name BLOB PRIMARY KEY)")
            self._connection.execute("DELETE FROM kept")
            self._connection.executemany("INSERT OR IGNORE INTO kept VALUES (?)", [(name,) for name in names])
            query = "DELETE FROM headers WHERE scope = ? AND name NOT IN (SELECT name FROM kept)"
            self._connection.execute(query, (self._hash(scope),))

    def _name(self, path: Path, how: str) -> bytes:
        """Changes with the file's bytes; empty if the file has gone."""
        try:
            return self._hash(f"{os.fsencode(path).hex()}\0{signature_of(path)}\0{how}")
        except OSError:
            return b""

    def _hash(self, text: str) -> bytes:
        return hmac.digest(self._names, text.encode(), hashlib.sha256)

    def _sealed(self, name: bytes, text: str) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, text.encode(), name)

    def _opened(self, name: bytes) -> str | None:
        row = self._connection.execute("SELECT sealed FROM headers WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        try:
            return self._cipher.decrypt(row[0][:_NONCE], row[0][_NONCE:], name).decode()
        except (InvalidTag, ValueError):  # damaged, or another hospital's: read the file again
            return None


@contextmanager
def opened(folder: Path, key: bytes) -> Iterator[HeaderCache]:
    """The cache in a folder. One of another version, or one that SQLite cannot read, is made again."""
    path = private_database(folder / FILE)
    try:
        connection = _connected(path)
    except sqlite3.DatabaseError:
        path.unlink()
        connection = _connected(private_database(path))
    with closing(connection):
        yield HeaderCache(connection, key)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30)
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            connection.executescript(f"DROP TABLE IF EXISTS headers; PRAGMA user_version = {_VERSION}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # what a power failure takes is read again
        connection.execute(_SCHEMA)
        connection.commit()
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(key)
