"""What gateway and trainer can see of the hospital's files: each is asked through its own view of the file system.

A container, or a unit of systemd, shows a program other files than this process sees.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from client.site import SiteSettings
from client.sources.settings import DicomwebSource, DimseSource
from tasks.machine.checklist import Claim, ClaimState
from tasks.machine.process import Process

_APART = "Keep them apart: consilium-site init --systemd, or the containers"


def claims(settings: SiteSettings, running: Mapping[str, Process]) -> Iterator[Claim]:
    """What the programs that run here must not see, and that the trainer cannot write to images."""
    if gateway := running.get("gateway"):
        records = [settings.ledger, settings.audit_log, settings.people, settings.key]
        data = [*records, settings.catalog, *folders(settings)]
        yield _hidden("The gateway can read neither images nor the privacy ledger", gateway, data)
    if trainer := running.get("trainer"):
        yield _hidden("The trainer cannot read the gateway's key", trainer, [settings.link / "node.key"])


def folders(settings: SiteSettings) -> list[Path]:
    """Where images are as files that are not ours."""
    return [source.path for source in settings.sources if not isinstance(source, DicomwebSource | DimseSource)]


def view(program: Process | None, path: Path) -> Path:
    """The path as a program sees it; as this process does if there is none, or if it does not let itself be seen."""
    if program is None:
        return path
    root = Path(f"/proc/{program.pid}/root")
    try:
        os.listdir(root)
    except OSError:
        return path
    return root / path.relative_to("/")


def _hidden(promise: str, program: Process, paths: Sequence[Path]) -> Claim:
    seen = [str(path) for path in paths if _is_readable(view(program, path))]
    state = ClaimState.WARN if seen else ClaimState.OK
    found = f"process {program.pid} can read {', '.join(seen)}" if seen else f"process {program.pid} can read none"
    return Claim(promise, state, found, _APART if seen else "", f"ls -ld /proc/{program.pid}/root{paths[0]}")


def _is_readable(path: Path) -> bool:
    """Whether somebody can read it. What systemd hides is there, with no permission for anybody, not even for root."""
    try:
        return bool(path.stat().st_mode & 0o444) and os.access(path, os.R_OK)
    except OSError:
        return False
