"""What the catalog's index has rows of: patients by pseudonym, images, ingests, and patients who look alike.

Tested in ``tests/client/cohort/test_catalog.py``.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from datetime import datetime


@dataclass(frozen=True)
class Patient:
    """A patient, by pseudonym. ``position`` never changes: it follows from the key and lies in [0, 1); that of a
    patient whom a published split places lies in [1, 2) for training and in [-1, 0) for validation."""

    pseudonym: str
    position: float


@dataclass(frozen=True)
class Image:
    """One image of one task.

    Attributes:
        image: its own pseudonym.
        issuer: whose patient numbers are meant.
        patient: pseudonym.
        label: the truth of the task's question, see ``tasks/answers.py``.
        signature: changes with the bytes.
        example: name of the prepared example.
        fingerprint, jpeg, levels: what was found in the pixels; absent where they were not decoded.
        unreadable: why it could not be decoded, "" if it could or was not tried.
        rejected, warned: ids of the contract's rules.
        facts: JSON of attributes that name nobody.
        usable: readable and not rejected.
        findings: truths of the secondary findings of the task, ``None`` where not known; empty where none is known.
        outlined: whether somebody has outlined the task's structures on it, or found none.
        glyphs: of the longest line of text at an edge, see ``client/reading/lettering.py``.
    """

    image: str
    task: str
    issuer: str
    patient: str
    label: float
    signature: str
    example: str
    fingerprint: int | None
    jpeg: float | None
    levels: int | None
    unreadable: str
    rejected: tuple[str, ...]
    warned: tuple[str, ...]
    facts: str
    usable: bool
    findings: tuple[float | None, ...] = ()
    outlined: bool = False
    glyphs: int = 0


@dataclass(frozen=True)
class Ingest:
    """The last ingest of an issuer's images for a task.

    Attributes:
        contract: digest of the contract under which they were judged.
        left_out: what the listing of the source left out, by reason.
        warnings: what the source had to say.
        at: when, in UTC.
    """

    task: str
    issuer: str
    contract: str
    left_out: dict[str, int]
    warnings: list[str]
    at: datetime


@dataclass(frozen=True)
class AlikePair:
    """Two patients of two issuers who may be the same person.

    Attributes:
        pair: keyed digest of the two.
        one, other: pseudonyms.
        issuer, other_issuer: who numbers them.
        images: how many pairs of their images look the same.
    """

    pair: str
    one: str
    issuer: str
    other: str
    other_issuer: str
    images: int


def row_of(image: Image) -> tuple[object, ...]:
    """An image as a row of the table ``images``."""
    lists = json.dumps(image.rejected), json.dumps(image.warned)
    values, seen = astuple(image), signed(image.fingerprint)
    return (*values[:7], seen, *values[8:11], *lists, *values[13:15], json.dumps(image.findings), *values[16:])


def signed(fingerprint: int | None) -> int | None:
    """As SQLite can hold it, which has no unsigned numbers."""
    return None if fingerprint is None else (fingerprint ^ 1 << 63) - (1 << 63)


def image_of(row: tuple[object, ...]) -> Image:
    """The image of a row of the table ``images``."""
    values = list(row)
    if isinstance(row[7], int):
        values[7] = (row[7] + (1 << 63)) ^ 1 << 63
    values[11], values[12] = tuple(json.loads(str(row[11]))), tuple(json.loads(str(row[12])))
    values[14], values[15], values[16] = bool(row[14]), tuple(json.loads(str(row[15]))), bool(row[16])
    return Image(*values)  # type: ignore[arg-type]
