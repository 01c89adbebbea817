"""Patient merges that the hospital's own systems announce: HL7 version 2 messages, or a CSV of two numbers.

Of HL7 the messages that merge two patient identifiers are read: ADT^A18, ADT^A34 and ADT^A40 (HL7 v2.5.1, sections
3.3.18, 3.3.34, 3.3.40). The surviving number is in PID-3 (before version 2.3.1 in PID-2), the retired one in the MRG-1
that follows.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from client.errors import SiteMisconfigured
from client.sources.text_file import text_of

_MERGING = ("A18", "A34", "A40")
_OLD, _NEW = ("from", "old", "retired"), ("to", "new", "surviving")
_FIELD_OF_ESCAPE = {"F": "|", "S": "^", "R": "~", "T": "&", "E": "\\"}


@dataclass(frozen=True)
class Merge:
    """One patient had two numbers: what was ``retired`` is ``surviving`` now."""

    retired: str
    surviving: str


def read_merges(place: Path | None) -> list[Merge]:
    """All merges in a file, or in all files under a folder, in the order of their names; none if there is no place.

    Raises:
        SiteMisconfigured: naming every file and line that cannot be understood; a merge must not be missed.
    """
    if place is None:
        return []
    if not place.exists():
        raise SiteMisconfigured(f"the merges {place} are missing; if there are none, create an empty file or folder")
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    merges: list[Merge] = []
    problems: list[str] = []
    for file in files:
        try:
            text = text_of(file)
        except SiteMisconfigured as error:
            problems.append(str(error))
            continue
        for number, found in _merges(text):
            if isinstance(found, Merge):
                merges.append(found)
            else:
                problems.append(f"{file} line {number}: {found}")
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:20])
        raise SiteMisconfigured(f"the merges of patients have {len(problems)} problem(s):\n{shown}")
    return [merge for merge in merges if merge.retired != merge.surviving]


def _merges(text: str) -> Iterator[tuple[int, Merge | str]]:
    """Merges and problems, with their line numbers."""
    lines = re.split(r"\r\n|\r|\n", text.replace("\x0b", "").replace("\x1c", ""))
    first = next((line for line in lines if line.strip()), "")
    if first.startswith(("MSH", "FHS", "BHS")):
        yield from _of_hl7(lines)
    elif first:
        yield from _of_csv(text)


def _of_csv(text: str) -> Iterator[tuple[int, Merge | str]]:
    try:
        dialect: type[csv.Dialect] | str = csv.Sniffer().sniff(text[:4096], ",;\t")
    except csv.Error:
        dialect = "excel"
    rows = csv.reader(io.StringIO(text), dialect)
    header = [cell.strip().lower() for cell in next(rows)]
    old = next((header.index(word) for word in _OLD if word in header), None)
    new = next((header.index(word) for word in _NEW if word in header), None)
    if old is None or new is None:
        yield 1, f"needs a header with a column {' or '.join(_OLD)}, and one {' or '.join(_NEW)}"
        return
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        cells = [cell.strip() for cell in row]
        if len(cells) != len(header) or not cells[old] or not cells[new]:
            yield rows.line_num, f"must have {len(header)} cells, and both numbers"
        else:
            yield rows.line_num, Merge(cells[old], cells[new])


def _of_hl7(lines: list[str]) -> Iterator[tuple[int, Merge | str]]:
    separators, merging, surviving, started = "|^~\\&", False, "", 0
    due = False
    for number, line in enumerate([*lines, "MSH"], start=1):
        segment = line[:3]
        if segment == "MSH":
            if due:
                yield started, "the message merges patients and has no PID and MRG with both numbers"
            if len(line) < 8:
                merging = due = False
                continue
            separators, started = line[3:8], number
            fields = line.split(separators[0])
            event = (fields[8] if len(fields) > 8 else "").split(separators[1])
            merging = due = event[0] == "ADT" and len(event) > 1 and event[1] in _MERGING
        elif merging and segment == "PID":
            surviving = _identifier(line, separators, 3) or _identifier(line, separators, 2)
        elif merging and segment == "MRG":
            retired = _identifier(line, separators, 1)
            if retired and surviving:
                due = False
                yield number, Merge(retired, surviving)
            else:
                due = False
                yield number, "MRG-1 or PID-3 has no number"


def _identifier(line: str, separators: str, number: int) -> str:
    """The medical record number of a field: of several identifiers that of type MR or PI, else the first."""
    field, component, repetition, escape = list(separators)[:4]
    fields = line.split(field)
    repeated = [one.split(component) for one in (fields[number] if len(fields) > number else "").split(repetition)]
    records = [one for one in repeated if len(one) > 4 and one[4] in ("MR", "PI")]
    chosen = (records or repeated)[0][0]
    pattern = re.escape(escape) + r"([FSRTE])" + re.escape(escape)
    return re.sub(pattern, lambda match: _FIELD_OF_ESCAPE[match[1]], chosen).strip()
