"""What a study's processes have printed, for the coordinator and for whoever asks for the study.

Each run of a study has a log of its own in ``logs/``; one that has grown too large is set aside there, and only the
newest part is served. A link to it, in a folder named after who asks, is what the
reverse proxy serves: to that person and to coordinators, by the name and the role in their certificates.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from server.deployment.server_dir import ServerDir
from server.study.folder import RUNNING, StudyFolder

_PIECE = 2**20
_POLL_S = 1.0


class Source(Protocol):
    """Where a study's logs are read."""

    def facts(self) -> dict[str, Any]:
        """What ``study.json`` says."""

    def read(self, run: int, offset: int) -> bytes:
        """At most a megabyte of a run's log from there on; empty where there is nothing (yet)."""


def file_of(run: int) -> str:
    """Name of a run's log."""
    return f"run-{run}.log"


def path_of(asked_by: str, study: str, run: int) -> str:
    """Where the reverse proxy serves a run's log, below ``/``."""
    return f"logs/{asked_by}/{study}/{file_of(run)}"


def show(server_dir: ServerDir, asked_by: str | None, study: str, run: int) -> None:
    """Let who asks for a study read the log of one of its runs."""
    if asked_by is None:
        return
    link = server_dir.shown / path_of(asked_by, study, run)
    link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        link.symlink_to(server_dir.logs / file_of(run))


class Here:
    """On the server itself."""

    def __init__(self, server_dir: ServerDir, folder: StudyFolder) -> None:
        self._home, self._folder = server_dir, folder

    def facts(self) -> dict[str, Any]:
        return self._folder.facts()

    def read(self, run: int, offset: int) -> bytes:
        with suppress(FileNotFoundError), (self._home.logs / file_of(run)).open("rb") as log:
            log.seek(offset, os.SEEK_SET)
            return log.read(_PIECE)
        return b""


def lines(source: Source, follow: bool, pause: Callable[[float], object] = time.sleep) -> Iterator[str]:
    """What a study's runs have printed, run by run.

    Args:
        follow: go on until the study has ended.
    """
    read, rest = dict[int, int](), dict[int, bytes]()
    while True:
        facts = source.facts()
        ended, runs = facts.get("state") != RUNNING, runs_of(facts)
        for run in runs:
            while piece := _next(source, run, read):
                read[run] += len(piece)
                *whole, rest[run] = (rest.get(run, b"") + piece).split(b"\n")
                yield from map(_plain, whole)
            if rest.get(run) and (ended or not follow):
                yield _plain(rest[run])
        if ended or not follow:
            return
        pause(_POLL_S)


def _next(source: Source, run: int, read: dict[int, int]) -> bytes:
    """What a log has from where it was read to. One that has become shorter was set aside, and a new one begun."""
    offset = read.setdefault(run, 0)
    piece = source.read(run, offset)
    if not piece and offset and not source.read(run, offset - 1):
        read[run] = 0
        piece = source.read(run, 0)
    return piece


def runs_of(facts: Mapping[str, Any]) -> list[int]:
    """The runs of a study, as its ``study.json`` names them."""
    known = facts.get("runs")
    runs = [run for run in known if isinstance(run, int)] if isinstance(known, list) else []
    last = facts.get("run")
    return runs + ([last] if isinstance(last, int) and last not in runs else [])


def _plain(line: bytes) -> str:
    """A line as far as a terminal can show it: parts of it come from others."""
    return "".join(c for c in line.decode("utf-8", "replace") if c.isprintable() or c == "\t")
