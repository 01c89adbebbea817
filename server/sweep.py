"""The studies of one command line with ``-m``, in whatever processes a launcher of Hydra's plays them.

A launcher hands results to its sweeper and nobody else, so each study notes its end in a file that all of them share.
One that fails is noted, told at the end, and keeps no other from its turn.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

_FILE, _PROCESS = "CONSILIUM_SWEEP", "CONSILIUM_SWEEP_PROCESS"


@dataclass(frozen=True)
class SweptStudy:
    """How one study of a sweep ended.

    Attributes:
        words: those by which it differs from the others.
        folder: its own, ``None`` where there is none or nothing in it to compare, as of a survey.
        failed: why it failed, "" if it has not.
    """

    words: list[str]
    folder: Path | None
    failed: str = ""


@contextmanager
def under_way() -> Iterator[Path]:
    """From here on studies note their ends in the file that is given, those in processes begun from here too."""
    with tempfile.TemporaryDirectory(prefix="consilium-sweep-") as folder:
        path = Path(folder) / "ended.jsonl"
        path.touch()
        ours = {_FILE: str(path), _PROCESS: str(os.getpid())}
        os.environ.update(ours)
        try:
            yield path
        finally:
            for name in ours:
                os.environ.pop(name, None)


def is_under_way() -> bool:
    """Whether this process plays a study of a sweep."""
    return _FILE in os.environ


def note(words: Sequence[str], folder: Path | None, failed: str = "") -> None:
    """Note how a study of this sweep ended.

    Raises:
        OSError: the file is not there, as on another machine that does not share it.
    """
    line = json.dumps([list(words), None if folder is None else str(folder), failed]) + "\n"
    file = os.open(os.environ[_FILE], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, line.encode())  # in one piece: several processes may be at it
    finally:
        os.close(file)


def noted(path: Path) -> list[SweptStudy]:
    """All that have ended, in the order in which they did."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [SweptStudy(words, None if folder is None else Path(folder), failed) for words, folder, failed in lines]


def console() -> Console:
    """For what a study shows: without bars that move where several processes share a terminal."""
    alone = os.environ.get(_PROCESS, str(os.getpid())) == str(os.getpid())
    return Console(highlight=False, emoji=False, force_interactive=None if alone else False)
