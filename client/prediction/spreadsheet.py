"""Tables that are safe to open in a spreadsheet program.

A spreadsheet program treats a cell that begins with one of ``= + - @`` as a formula, which may fetch an address or
start a program (OWASP, "CSV Injection"). PatientIDs, UIDs and paths come from others, so every text is made harmless;
numbers are unchanged.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable

_BEGINS = "=+\\-@\u2212\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
"""Characters that begin a formula, with the full-width and small forms that Excel treats the same."""
_PARTS = ",;|\t\r\n"
"""Cell separators: with a decimal comma, Excel splits cells at semicolons."""
_PASSED_OVER = '\\s"\\x00-\\x1f\u200b-\u200f\u202a-\u202e\u2060-\u2069\u00ad\ufeff'
"""White space, quotes and invisible characters; a formula may follow them."""
_FORMULA = re.compile(f"(^|[{_PARTS}])(?=[{_PASSED_OVER}]*[{_BEGINS}])|^(?=[\\x00-\\x1f])")
_ORDERS_DIRECTION = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_COMMANDS = {"Cc", "Cs", "Zl", "Zp"}


def table_of(rows: Iterable[Iterable[object]]) -> str:
    """The rows as CSV (RFC 4180)."""
    stream = io.StringIO()
    csv.writer(stream).writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def _cell(value: object) -> object:
    return value if isinstance(value, int | float) else harmless("" if value is None else str(value))


def harmless(text: str) -> str:
    """The text with an apostrophe where a formula would begin, and ``\\ufffd`` for every control character.

    Those are control characters, line breaks among them, halves of characters that a path may hold, and what turns the
    direction of writing, by which one name can be shown as another.
    """
    return "".join("\ufffd" if _commands(c) else c for c in _FORMULA.sub(r"\1'", text))


def _commands(character: str) -> bool:
    return unicodedata.category(character) in _COMMANDS or unicodedata.bidirectional(character) in _ORDERS_DIRECTION
