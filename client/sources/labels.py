"""The labels file: a CSV with a column that names what is labelled, and a column ``label``."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from client.errors import SiteMisconfigured

KEYS = ("SOPInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")
"""DICOM keywords by which a row may name its images, the finest first."""


@dataclass(frozen=True)
class Labels:
    """Labels by the value of one DICOM attribute, and what was wrong with the file, counted by reason."""

    path: Path
    key: str
    values: dict[str, int]
    left_out: Counter[str]


def read_labels(path: Path, classes: tuple[str, str]) -> Labels:
    """Read a labels file.

    A label is the name of a class, or 0 or 1. A row that repeats another is dropped; a key whose rows contradict each
    other has no label at all. Both are counted.

    Raises:
        SiteMisconfigured: the file cannot be read, lacks a column, or has labels that no class has; with line numbers.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter=_delimiter(file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SiteMisconfigured(f"cannot read the labels file {path}: {error}") from error
    columns = set(rows[0]) if rows else set()
    key = next((k for k in KEYS if k in columns), None)
    if key is None or "label" not in columns:
        raise SiteMisconfigured(f"{path} needs a column 'label' and one of {', '.join(KEYS)}; it has {sorted(columns)}")
    return Labels(path, key, *_collect(path, rows, key, classes))


def meanings(classes: tuple[str, str]) -> dict[str, int]:
    """What a label may say, in lower case, and which class it means."""
    return {"0": 0, "1": 1, classes[0].casefold(): 0, classes[1].casefold(): 1}


def _delimiter(file: TextIO) -> str:
    """What parts the columns; spreadsheets of many countries save a CSV with semicolons."""
    header = file.readline()
    file.seek(0)
    return max(",;\t", key=header.count)


def _collect(
    path: Path, rows: list[dict[str, str]], key: str, classes: tuple[str, str]
) -> tuple[dict[str, int], Counter[str]]:
    meaning = meanings(classes)
    told: list[tuple[str, int]] = []
    wrong: list[str] = []
    for line, row in enumerate(rows, start=2):
        name, text = (row[key] or "").strip(), (row["label"] or "").strip()
        label = meaning.get(text.casefold())
        if not name or label is None:
            wrong.append(f"line {line}: {key}={name!r}, label={text!r}")
        else:
            told.append((name, label))
    if wrong:
        shown = "\n  ".join(wrong[:10]) + ("" if len(wrong) <= 10 else f"\n  and {len(wrong) - 10} more")
        raise SiteMisconfigured(f"{path}: a label must be one of {', '.join(classes)}, 0 or 1:\n  {shown}")
    return joined(told)


def joined(told: Iterable[tuple[str, int]]) -> tuple[dict[str, int], Counter[str]]:
    """Labels by name. What is said twice counts once, and who is said to be both has none; either is counted."""
    values: dict[str, int] = {}
    contradicted: set[str] = set()
    left_out: Counter[str] = Counter()
    for name, label in told:
        if name not in values:
            values[name] = label
        elif values[name] == label:
            left_out["DUPLICATE_LABEL_ROW"] += 1
        else:
            contradicted.add(name)
    left_out["CONTRADICTING_LABEL_ROWS"] += len(contradicted)
    return {k: v for k, v in values.items() if k not in contradicted}, +left_out
