"""The server as a whole: founded, started, looked at, stopped."""

from __future__ import annotations

import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from server.cli.output import DOWN, HERE, REFUSED, AsJson, HomeFolder, answer, fail, table
from server.deployment import nginx, pki
from server.deployment import security as examined
from server.deployment.server_dir import ServerDir, ServerSettings, make, read
from server.errors import ServerMisconfigured, StudyError
from server.runtime.flower_private import Control, ControlRefused
from server.study.folder import StudyFolder, committed
from tasks.machine import checklist
from tasks.machine.checklist import ClaimState
from tasks.machine.disk import write_whole
from tasks.machine.supervision import Program, Supervisor, holder, only_one, stop_on_signals
from tasks.protocol import enrolment

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # jobs run scorers, which are code
    "MLFLOW_ENABLE_AI_GATEWAY": "false",  # it calls whatever address a researcher gives it
    "DO_NOT_TRACK": "true",
    "PYTHONUNBUFFERED": "1",
}
"""Nothing calls home, and no run makes us install anything."""
_DOWN_S = 60.0


def init(
    host: Annotated[str, typer.Option("--host", help="Name or address by which others dial the server.")],
    hospitals: Annotated[
        str, typer.Option("--hospitals", help="ADDRESS:PORT of the hospitals' door.")
    ] = "0.0.0.0:8443",
    researchers: Annotated[
        str, typer.Option("--researchers", help="ADDRESS:PORT of the researchers' door; an inner network.")
    ] = "127.0.0.1:8444",
    superlink_port: Annotated[int, typer.Option("--superlink-port", help="On loopback.")] = 9443,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", help="On loopback.")] = 9500,
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Found a server: folders, settings, authority, certificate, invitation for hospitals. Nothing is replaced."""
    (outer, outer_port), (inner, inner_port) = _door(hospitals, "--hospitals"), _door(researchers, "--researchers")
    settings = ServerSettings(
        host=host,
        hospitals_address=outer,
        hospitals_port=outer_port,
        researchers_address=inner,
        researchers_port=inner_port,
        superlink_port=superlink_port,
        mlflow_port=mlflow_port,
    )
    house = make(home, settings)
    pki.create_authority(house)
    if not house.certificate.exists():
        pki.issue_server(house)
    s = house.settings
    invitation = enrolment.Invitation(
        server=f"{s.host}:{s.hospitals_port}", certificate_authority=house.authority.read_text("utf-8")
    )
    write_whole(house.invitation, invitation.model_dump_json(indent=1).encode())
    nginx.write(house)
    lines = [
        f"The server's folder is {house.path}; keep a copy of {house.path / 'pki'} in a safe.",
        f"Send {house.invitation} to the hospitals.",
        f"Its fingerprint is {enrolment.authority_fingerprint(invitation)}",
        f"Then: consilium-server up --home {home}",
    ]
    answer(as_json, {"home": house.path, "invitation": house.invitation}, *lines)


def _door(text: str, option: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    if not address or not port.isdecimal():
        raise ServerMisconfigured(f"{option} {text}: must be ADDRESS:PORT, such as 127.0.0.1:8444")
    return address.strip("[]"), int(port)


def up(home: HomeFolder = HERE) -> None:
    """Run the server until it is told to stop: SuperLink, studies, MLflow, fence; each is started again if it ends."""
    house = read(home)
    if pki.days_left(house) < 0:
        raise ServerMisconfigured("the server's certificate has expired, nobody would come: consilium-server renew")
    with only_one(house.lock) as alone:
        if not alone:
            raise ServerMisconfigured(f"the server of {house.path} is up already; consilium-server status")
        supervisor = Supervisor(_programs(house), _tell, house.state)
        stop_on_signals(supervisor)
        _tell(f"Server {house.settings.host} starts; consilium-server status says when it is well.")
        supervisor.run()


def _tell(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


def _programs(home: ServerDir) -> list[Program]:
    beside = Path(sys.executable).parent
    quiet = QUIET | {"FLWR_HOME": str(home.path / "superlink")}
    superlink = [str(beside / "flower-superlink"), "--host", "127.0.0.1", "--port", str(home.settings.superlink_port)]
    superlink += ["--ssl-ca-certfile", str(home.authority), "--ssl-certfile", str(home.certificate)]
    superlink += ["--ssl-keyfile", str(home.certificate_key), "--enable-supernode-auth"]
    superlink += ["--isolation", "process", "--superexec-auth-secret-file", str(home.superexec_secret)]
    superlink += ["--database", str(home.database), "--disable-runtime-dependency-installation"]
    studies = [sys.executable, "-m", "server.deployment.superexec", str(home.path)]
    logs, address = home.logs, f"https://{home.superlink}/health"
    return [
        Program("superlink", superlink, logs / "superlink.log", quiet, lambda: _answers(home, address)),
        Program("mlflow", _mlflow(home), logs / "mlflow.log", quiet, lambda: _answers(home, f"{home.mlflow}/health")),
        Program("studies", studies, logs / "studies.log", quiet),
        Program("fence", nginx.command(home), logs / "fence.out", {}, lambda: _answers(home, _door_of(home))),
    ]


def _mlflow(home: ServerDir) -> list[str]:
    s = home.settings
    folder = home.path / "mlflow"
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1"]
    command += ["--port", str(s.mlflow_port), "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", f"file://{folder}/artifacts"]
    return [*command, "--cors-allowed-origins", f"https://{s.host}:{s.researchers_port}"]


def _door_of(home: ServerDir) -> str:
    address = home.settings.hospitals_address
    inner = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, address)
    return f"https://{inner}:{home.settings.hospitals_port}/health"


def _answers(home: ServerDir, url: str) -> bool:
    context = None
    if url.startswith("https"):
        context = ssl.create_default_context(cafile=str(home.authority))
        context.check_hostname = False  # it dials an address of this machine, the certificate has the outer name
    try:  # trust_env: no proxy leads to this machine
        return httpx.get(url, verify=context or True, timeout=3, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def down(home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Stop the server. Studies go on after the last committed round when it is up again."""
    house = read(home)
    pid = holder(house.lock)
    if pid is None:
        answer(as_json, {"stopped": False}, "The server is not up.")
        return
    os.kill(pid, signal.SIGTERM)
    ends = time.monotonic() + _DOWN_S
    while holder(house.lock) == pid:
        if time.monotonic() > ends:
            raise StudyError(f"process {pid} has not ended within {_DOWN_S:g} s; see {house.logs}")
        time.sleep(0.2)
    answer(as_json, {"stopped": True}, "The server is down.")


def security(
    html: Annotated[Path | None, typer.Option("--html", help="Write the checklist there as a page to print.")] = None,
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """A checklist for your security officer: each promise of this server, looked at while it runs.

    Exit code 1 when one fails.
    """
    house = read(home)
    found = examined.checklist(house, QUIET)
    if html is not None:
        checklist.write(html, house.settings.host, found, examined.UNSEEN)
    shown = [
        table(heading, ("", "claim", "found", "what to do"), [
            (claim.state, claim.promise, claim.found, claim.remedy) for claim in claims
        ])
        for heading, claims in found.items()
    ]  # fmt: skip
    answer(
        as_json,
        checklist.facts(found),
        *shown,
        f"{checklist.count(found)}." + ("" if html is None else f" Page: {html}"),
    )
    if checklist.worst(found) is ClaimState.FAIL:
        fail(REFUSED)


def status(home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Whether the server is well, who is there, and how far each study is. Exit code 3 when it is not up or well."""
    house = read(home)
    facts = _facts(house)
    shown = [
        table("Programs", ("", "process", "well", "starts"), [
            (name, p["pid"] or "-", "yes" if p["well"] else "no", p["starts"]) for name, p in facts["programs"].items()
        ]),
        table("Hospitals", ("", "state", "admitted", "size", "key"), [
            (name, h["state"], h["admitted"], h["public_size"] or "-", h["key"])
            for name, h in facts["hospitals"].items()
        ]),
        table("Studies", ("", "state", "rounds", "why"), [
            (name, s["state"], f"{s['committed']} of {s['rounds']}", s["error"]) for name, s in facts["studies"].items()
        ]),
    ]  # fmt: skip
    if facts["certificate_days"] < pki.WARN_DAYS:
        days = facts["certificate_days"]
        shown.append(table(f"The certificate has {days} days left: consilium-server renew", (), []))
    answer(as_json, facts, *shown)
    if not facts["up"] or not all(program["well"] for program in facts["programs"].values()):
        fail(DOWN)


def _facts(home: ServerDir) -> dict[str, Any]:
    is_up = holder(home.lock) is not None
    try:
        programs = json.loads(home.state.read_text("utf-8")) if is_up else {}
    except (OSError, ValueError):
        programs = {}
    states = _states(home) if is_up else {}
    hospitals = {
        name: {
            "state": states.get(one.node, "unknown"),
            "admitted": one.admitted,
            "key": one.key,
            "public_size": one.public_size,
        }
        for name, one in home.hospitals().items()
    }
    researchers = sorted(path.stem for path in (home.path / "researchers").glob("*.pem"))
    return {
        "up": is_up,
        "programs": programs,
        "certificate_days": round(pki.days_left(home)),
        "hospitals": hospitals,
        "researchers": researchers,
        "studies": dict(_studies(home)),
    }


def _states(home: ServerDir) -> dict[int, str]:
    try:
        return Control(home.superlink, home.authority).nodes()
    except ControlRefused as error:
        Console(stderr=True).print(f"The SuperLink does not answer: {error}", markup=False)
        return {}


def _studies(home: ServerDir) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((home.path / "studies").glob("*/study.json")):
        facts = StudyFolder(path.parent.name, path.parent, resumed=True).facts()
        yield (
            facts["study"],
            {
                "state": facts.get("state", "unknown"),
                "committed": committed(path.parent),
                "rounds": facts["config"]["federation"]["rounds"],
                "run": facts.get("run"),
                "error": facts.get("error", ""),
            },
        )
