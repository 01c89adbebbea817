"""What goes wrong outside of this program, in one sentence that says what to do about it: what the operating system
refuses, values that somebody has set, and what nobody has foreseen.

A traceback tells a hospital's staff nothing, and may show them values of variables that they should not see.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the commands' entries need the rest before anything slow is imported
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

SHOW = "CONSILIUM_TRACEBACK"
"""With this variable set, what was not foreseen shows where it happened."""
UNFORESEEN = 70
"""Exit code of what was not foreseen (EX_SOFTWARE of sysexits.h)."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_REMEDIES = {
    errno.ENOENT: "there is no such file or folder; check the name, or create the folder first",
    errno.EACCES: "this user may not use it; change its owner or mode, or run the command as another user",
    errno.EPERM: "this user may not do that; change its owner or mode, or run the command as another user",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOTDIR: "a part of the path is a file and no folder; name another path",
    errno.EEXIST: "it exists already; name another, or move it away first",
    errno.ENOTEMPTY: "the folder is not empty; name another, or move away what is in it",
    errno.ENAMETOOLONG: "the name is too long; name another path",
    errno.ELOOP: "it is a link that leads back to itself; name another path",
    errno.EROFS: "it is on a disk that can only be read; name a folder on another disk",
    errno.ENOSPC: "the disk is full; free some space, then give the same command again",
    errno.EDQUOT: "this user's share of the disk is used up; free some space, then give the same command again",
    errno.EFBIG: "the file would be larger than the disk allows; use another disk",
    errno.EIO: "the disk does not answer as it should; check the volume, then give the same command again",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n), then give the same command again",
    errno.EADDRINUSE: "another program listens there already; name another port",
    errno.ECONNREFUSED: "nobody listens there; is the other program running, and the address right?",
}


def of_system(error: OSError) -> str:
    """What the operating system has refused, where, and what to do.

    >>> of_system(FileNotFoundError(errno.ENOENT, "No such file or directory", "x.csv"))
    'x.csv: there is no such file or folder; check the name, or create the folder first'
    >>> of_system(OSError(errno.ENOSPC, "No space left on device"))
    'the disk is full; free some space, then give the same command again'
    """
    words = _REMEDIES.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__
    name = error.filename2 if error.filename2 is not None else error.filename
    where = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
    return f"{where if len(where) <= _LONGEST_PATH else where[:_LONGEST] + '...'}: {words}" if where else words


_DATABASES = {
    sqlite3.SQLITE_FULL: _REMEDIES[errno.ENOSPC],
    sqlite3.SQLITE_IOERR: "the disk does not take or give what it should; is it full, or its volume gone?",
    sqlite3.SQLITE_READONLY: "it can only be read; is the disk, or the folder it lies in, open to this user?",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; do file and folder belong to this user, and is there space?",
    sqlite3.SQLITE_PERM: _REMEDIES[errno.EACCES],
    sqlite3.SQLITE_BUSY: "another program uses it; give the same command again when that has ended",
    sqlite3.SQLITE_LOCKED: "another program uses it; give the same command again when that has ended",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup, or delete it if it can be made again",
    sqlite3.SQLITE_NOTADB: "it is damaged; restore it from a backup, or delete it if it can be made again",
}


def of_database(error: sqlite3.Error) -> str:
    """What SQLite has refused, and what to do. SQLite does not say of which file.

    >>> of_database(sqlite3.OperationalError("something else"))
    'a database cannot be used: something else'
    """
    words = _DATABASES.get((getattr(error, "sqlite_errorcode", None) or 0) & 0xFF, "")
    return f"a database cannot be used ({error}): {words}" if words else f"a database cannot be used: {error}"


_VALUES = {
    "missing": "is missing",
    "extra_forbidden": "there is no such setting here; take it out",
    "model_type": "must be NAME: VALUE pairs",
    "model_attributes_type": "must be NAME: VALUE pairs",
    "dict_type": "must be NAME: VALUE pairs",
    "dataclass_type": "must be NAME: VALUE pairs",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text; put it in quotes",
    "path_type": "must be a path, in quotes if it looks like something else",
    "too_short": "must have at least {min_length} entries",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}, not '{tag}'",
    "union_tag_not_found": "{discriminator} is missing, which says what the others mean",
}
_FORMS = {
    r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$": "must be at most 40 letters, digits, - and _, a letter or digit first",
    r"^[A-Za-z0-9.-]+$": "must be a name or an address of a machine, such as federation.example.org",
    r"^[A-Za-z0-9.-]+:\d{1,5}$": "must be HOST:PORT, such as federation.example.org:8443",
    r"^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):\d{1,5}$": "must be ADDRESS:PORT, such as 127.0.0.1:9464",
    r"^(auto|cpu|mps|cuda(:\d{1,2})?)$": "must be auto, cpu, mps, cuda, or a certain GPU such as cuda:1",
}
"""Patterns of settings, in words."""
_WITH_VALUE = ("_parsing", "_type", "_from_float", "literal_error", "_than", "_than_equal", "_mismatch")
_LONGEST, _LONGEST_PATH = 60, 400


def of_value(fault: ErrorDetails) -> str:
    """What is wrong with one value, as pydantic found it, without its place."""
    facts = fault.get("ctx", {})
    words = _VALUES.get(fault["type"], "").format(**facts) or _FORMS.get(str(facts.get("pattern")), "")
    words = words or fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    given = fault["input"]
    plain = isinstance(given, str | int | float) or given is None
    if not (plain and fault["type"].endswith(_WITH_VALUE)):
        return words
    shown = "nothing" if given is None else repr(given)
    what, semicolon, remedy = words.partition("; ")
    return f"{what}, not {shown if len(shown) <= _LONGEST else shown[:_LONGEST] + '...'}{semicolon}{remedy}"


def of_values(error: ValidationError, most: int = 100) -> str:
    """Each fault of what was read, with its place."""
    found = error.errors(include_url=False)
    missing = [_place(fault) for fault in found if fault["type"] == "missing"]
    said = [": ".join(filter(None, (_place(fault), of_value(fault)))) for fault in found if fault["type"] != "missing"]
    if missing:
        said.append(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    return "; ".join(said[:most]) + (f"; and {len(said) - most} more" if len(said) > most else "")


def _place(fault: ErrorDetails) -> str:
    return ".".join(map(str, fault["loc"]))


@contextmanager
def told(program: str) -> Iterator[None]:
    """Ends the program with a sentence instead of a traceback, whatever was not foreseen."""
    try:
        yield
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:  # before the program could say more, or once more while it did
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        print(unforeseen(program, error), file=sys.stderr)
        sys.exit(UNFORESEEN)


def unforeseen(program: str, error: Exception) -> str:
    """The sentence about a defect; before it, if the variable ``SHOW`` is set, where it happened."""
    where = "".join(traceback.format_exception(error)) if os.environ.get(SHOW) else ""
    text = " ".join(str(error).split())
    return (
        f"{where}{program} has met something that it did not foresee ({type(error).__name__}: {text}): this is a "
        f"defect in it. What was finished before is kept. To see where, give the same command with {SHOW}=1 in the "
        "environment, and report that; it may name files and values, so read it first."
    )
