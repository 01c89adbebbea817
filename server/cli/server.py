"""The server as a whole: initialise, start, examine, stop.

Tested in ``tests/server/cli/test_people.py``.
"""

from __future__ import annotations

import os
import signal
import ssl
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import httpx
import typer
from pydantic import ValidationError

from server.cli.output import HERE, REFUSED, AsJson, HomeFolder, answer, fail, table
from server.deployment import nginx, pki, register, systemd
from server.deployment import security as examined
from server.deployment.log_keeper import LogKeeper
from server.deployment.observed import observe
from server.deployment.server_dir import ServerDir, ServerSettings, make, read
from server.errors import ServerMisconfigured, StudyError
from server.runtime.superlink import MALLOC
from tasks import faults
from tasks.machine import checklist
from tasks.machine.checklist import ClaimState
from tasks.machine.disk import write_whole
from tasks.machine.pulse import ALIVE, HEARD, Watched
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
"""No library calls home, and no run installs anything."""
_DOWN_S = 60.0
_SILENT_S = 60.0
"""After so long without a sign of life, the program that plays studies is not well: longer than its longest calls."""


def init(
    host: Annotated[str, typer.Option("--host", help="Name or address by which others reach the server.")],
    hospitals: Annotated[
        str, typer.Option("--hospitals", help="ADDRESS:PORT of the hospitals' endpoint.")
    ] = "0.0.0.0:8443",
    researchers: Annotated[
        str, typer.Option("--researchers", help="ADDRESS:PORT of the researchers' endpoint; an internal network.")
    ] = "127.0.0.1:8444",
    superlink_port: Annotated[int, typer.Option("--superlink-port", help="The SuperLink's port, on loopback.")] = 9443,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", help="MLflow's port, on loopback.")] = 9500,
    units: Annotated[bool, typer.Option("--systemd", help="Also write a unit for systemd in the folder.")] = False,
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Initialise a server: folders, settings, authority, certificate, invitation for hospitals. Nothing is replaced."""
    (outer, outer_port), (inner, inner_port) = (
        _endpoint(hospitals, "--hospitals"),
        _endpoint(researchers, "--researchers"),
    )
    try:
        settings = ServerSettings(
            host=host,
            hospitals_address=outer,
            hospitals_port=outer_port,
            researchers_address=inner,
            researchers_port=inner_port,
            superlink_port=superlink_port,
            mlflow_port=mlflow_port,
        )
    except ValidationError as error:
        raise ServerMisconfigured(f"no such server can be: {faults.of_values(error)}; nothing was written") from None
    server_dir = make(home, settings)
    pki.create_authority(server_dir)
    if not server_dir.certificate.exists():
        pki.issue_server(server_dir)
    s = server_dir.settings
    invitation = enrolment.Invitation(
        server=f"{s.host}:{s.hospitals_port}", certificate_authority=server_dir.authority.read_text("utf-8")
    )
    write_whole(server_dir.invitation, invitation.model_dump_json(indent=1).encode())
    nginx.write(server_dir)
    lines = [
        f"The server's folder is {server_dir.path}; keep a copy of {server_dir.path / 'pki'} in a safe.",
        f"Send {server_dir.invitation} to the hospitals.",
        f"Its fingerprint is {enrolment.authority_fingerprint(invitation)}",
        f"Then: consilium-server up --home {home}",
    ]
    if units:
        lines[-1] = f"Then, as root, now or to upgrade: sh {systemd.write_units(server_dir)[-1]}"
    answer(as_json, {"home": server_dir.path, "invitation": server_dir.invitation}, *lines)


def _endpoint(text: str, option: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    if not address or not port.isdecimal():
        raise ServerMisconfigured(f"{option} {text}: must be ADDRESS:PORT, such as 127.0.0.1:8444")
    return address.strip("[]"), int(port)


def up(home: HomeFolder = HERE) -> None:
    """Run the server until it is stopped: SuperLink, studies, MLflow, nginx; each is restarted if it ends."""
    server_dir = read(home)
    if pki.days_left(server_dir) < 0:
        raise ServerMisconfigured(
            "the server's certificate has expired, so no hospital would connect: consilium-server renew"
        )
    with only_one(server_dir.lock) as alone:
        if not alone:
            raise ServerMisconfigured(f"the server of {server_dir.path} is already running; consilium-server status")
        make(server_dir.path, server_dir.settings)  # what an older release did not make, or somebody has deleted
        pki.issue_superlink(server_dir)
        register.publish(server_dir)
        supervisor = Supervisor(_programs(server_dir), _tell, server_dir.state)
        stop_on_signals(supervisor)
        observe(server_dir, _tell)
        _tell(f"Server {server_dir.settings.host} is starting; consilium-server status shows when it is ready.")
        keep_logs = LogKeeper(server_dir, lambda: supervisor.signal("nginx", nginx.REOPEN))
        reload = nginx.Reloader(server_dir, lambda: supervisor.signal("nginx", nginx.RELOAD))

        def each() -> None:
            keep_logs()
            reload()

        supervisor.run(each)


def _tell(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


def _programs(server_dir: ServerDir) -> list[Program]:
    quiet = QUIET | {"FLWR_HOME": str(server_dir.path / "superlink")}
    port = str(server_dir.settings.superlink_port)
    superlink = [sys.executable, "-m", "server.runtime.superlink", "--host", "127.0.0.1", "--port", port]
    certificate, key = pki.superlink_certificate(server_dir)
    superlink += ["--ssl-ca-certfile", str(server_dir.authority), "--ssl-certfile", str(certificate)]
    superlink += ["--ssl-keyfile", str(key), "--enable-supernode-auth"]
    superlink += ["--isolation", "process", "--superexec-auth-secret-file", str(server_dir.superexec_secret)]
    superlink += ["--database", str(server_dir.database), "--disable-runtime-dependency-installation"]
    studies = [sys.executable, "-m", "server.deployment.superexec", str(server_dir.path)]
    logs, address = server_dir.logs, f"https://{server_dir.superlink}/health"
    found = [
        Program(
            "superlink",
            superlink,
            logs / "superlink.log",
            quiet | MALLOC,
            lambda: _answers(server_dir, address),
        ),
        Program(
            "mlflow",
            _mlflow(server_dir),
            logs / "mlflow.log",
            quiet,
            lambda: _answers(server_dir, f"{server_dir.mlflow}/health"),
        ),
        Program(
            "studies",
            studies,
            logs / "studies.log",
            quiet | MALLOC | {name: str(path) for name, path in server_dir.signs.items()},  # studies inherit them
            healthy=Watched(server_dir.signs[ALIVE], _SILENT_S),
            heard=Watched(server_dir.signs[HEARD], _SILENT_S),
        ),
        Program(
            "nginx",
            nginx.command(server_dir),
            logs / "fence.out",
            {},
            lambda: _answers(server_dir, _health_of(server_dir)),
        ),
    ]
    return [replace(program, log_bytes=server_dir.log_bytes) for program in found]


def _mlflow(server_dir: ServerDir) -> list[str]:
    s = server_dir.settings
    folder = server_dir.path / "mlflow"
    command = [sys.executable, "-m", "server.tracking.serve", "--host", "127.0.0.1", "--port", str(s.mlflow_port)]
    command += ["--workers", "1", "--uvicorn-opts", "--no-access-log"]  # nginx logs who reads
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", f"file://{folder}/artifacts"]
    return [*command, "--cors-allowed-origins", f"https://{s.host}:{s.researchers_port}"]


def _health_of(server_dir: ServerDir) -> str:
    address = server_dir.settings.hospitals_address
    inner = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, address)
    return f"https://{inner}:{server_dir.settings.hospitals_port}/health"


def _answers(server_dir: ServerDir, url: str) -> bool:
    context = None
    if url.startswith("https"):
        context = ssl.create_default_context(cafile=str(server_dir.authority))
        context.check_hostname = False  # it connects to a local address; the certificate has the public name
    try:  # trust_env: no proxy leads to this machine
        status = httpx.get(url, verify=context or True, timeout=3, trust_env=False).status_code
        return status in (httpx.codes.OK, nginx.TOO_MANY)  # nginx lives that refuses what strangers here ask
    except httpx.HTTPError:
        return False


def down(home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Stop the server. When it runs again, studies resume after their last committed round."""
    server_dir = read(home)
    pid = holder(server_dir.lock)
    if pid is None:
        answer(as_json, {"stopped": False}, "The server is not running.")
        return
    os.kill(pid, signal.SIGTERM)
    ends = time.monotonic() + _DOWN_S
    while holder(server_dir.lock) == pid:
        if time.monotonic() > ends:
            raise StudyError(f"process {pid} did not end within {_DOWN_S:g} s; see {server_dir.logs}")
        time.sleep(0.2)
    answer(as_json, {"stopped": True}, "The server has stopped.")


def security(
    html: Annotated[Path | None, typer.Option("--html", help="Also write the checklist as a printable page.")] = None,
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Checklist for your security officer: verify every claim against the running server.

    Exit code 1 if one fails.
    """
    server_dir = read(home)
    found = examined.checklist(server_dir, QUIET)
    if html is not None:
        checklist.write(html, server_dir.settings.host, found, examined.UNSEEN)
    shown = [
        table(heading, ("", "claim", "observed", "what to do"), [
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
