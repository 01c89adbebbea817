"""Labels from the OMOP Common Data Model: who, or which imaging study, has a concept.

Read are CSV files with the model's table and column names (CDM 5.4, and the imaging extension's ``image_occurrence``),
as every OMOP tool exports them. Concepts are not expanded: list descendants, as a concept set does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from client.errors import SiteMisconfigured
from client.sources.labels.rows import TextTable, listed, names, read_table, shown
from client.sources.settings import OmopLabels

_CONCEPT_AND_DATE = {
    "condition_occurrence": ("condition_concept_id", "condition_start_date"),
    "observation": ("value_as_concept_id", "observation_date"),
    "measurement": ("value_as_concept_id", "measurement_date"),
    "procedure_occurrence": ("procedure_concept_id", "procedure_date"),
}
_IMAGES = "image_occurrence"
_KEY_COLUMNS = {"StudyInstanceUID": "image_study_uid", "AccessionNumber": "accession_id"}


@dataclass(frozen=True)
class _Subject:
    """What may be labelled: a person, or a study on its day."""

    name: str
    day: date | None = None


def labels_of_omop(source: OmopLabels, left_out: Counter[str]) -> Iterator[tuple[str, int]]:
    """The value of the source's key, and the label, of everybody of whom the tables say something.

    Counted: ``CONTRADICTING_LABEL_ROWS``: someone with concepts of both classes; ``PERSON_WITHOUT_IMAGE``.

    Raises:
        SiteMisconfigured: a table cannot be read or lacks columns, or dates cannot be read, with their lines.
    """
    wanted = {**dict.fromkeys(source.positive, 1), **dict.fromkeys(source.negative, 0)}
    subjects = _subjects(source)
    concepts: defaultdict[str, list[tuple[int, date | None]]] = defaultdict(list)
    for person, concept, day in _rows(source):
        if concept in wanted:
            concepts[person].append((wanted[concept], day))
    left_out["PERSON_WITHOUT_IMAGE"] += len(concepts.keys() - subjects.keys())
    for person, own in subjects.items():
        for subject in own:
            labels = {label for label, day in concepts.get(person, ()) if _near(subject.day, day, source.within_days)}
            if len(labels) == 2:
                left_out["CONTRADICTING_LABEL_ROWS"] += 1
            elif labels or source.absent_is_negative:
                yield subject.name, labels.pop() if labels else 0


def _near(image: date | None, row: date | None, days: int | None) -> bool:
    """Whether a row counts for an image. Where dates decide, one that is missing decides against."""
    return days is None or (image is not None and row is not None and abs((image - row).days) <= days)


def _subjects(source: OmopLabels) -> dict[str, list[_Subject]]:
    """By person_id, who or what of theirs may be labelled."""
    found: defaultdict[str, list[_Subject]] = defaultdict(list)
    if source.key == "PatientID":
        table = _table(source.path / "person.csv", ["person_id", "person_source_value"])
        for row in table.rows:
            if name := row["person_source_value"].strip():
                found[row["person_id"].strip()].append(_Subject(name))
        return dict(found)
    column, dated = _KEY_COLUMNS[source.key], source.within_days is not None
    path = source.path / f"{_IMAGES}.csv"
    table = _table(path, ["person_id", column, *(["image_occurrence_date"] if dated else [])])
    days = _dates(path, table, "image_occurrence_date") if dated else [None] * len(table.rows)
    for row, day in zip(table.rows, days, strict=True):
        subject = _Subject(row[column].strip(), day)
        if subject.name and subject not in found[row["person_id"].strip()]:
            found[row["person_id"].strip()].append(subject)
    return dict(found)


def _rows(source: OmopLabels) -> Iterator[tuple[str, int, date | None]]:
    """person_id, concept and date of each row; of observations and measurements also their own concept counts."""
    concept, day = _CONCEPT_AND_DATE[source.table]
    path = source.path / f"{source.table}.csv"
    table = _table(path, ["person_id", concept, *([] if source.within_days is None else [day])])
    days = [None] * len(table.rows) if source.within_days is None else _dates(path, table, day)
    own = f"{source.table}_concept_id"
    for row, when in zip(table.rows, days, strict=True):
        for column in dict.fromkeys([concept, own]):
            if (text := row.get(column, "").strip()).isdecimal():
                yield row["person_id"].strip(), int(text), when


def _table(path: Path, columns: list[str]) -> TextTable:
    table = read_table(path)
    lower = tuple(name.strip().casefold() for name in table.columns)  # some databases export names in capitals
    if missing := sorted(set(columns) - set(lower)):
        raise SiteMisconfigured(f"{path} lacks the column(s) {names(missing)}; it has {names(table.columns)}")
    rows = [dict(zip(lower, row.values(), strict=True)) for row in table.rows]
    return TextTable(lower, rows, table.lines)


def _dates(path: Path, table: TextTable, column: str) -> list[date | None]:
    """The dates of a column; empty ones are ``None``."""
    days: list[date | None] = []
    wrong: list[str] = []
    for line, row in zip(table.lines, table.rows, strict=True):
        text = row[column].strip()
        try:
            days.append(date.fromisoformat(text[:10]) if text else None)
        except ValueError:
            wrong.append(f"line {line}: {shown(text)}")
    if wrong:
        raise SiteMisconfigured(f"{path}: {column} must be written as 2026-11-30:\n  {listed(wrong)}")
    return days
