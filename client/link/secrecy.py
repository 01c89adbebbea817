"""Whether a hospital's keys, ledger, images and logs can be read by their owner only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote

from client.site import SiteSettings
from client.sources.settings import DicomwebSource, DimseSource
from tasks.machine import process
from tasks.machine.checklist import Claim, ClaimState
from tasks.machine.disk import open_to_others

_NAMED = 3
"""This many files are named; all are counted."""
_BESIDE = ("-wal", "-shm", "-journal")


def claims(settings: SiteSettings) -> Iterator[Claim]:
    """One claim for each file or folder that exists here; a separate gateway has few of them."""
    yield from process.secrets(_keys(settings))
    for name, paths in _kept(settings).items():
        yield from _kept_from_others(name, paths)


def _keys(settings: SiteSettings) -> Mapping[str, Path]:
    paths = {"the hospital's key": settings.key}
    paths |= {"the gateway's key": settings.link / "node.key"}
    paths |= {"the secret shared by gateway and trainer": settings.link / "trainer.secret"}
    paths |= {"the deputy's key for secure sums": settings.link / "deputy.key"}
    paths |= {"the privacy ledger": settings.ledger, "the audit log": settings.audit_log}
    for source in settings.sources:
        named = {"the archive's token": getattr(source, "token", None)}
        named |= {"the archive's password": getattr(source, "password", None)}
        named |= {"the key for the archive": getattr(source, "certificate_key", None)}
        paths |= {name: path for name, path in named.items() if path is not None}
    return paths


def _kept(settings: SiteSettings) -> Mapping[str, Sequence[Path]]:
    """Files, and folders with everything in them, by what they are."""
    records = (settings.ledger, settings.audit_log)
    paths = {
        "prepared images and their index": [settings.catalog],
        "what studies keep here between rounds": [settings.kept],
        "pending studies": [settings.audit_log.parent / "pending"],
        "who is who under which patient numbers": [settings.people],
        "the hospital's log": [settings.log],
        "the link to the server": [settings.link],
        "SQLite's files of ledger and audit log": [
            file.with_name(file.name + end) for file in records for end in _BESIDE
        ],
    }
    for number, source in enumerate(settings.sources, 1):
        if isinstance(source, DicomwebSource | DimseSource):
            paths[f"images from the archive (source {number})"] = [source.path]
    return paths


def _kept_from_others(name: str, paths: Sequence[Path]) -> Iterator[Claim]:
    promise = f"Only their owner can access {name}"
    there = [path for path in paths if path.exists()]
    if not there:
        return
    words = " ".join(quote(str(path)) for path in there)
    see = f"find -L {words} -perm /077"
    try:
        offending = [one for path in there for one in open_to_others(path)]
        ours = all(one.stat().st_uid == os.geteuid() for one in offending)
    except OSError as error:
        yield Claim(
            promise, ClaimState.WARN, f"cannot be checked: {error}", "Run this as the owner of all files in it", see
        )
        return
    if offending:
        whose = "" if ours else ", as the owner of each file; not all are yours"
        yield Claim(promise, ClaimState.FAIL, _told(offending), f"chmod -R go= {words}{whose}", see)
    else:
        yield Claim(promise, ClaimState.OK, f"accessible by their owner only: {words}", see=see)


def _told(offending: Sequence[Path]) -> str:
    named = ", ".join(f"{one} (mode {one.stat().st_mode & 0o777:04o})" for one in offending[:_NAMED])
    more = len(offending) - _NAMED
    return f"accessible by others: {named}" + (f" and {more} more" if more > 0 else "")
