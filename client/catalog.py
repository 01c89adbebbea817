"""The hospital's index of images, and its cache of prepared examples.

``ingest`` goes through the sources once: it decodes each new or changed image, applies the task's declared transform,
and keeps the result as one safetensors file (no pickle) named by a digest of what it was made from. The SQLite index
holds pseudonyms, labels and sides of the split; no PatientID, no UID and no path is stored in it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from client.errors import EmptySource
from client.site import SiteSettings, secret
from client.sources.listing import list_source
from client.sources.record import Record, Unreadable
from client.sources.settings import Source
from client.sources.withdrawals import withdrawn
from tasks.task import Task

_SCHEMA = """
CREATE TABLE IF NOT EXISTS patients (
    pseudonym TEXT PRIMARY KEY, position REAL NOT NULL, side TEXT NOT NULL CHECK (side IN ('train', 'validation')));
CREATE TABLE IF NOT EXISTS images (
    image TEXT NOT NULL, task TEXT NOT NULL, issuer TEXT NOT NULL, patient TEXT NOT NULL REFERENCES patients,
    label INTEGER NOT NULL, signature TEXT NOT NULL, example TEXT NOT NULL, PRIMARY KEY (image, task));
"""

Progress = Callable[[str, int, int], None]
"""Called with the issuer, how many images are done and how many there are."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingest found. For the hospital's own eyes: it has exact counts.

    Attributes:
        images: images in the catalog.
        patients: patients by side of the split.
        classes: patients with at least one image of the class, by class name.
        left_out: images, files and label rows that were not used, by reason.
        warnings: sentences about what a person should look at.
    """

    images: int
    patients: dict[str, int]
    classes: dict[str, int]
    left_out: Counter[str]
    warnings: list[str]


@dataclass(frozen=True)
class Entry:
    """One image of the catalog: whose it is, its label, and where its example lies."""

    patient: str
    label: int
    example: Path


def ingest(site: SiteSettings, task: Task, progress: Progress = lambda issuer, done, total: None) -> IngestReport:
    """Bring the catalog up to date with the sources: read what is new or changed, forget what is gone.

    An interrupted ingest keeps what it had read; the next one goes on from there.

    Raises:
        NoCohort: a source is empty, or its labels match nothing, or no image could be read.
        SiteMisconfigured: a source's files are wrong.
    """
    left_out: Counter[str] = Counter()
    unwilling = withdrawn(site)
    listings = [(source, list_source(source, task, unwilling)) for source in site.sources if source.task == task.name]
    if not listings:
        raise EmptySource(f"{site.name} has no source for task {task.name!r}; add one to `sources` in site.yaml")
    with _opened(site) as index:
        keep: set[str] = set()
        for source, listing in listings:
            left_out.update(listing.left_out)
            keep |= _take_in(site, index, task, source, listing.records, left_out, progress)
        issuers = [source.issuer for source, _ in listings]
        _forget(index, task, issuers, keep)
        report = _report(index, task, issuers, left_out)
    if not report.images:
        raise EmptySource(f"{site.name}: no image of task {task.name!r} could be read ({_counts(left_out)})")
    heard = [warning for _, listing in listings for warning in listing.warnings]
    return replace(report, warnings=heard + report.warnings)


def entries(site: SiteSettings, task: Task, side: str) -> list[Entry]:
    """The images of one side of the split, ordered by patient.

    A source's ``max_training_patients`` takes the first so many of its training patients in the order of their hash.
    """
    caps = {s.issuer: s.max_training_patients for s in site.sources if s.task == task.name}
    query = """
        SELECT issuer, patient, label, example, DENSE_RANK() OVER (PARTITION BY issuer ORDER BY position, pseudonym)
        FROM images JOIN patients ON patient = pseudonym WHERE task = ? AND side = ? ORDER BY patient, image"""
    with _opened(site) as index:
        rows = index.execute(query, (task.name, side)).fetchall()
    # Hospitals that are simulated on one machine share a catalog; each sees the patients of its own issuers.
    cap_of = {issuer: cap if side == "train" and cap is not None else len(rows) for issuer, cap in caps.items()}
    return [
        Entry(patient, label, _example_path(site, task, example))
        for issuer, patient, label, example, rank in rows
        if rank <= cap_of.get(issuer, 0)
    ]


def load_example(path: Path) -> NDArray[np.float32]:
    """One prepared example, float32 of the task's ``example_shape``."""
    example: NDArray[np.float32] = load_file(path)["example"]
    return example


@contextmanager
def _opened(site: SiteSettings) -> Iterator[sqlite3.Connection]:
    site.catalog.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(site.catalog / "index.sqlite", timeout=60)) as index:
        index.executescript(_SCHEMA)
        yield index
        index.commit()


def _take_in(
    site: SiteSettings,
    index: sqlite3.Connection,
    task: Task,
    source: Source,
    records: list[Record],
    left_out: Counter[str],
    progress: Progress,
) -> set[str]:
    """Read what is new of a source. Returns the keys of all its images that are in the catalog now."""
    key = secret(site)
    known = dict(index.execute("SELECT image, signature || example FROM images WHERE task = ?", (task.name,)))
    keep = set()
    for number, record in enumerate(records, start=1):
        image = _keyed(key, "image", source.issuer, record.image_id)
        example = _example_name(task, source, record)
        if known.get(image) != record.signature + example or not _example_path(site, task, example).exists():
            try:
                _prepare(site, task, record, example)
            except Unreadable as error:
                left_out[error.reason] += 1
                continue
        patient = _patient(index, key, site, source.issuer, record.patient_id)
        values = (image, task.name, source.issuer, patient, record.label, record.signature, example)
        index.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        keep.add(image)
        if number % 50 == 0 or number == len(records):
            index.commit()
            progress(source.issuer, number, len(records))
    return keep


def _patient(index: sqlite3.Connection, key: bytes, site: SiteSettings, issuer: str, patient_id: str) -> str:
    """The patient's pseudonym. Its side is decided when it is first seen and never again."""
    pseudonym = _keyed(key, "patient", issuer, patient_id)
    position = int(_keyed(key, "split", issuer, patient_id)[:13], 16) / 16**13
    side = "validation" if position < site.validation_fraction else "train"
    index.execute("INSERT OR IGNORE INTO patients VALUES (?, ?, ?)", (pseudonym, position, side))
    return pseudonym


def _keyed(key: bytes, purpose: str, issuer: str, name: str) -> str:
    """HMAC-SHA-256: without the hospital's key nobody can guess back or link what it names."""
    message = json.dumps([purpose, issuer, name]).encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]


def _example_name(task: Task, source: Source, record: Record) -> str:
    made_of = [task.name, task.example_version, task.example_shape, str(source.path), record.image_id, record.signature]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def _example_path(site: SiteSettings, task: Task, example: str) -> Path:
    return site.catalog / "examples" / task.name / example[:2] / f"{example}.safetensors"


def _prepare(site: SiteSettings, task: Task, record: Record, example: str) -> None:
    values = np.ascontiguousarray(task.read_example(record.read()), dtype=np.float32)
    path = _example_path(site, task, example)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({"example": values}, partial)
    partial.replace(path)  # a crash leaves a whole file or none


def _forget(index: sqlite3.Connection, task: Task, issuers: list[str], keep: set[str]) -> None:
    mine = "task = ? AND issuer IN (SELECT value FROM json_each(?))"
    of_mine = (task.name, json.dumps(issuers))
    gone = {row[0] for row in index.execute(f"SELECT image FROM images WHERE {mine}", of_mine)} - keep
    index.executemany(f"DELETE FROM images WHERE {mine} AND image = ?", [(*of_mine, image) for image in gone])


def _report(index: sqlite3.Connection, task: Task, issuers: list[str], left_out: Counter[str]) -> IngestReport:
    rows = index.execute(
        "SELECT patient, side, label FROM images JOIN patients ON patient = pseudonym "
        "WHERE task = ? AND issuer IN (SELECT value FROM json_each(?))",
        (task.name, json.dumps(issuers)),
    ).fetchall()
    with_label = [{patient for patient, _, label in rows if label == number} for number in (0, 1)]
    classes = {name: len(patients) for name, patients in zip(task.classes, with_label, strict=True)}
    warnings = [f"no patient is {name}: this hospital has one class only" for name, n in classes.items() if n == 0]
    if mixed := len(with_label[0] & with_label[1]):
        warnings.append(f"{mixed} patient(s) have images of both classes; each is scored as {task.classes[1]}")
    if +left_out:
        warnings.append(f"left out: {_counts(+left_out)}")
    sides = {side: len({patient for patient, s, _ in rows if s == side}) for side in ("train", "validation")}
    return IngestReport(len(rows), sides, classes, +left_out, warnings)


def _counts(left_out: Counter[str]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in sorted(left_out.items())) or "nothing left out"
