"""Access: hospitals by their keys, researchers by certificates."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from server.cli.output import HERE, AsJson, HomeFolder, answer
from server.deployment import nginx, pki
from server.deployment.server_dir import Hospital, ServerDir, read
from server.errors import NotAdmitted, ServerMisconfigured, ServerUnreachable
from server.rounds import ledger_witness
from server.runtime.flower_private import Control, ControlRefused
from tasks.protocol import enrolment

_USED = "already in use"
"""Flower's message for a key that was registered once, even if it was unregistered since."""

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
    """Admit a hospital: from now on the holder of its key may take part. The server must be running."""
    server_dir = read(home)
    try:
        asked = enrolment.read_request(request.read_text("utf-8"))
    except (enrolment.BadEnrolment, UnicodeDecodeError) as error:
        raise NotAdmitted(f"{request}: {error}") from error
    key = enrolment.key_fingerprint(asked)
    if fingerprint and fingerprint.replace(" ", "").lower() != key.replace(" ", ""):
        raise NotAdmitted(f"the request's key is {key}, not {fingerprint}: the request was changed on its way")
    admitted = server_dir.hospitals()
    if asked.hospital in admitted and admitted[asked.hospital].key != key:
        raise NotAdmitted(
            f"{asked.hospital} was admitted with another key; run consilium-server revoke {asked.hospital} first"
        )
    one = admitted.get(asked.hospital)
    if one is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        one = Hospital(asked.hospital, _register(server_dir, asked), key, now)
    size = asked.public_size
    server_dir.register(admitted | {asked.hospital: replace(one, public_size=size)})
    facts = {"hospital": asked.hospital, "key": key, "public_size": size, "new": asked.hospital not in admitted}
    answer(
        as_json,
        facts,
        f"{asked.hospital} is admitted. Its key is {key}",
        f"It declares about {size} training patients as its public size: the weight of its updates in every study "
        "that starts from now on.",
        "Compare both with the hospital on the telephone.",
    )


def _register(server_dir: ServerDir, asked: enrolment.Request) -> int:
    control = _control(server_dir)
    try:
        return control.register(asked.public_key.encode())
    except ControlRefused as error:
        if _USED in str(error):
            raise NotAdmitted(
                f"the SuperLink has seen this key of {asked.hospital} before, and accepts none twice. The hospital "
                "needs a new one: remove link/node.key there, run consilium-site enroll, and send the new request"
            ) from error
        raise ServerUnreachable(f"the SuperLink did not accept the key: {error}. Is the server running?") from error


def _control(server_dir: ServerDir) -> Control:
    return Control(server_dir.superlink, server_dir.authority)


def revoke(name: HospitalName, home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Revoke the access of a hospital or a researcher. A hospital must re-enrol with a new key."""
    server_dir = read(home)
    admitted = server_dir.hospitals()
    if name in admitted:
        try:
            _control(server_dir).unregister(admitted[name].node)
        except ControlRefused as error:
            raise ServerUnreachable(f"the SuperLink did not remove the key: {error}. Is the server running?") from error
        server_dir.register({other: one for other, one in admitted.items() if other != name})
        ledger_witness.forget(server_dir.witness, name)  # a hospital that re-enrols under this name brings a new ledger
        answer(as_json, {"hospital": name}, f"{name} can no longer take part.")
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
