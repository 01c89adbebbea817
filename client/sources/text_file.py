"""Text files that hospitals and research sets write: labels, lists of patients.

Only what is certain is decoded. A guess between the many encodings without a mark could turn one patient's number into
another's, or into nobody's.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from client.errors import SiteMisconfigured
from tasks import faults

MOST_BYTES = 256 * 2**20
"""A few million rows."""
_SPREADSHEETS = {
    b"PK\x03\x04": "a spreadsheet (such as .xlsx or .ods) or another archive",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a spreadsheet of an older program (.xls)",
    b"\x1f\x8b": "compressed (.gz)",
    b"%PDF-": "a PDF",
}
"""What is often taken for text, by its first bytes."""
SAVE = "save it as UTF-8 (in spreadsheet programs: 'CSV UTF-8')"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
"""Byte order marks (Unicode 15, section 23.8); those of UTF-32 begin like UTF-16's, so they come first."""


def text_of(path: Path) -> str:
    """The text of a file: as its byte order mark says, else UTF-8.

    Raises:
        SiteMisconfigured: it cannot be read, is too large, or is in another encoding; with the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SiteMisconfigured(f"cannot read {faults.of_system(error)}") from error
    if kind := next((kind for mark, kind in _SPREADSHEETS.items() if content.startswith(mark)), ""):
        raise SiteMisconfigured(f"{path} is {kind} and no text, whatever its name says; open it there and {SAVE}")
    if len(content) > MOST_BYTES:
        raise SiteMisconfigured(f"{path} is larger than {MOST_BYTES // 2**20} MiB; remove unused columns")
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", "utf-8"))
    body = content[len(mark) :]
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        line = body.decode(encoding, "replace")[: error.start].count("\n") + 1 if encoding != "utf-8" else (
            body.count(b"\n", 0, error.start) + 1
        )  # fmt: skip
        kind = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        raise SiteMisconfigured(f"cannot read {path}, line {line}: its text is not {kind} ({error}); {SAVE}") from error
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise SiteMisconfigured(
            f"{path}, line {line}: contains NUL characters, as UTF-16 without its mark does; {SAVE}"
        )
    return text
