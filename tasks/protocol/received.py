"""Files that somebody has sent: an invitation, a request, a study's document. Whoever opens one did not write it, so
what is wrong with it is told in a sentence, with what to do."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from tasks import faults


class Unusable(ValueError):
    """A file is not what it should be."""


def text_in(path: Path, what: str, most_bytes: int) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        what: what it should be, with its article, such as ``an invitation``.

    Raises:
        Unusable: it cannot be read, is no text, is empty, or is larger than what it should be can be.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)  # a sender may send anything of any size
    except OSError as error:
        error.filename = None  # whoever is told knows which file it was
        raise Unusable(f"cannot be read as {what}: {faults.of_system(error)}") from error
    except ValueError as error:  # a name that no file can have
        raise Unusable(f"cannot be read as {what}: {error}") from error
    if len(content) > most_bytes:
        raise Unusable(f"{what} has at most {most_bytes} bytes, so it is another file")
    if not content.strip():
        raise Unusable("it is empty: it was not copied whole; ask for it again")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable(f"cannot be read as {what}: it is not text in UTF-8, so it is another file") from error


def faults_of(error: ValidationError, what: str, most: int = 100) -> str:
    """What is wrong with a JSON text, each fault with its place: ``not WHAT: FAULTS``.

    Args:
        what: what it should be, with its article.
        most: how many faults are named.
    """
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        at = first["ctx"]["error"]
        return f"not {what}: it is no JSON ({at}), so it is another file, or was cut short on its way"
    return f"not {what}: {faults.of_values(error, most)}"
