"""The link to the server: create keys and a request, run gateway and trainer.

Tested in ``tests/client/link/test_security.py``.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from client.cli.output import COLOURS, HERE, REFUSED, AsJson, SiteFile, answer, fail, table
from client.errors import SiteMisconfigured
from client.link import security as examined
from client.link.gateway import QUIET, Link, command, environment
from client.link.gateway import enroll as ask
from client.link.gateway import link as read_link
from client.link.observed import observe
from client.link.watch import Watch
from client.oversight import premises
from client.site import SiteSettings, load
from tasks.machine import checklist
from tasks.machine.checklist import ClaimState
from tasks.machine.pulse import ALIVE, Watched
from tasks.machine.supervision import Program, Supervisor, all_well, holder, only_one, stop_on_signals
from tasks.protocol import enrolment

LISTEN = "127.0.0.1:9094"
_SILENT_S = 45.0
"""A program that has shown no sign of life for so long is not well: longer than any call that it waits for."""
_UNHEARD_S = 60.0
"""A gateway of which the server has acknowledged no heartbeat for so long is not well; they are some 20 s apart."""

GatewayAddress = Annotated[
    str,
    typer.Option(
        "--gateway",
        envvar="CONSILIUM_GATEWAY",
        metavar="HOST:PORT",
        help="Address on which the gateway listens for the trainer.",
    ),
]


class Role(StrEnum):
    """Which of the hospital's programs runs here."""

    BOTH = "both"
    GATEWAY = "gateway"
    TRAINER = "trainer"


def enroll(
    invitation: Annotated[Path, typer.Option("--invitation", help="The file the coordinator sent you.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the request.")] = None,
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Create this hospital's key pair and a request for the coordinator. Nothing in the request is secret."""
    settings = load(site)
    try:
        invited = enrolment.invitation_in(invitation)
    except enrolment.BadEnrolment as error:
        raise SiteMisconfigured(f"{invitation}: {error}") from error
    request = ask(settings, invited)
    if problem := premises.not_answering(settings):
        raise SiteMisconfigured(f"this hospital would be admitted and answer nothing: {problem}")
    path = out or site.parent / f"{settings.name}.request.json"
    path.write_text(request.model_dump_json(indent=1) + "\n", "utf-8")
    facts = {
        "request": path,
        "key": enrolment.key_fingerprint(request),
        "authority": enrolment.authority_fingerprint(invited),
        "server": invited.server,
        "public_size": request.public_size,
    }
    lines = [
        f"wrote {path}; send it to the coordinator",
        f"your key:             {facts['key']}",
        f"the server's authority: {facts['authority']}",
        f"your public size:     {request.public_size}, fixed when the server admits you",
        "Compare key and authority with the coordinator by telephone; then run: consilium-site run",
    ]
    if settings.server is None:
        lines.append(f"Add to {site}:   server: {invited.server}")
    answer(as_json, facts, *lines)


def run(
    only: Annotated[
        Role, typer.Option("--only", help="Run only one of the two, where they are on separate machines.")
    ] = Role.BOTH,
    gateway: GatewayAddress = LISTEN,
    healthy: Annotated[bool, typer.Option("--healthy", help="Only report health, by the exit code.")] = False,
    site: SiteFile = HERE,
) -> None:
    """Take part: run gateway and trainer until SIGTERM or Ctrl-C, and restart each if it ends.

    Only the gateway connects to the server: over HTTPS, through the proxy in HTTPS_PROXY if set. Nothing listens except
    the gateway, for the trainer.
    """
    settings = load(site)
    name = settings.link / f"{only}.lock"
    if healthy:
        raise typer.Exit(0 if holder(name) and all_well(settings.link / f"{only}.json") else 1)
    link = read_link(settings, only is Role.TRAINER)
    with only_one(name) as alone:
        if not alone:
            raise SiteMisconfigured(f"already running: the lock {name} is held")
        programs = _programs(settings, link, site.resolve(), only, gateway)
        supervisor = Supervisor(programs, _tell, settings.link / f"{only}.json")
        stop_on_signals(supervisor)
        _tell(f"{settings.name} takes part in studies of {link.server}")
        if problem := premises.not_answering(settings):
            _tell(problem)
        state = settings.link / f"{only}.json"
        observe(site.resolve(), settings, state, link if only is not Role.TRAINER else None, _tell)
        supervisor.run(Watch(link, supervisor, _tell) if only is not Role.TRAINER else None)


def security(
    html: Annotated[Path | None, typer.Option("--html", help="Also write the checklist as a page to print.")] = None,
    gateway: GatewayAddress = LISTEN,
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Checklist for your security officer: verify every guarantee against the running installation.

    Exit code 1 when one fails. If gateway and trainer run on separate machines, run this on both.
    """
    settings = load(site)
    require_address(gateway)
    claims_by_heading = examined.checklist(settings, site, gateway)
    if html is not None:
        checklist.write(html, settings.name, claims_by_heading, examined.UNSEEN)
    shown = [
        table(heading, ("", "claim", "result", "what to do"), [
            (Text(claim.state, style=COLOURS[claim.state]), claim.promise, claim.found, claim.remedy)
            for claim in claims
        ], whole=("",))
        for heading, claims in claims_by_heading.items()
    ]  # fmt: skip
    answer(
        as_json,
        checklist.facts(claims_by_heading),
        *shown,
        f"{checklist.count(claims_by_heading)}." + ("" if html is None else f" Page: {html}"),
    )
    if checklist.worst(claims_by_heading) is ClaimState.FAIL:
        fail(REFUSED)


def _programs(settings: SiteSettings, link: Link, site: Path, only: Role, gateway: str) -> list[Program]:
    require_address(gateway)
    logs = settings.link / "logs"
    train = [sys.executable, "-m", "client.link.trainer", gateway, str(link.secret)]
    host = gateway.rpartition(":")[0]
    trainer_variables = QUIET | {
        "CONSILIUM_SITE": str(site),
        ALIVE: str(link.trainer_alive),
        "OMP_WAIT_POLICY": "PASSIVE",
        "NO_PROXY": host,
        "no_proxy": host,
    }
    parts = {
        Role.GATEWAY: Program(
            "gateway",
            command(link, gateway),
            logs / "gateway.log",
            environment(link),
            healthy=Watched(link.alive, _SILENT_S),
            heard=Watched(link.heard, _UNHEARD_S),
        ),
        Role.TRAINER: Program(
            "trainer", train, logs / "trainer.log", trainer_variables, healthy=Watched(link.trainer_alive, _SILENT_S)
        ),
    }
    return [
        replace(program, log_bytes=settings.log_bytes) for part, program in parts.items() if only in (Role.BOTH, part)
    ]


def require_address(gateway: str) -> None:
    if gateway.count(":") != 1 or not gateway.rpartition(":")[2].isdecimal():
        raise SiteMisconfigured(f"--gateway {gateway}: must be HOST:PORT, such as {LISTEN}")


def _tell(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
