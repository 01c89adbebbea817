"""Text tables as hospitals and research sets write them.

A row that does not match the header is an error, with its line: guessing could give a patient someone else's label.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.errors import SiteMisconfigured
from client.sources.text_file import text_of

MOST_COLUMNS = 10_000
_SHOWN = 60
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class TextTable:
    """A complete table.

    Attributes:
        columns: as the first line names them.
        rows: text by column; every row has all.
        lines: at which line of the file each row begins, from 1.
    """

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]


def read_table(path: Path, delimiter: str = "") -> TextTable:
    """Read a table whose first line names the columns; empty rows are skipped.

    Args:
        delimiter: what parts the cells; found out where it is not said, as spreadsheets of many countries save a CSV
            with semicolons.

    Raises:
        SiteMisconfigured: the file cannot be read, is no such table, or has rows with another number of cells than its
            header; with line numbers.
    """
    text = text_of(path)
    header = text[: text.find("\n") + 1] or text
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter or max(_DELIMITERS, key=header.count), strict=True
    )
    try:
        columns = _columns(path, next(reader, []))
        table, wrong = TextTable(columns, [], []), []
        for line, cells in _cells(reader):
            if fault := _fault(columns, cells):
                wrong.append(f"line {line}: {fault}")
            elif any(map(str.strip, cells)):
                table.rows.append(dict(zip(columns, cells, strict=False)))  # more cells than columns are empty
                table.lines.append(line)
    except csv.Error as error:
        raise SiteMisconfigured(
            f"cannot read {path}, line {reader.line_num}: {error}; is a quotation mark before it not closed?"
        ) from error
    if wrong:
        raise SiteMisconfigured(f"{path} has rows that do not match its header; fix them:\n  {listed(wrong)}")
    return table


def listed(wrong: Sequence[str]) -> str:
    """The first ten, one per line, and the number of others."""
    return "\n  ".join(wrong[:10]) + ("" if len(wrong) <= 10 else f"\n  and {len(wrong) - 10} more")


def shown(text: str) -> str:
    """A cell for a message: quoted, on one line, without terminal commands, shortened if long."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


def names(columns: Sequence[str]) -> str:
    """Column names for a message."""
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    return ", ".join(c if c.isprintable() and c and len(c) <= _SHOWN else shown(c) for c in columns[:20]) + more


def _columns(path: Path, header: list[str]) -> tuple[str, ...]:
    if len(header) > MOST_COLUMNS:
        raise SiteMisconfigured(f"{path} has {len(header)} columns, more than {MOST_COLUMNS}; is it the right file?")
    if twice := [name for name, number in Counter(header).items() if name and number > 1]:
        raise SiteMisconfigured(f"{path} has several columns {names(twice)}: keep one of each")
    return tuple(header)


def _cells(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows, each with its first line number; a cell may have line breaks."""
    line = reader.line_num + 1
    for cells in reader:
        yield line, cells
        line = reader.line_num + 1


def _fault(columns: tuple[str, ...], cells: list[str]) -> str:
    """The fault of a row, "" if there is none. Some spreadsheets end each line with extra empty cells."""
    if not any(map(str.strip, cells)):
        return ""
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        return f"{len(cells)} cells, the header has {len(columns)}; it begins with {', '.join(map(shown, cells[:2]))}"
    return ""
