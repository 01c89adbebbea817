"""Which images a search has seen in which examinations: labels by SOPInstanceUID need not open all of them again.

Labels by SOPInstanceUID name no examination: where an image is, is known only when its examination was opened. What was
seen there is remembered, by keyed hashes only, with what the archive told of the examination as a whole. It is opened
again when the archive tells something else of it, when a label names one of its images, or after a month.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from client.sources.pacs.search import Match, number, value
from client.sources.settings import Scope
from tasks.machine.disk import private_database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (study TEXT PRIMARY KEY, told TEXT NOT NULL, opened REAL NOT NULL);
CREATE TABLE IF NOT EXISTS images (image TEXT PRIMARY KEY, study TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS images_of ON images (study);
"""
_NAME = "seen.sqlite"
_LONGEST_S = 30 * 86400.0
"""An archive may change an examination and tell the same counts and names of it."""


class SeenImages:
    """The open memory; ``opened`` makes it."""

    def __init__(self, connection: sqlite3.Connection, key: bytes, scope: Scope, names: Iterable[str]) -> None:
        """Prepare.

        Args:
            key: the hospital's secret.
            scope: of the source: in another one other images are seen.
            names: SOPInstanceUIDs that have a label.
        """
        self._connection, self._key = connection, key
        self._scope = scope.model_dump_json()
        labelled = {self._hash("image", name) for name in names}
        self._wanted = {
            study for image, study in connection.execute("SELECT image, study FROM images") if image in labelled
        }

    def is_needless(self, study: Match) -> bool:
        """Whether it was opened before, has no labelled image, and nothing tells that it has changed.

        An archive that does not tell how many images an examination has cannot tell that one was added.
        """
        if number(study, "NumberOfStudyRelatedInstances") is None:
            return False
        name = self._hash("study", value(study, "StudyInstanceUID"))
        if name in self._wanted:
            return False
        row = self._connection.execute("SELECT told, opened FROM studies WHERE study = ?", (name,)).fetchone()
        return row is not None and row[0] == self._told(study) and row[1] > time.time() - _LONGEST_S

    def note(self, study: Match, images: Iterable[str]) -> None:
        """Remember what was seen in an examination; an interrupted search goes on from there."""
        name = self._hash("study", value(study, "StudyInstanceUID"))
        with self._connection:
            self._connection.execute("DELETE FROM images WHERE study = ?", (name,))
            rows = [(self._hash("image", one), name) for one in images]
            self._connection.executemany("INSERT OR REPLACE INTO images VALUES (?, ?)", rows)
            row = (name, self._told(study), time.time())
            self._connection.execute("INSERT OR REPLACE INTO studies VALUES (?, ?, ?)", row)

    def _told(self, study: Match) -> str:
        told = {keyword: list(values) for keyword, values in sorted(study.items())}
        return self._hash("told", json.dumps([told, self._scope]))

    def _hash(self, purpose: str, text: str) -> str:
        message = json.dumps(["seen in an archive", purpose, text]).encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:32]


@contextmanager
def opened(folder: Path, key: bytes, scope: Scope, names: Iterable[str]) -> Iterator[SeenImages]:
    """The memory in a source's folder; see ``SeenImages`` for the arguments."""
    with closing(sqlite3.connect(private_database(folder / _NAME), timeout=60)) as connection:
        connection.executescript(_SCHEMA)
        yield SeenImages(connection, key, scope, names)
