"""Access: hospitals by their keys, researchers by certificates."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from server.cli.output import HERE, AsJson, HomeFolder, answer
from server.deployment import nginx, pki, register
from server.deployment.server_dir import ServerDir, read
from server.errors import NotAdmitted, ServerMisconfigured
from server.rounds import ledger_witness
from server.runtime.flower_private import Control
from tasks.protocol import enrolment

File = Annotated[Path, typer.Argument(metavar="REQUEST", help="The file that `consilium-site enroll` wrote.")]
HospitalName = Annotated[str, typer.Argument(metavar="NAME")]


def admit(
    request: File,
    fingerprint: Annotated[
        str,
        typer.Option("--fingerprint", help="What the hospital read to you on the telephone; it must match."),
    ] = "",
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Admit a hospital: from now on the holder of its key may take part. The server must be running.

    The same request may be admitted again: it then says what has changed, and mends what the SuperLink has lost.
    """
    server_dir = read(home)
    try:
        asked = enrolment.read_request(request.read_text("utf-8"))
    except (enrolment.BadEnrolment, UnicodeDecodeError) as error:
        raise NotAdmitted(f"{request}: {error}") from error
    key = enrolment.key_fingerprint(asked)
    if fingerprint and fingerprint.replace(" ", "").lower() != key.replace(" ", ""):
        raise NotAdmitted(f"the request's key is {key}, not {fingerprint}: the request was changed on its way")
    new = all(one.key != key for one in server_dir.ever_admitted())
    done = register.admit(server_dir, _control(server_dir), asked)
    size = asked.public_size
    lines = [
        *done,
        f"The key of {asked.hospital} is {key}",
        f"It declares about {size} training patients as its public size: the weight of its updates in every study "
        "that starts from now on.",
        "Compare both with the hospital on the telephone.",
    ]
    facts = {"hospital": asked.hospital, "key": key, "public_size": size, "new": new, "done": done}
    answer(as_json, facts, *lines)


def _control(server_dir: ServerDir) -> Control:
    return Control(server_dir.superlink, server_dir.authority)


def revoke(name: HospitalName, home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Revoke the access of a hospital or a researcher, also while the server is down. Studies go on without the
    hospital. To take part again, it must re-enrol with a new key."""
    server_dir = read(home)
    if name in server_dir.hospitals():
        done = register.revoke(server_dir, _control(server_dir), name)
        ledger_witness.forget(server_dir.witness, name)  # a hospital that re-enrols under this name brings a new ledger
        answer(as_json, {"hospital": name, "done": done}, done)
    elif (server_dir.path / "researchers" / f"{name}.pem").exists():
        pki.revoke_researcher(server_dir, name)
        reload_nginx(server_dir)
        answer(as_json, {"researcher": name}, f"{name}'s certificate is revoked.")
    else:
        raise NotAdmitted(f"there is no hospital and no researcher {name!r}; consilium-server status lists all")


def researcher(name: HospitalName, home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Create a researcher's key and certificate, in one file to send through a secure channel."""
    server_dir = read(home)
    if not re.fullmatch(enrolment.NAME, name):
        raise ServerMisconfigured(f"{name!r}: a name has at most 40 letters, digits, '_' and '-'")
    try:
        path = pki.issue_researcher(server_dir, name)
    except FileExistsError:
        raise ServerMisconfigured(
            f"{name} already has a certificate; to revoke it: consilium-server revoke {name}"
        ) from None
    s = server_dir.settings
    use = f"runtime.address={s.host}:{s.researchers_port} runtime.authority={server_dir.authority.name}"
    lines = [f"wrote {path}; send it through a secure channel, with {server_dir.authority}. The researcher then runs:"]
    lines.append(f"consilium experiment=deployed {use} runtime.certificate={path.name}")
    answer(as_json, {"researcher": name, "file": path}, *lines)


def renew(
    days: Annotated[
        int, typer.Option("--days", min=1, help="How long the new certificate is valid.")
    ] = pki.SERVER_DAYS,
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Renew the server's certificate under the same authority. Hospitals need not do anything; studies go on."""
    server_dir = read(home)
    pki.issue_server(server_dir, days)
    reload_nginx(server_dir)
    left = round(pki.days_left(server_dir))
    answer(as_json, {"days_left": left}, f"The server's certificate is valid for {left} days.")


def reload_nginx(server_dir: ServerDir) -> None:
    """Make a running nginx reload its files; one that starts later reads them anyway."""
    nginx.write(server_dir)
    with suppress(OSError, ValueError):
        os.kill(int((server_dir.path / "fence" / "nginx.pid").read_text()), signal.SIGHUP)
