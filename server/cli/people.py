"""Who may come: hospitals by their keys, researchers by certificates."""

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
"""What Flower says of a key that was registered once, also when it was unregistered since."""

File = Annotated[Path, typer.Argument(metavar="REQUEST", help="What `consilium-site enroll` wrote at the hospital.")]
HospitalName = Annotated[str, typer.Argument(metavar="NAME")]


def admit(
    request: File,
    fingerprint: Annotated[
        str, typer.Option("--fingerprint", help="What the hospital read to you on the telephone; it must agree.")
    ] = "",
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Admit a hospital: from now on who holds its key may take part. The server must be up."""
    house = read(home)
    try:
        asked = enrolment.read_request(request.read_text("utf-8"))
    except (enrolment.BadEnrolment, UnicodeDecodeError) as error:
        raise NotAdmitted(f"{request}: {error}") from error
    key = enrolment.key_fingerprint(asked)
    if fingerprint and fingerprint.replace(" ", "").lower() != key.replace(" ", ""):
        raise NotAdmitted(f"the request's key is {key}, not {fingerprint}: somebody has changed it on its way")
    admitted = house.hospitals()
    if asked.hospital in admitted and admitted[asked.hospital].key != key:
        raise NotAdmitted(f"{asked.hospital} was admitted with another key; say consilium-server revoke first")
    one = admitted.get(asked.hospital)
    if one is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        one = Hospital(asked.hospital, _register(house, asked), key, now)
    size = asked.public_size
    house.register(admitted | {asked.hospital: replace(one, public_size=size)})
    facts = {"hospital": asked.hospital, "key": key, "public_size": size, "new": asked.hospital not in admitted}
    answer(
        as_json,
        facts,
        f"{asked.hospital} is admitted. Its key is {key}",
        f"It says in public that about {size} of its patients are trained on; its updates count by that in every study "
        "that begins from now on.",
        "Read both to them on the telephone.",
    )


def _register(home: ServerDir, asked: enrolment.Request) -> int:
    control = _control(home)
    try:
        return control.register(asked.public_key.encode())
    except ControlRefused as error:
        if _USED in str(error):
            raise NotAdmitted(
                f"the SuperLink has known this key of {asked.hospital} before, and takes none twice. The hospital "
                "needs a new one: remove link/node.key there, consilium-site enroll, and send the new request"
            ) from error
        raise ServerUnreachable(f"the SuperLink did not take the key: {error}. Is the server up?") from error


def _control(home: ServerDir) -> Control:
    return Control(home.superlink, home.authority)


def revoke(name: HospitalName, home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Let a hospital or a researcher in no more. A hospital comes back with a new key only, as a new one."""
    house = read(home)
    admitted = house.hospitals()
    if name in admitted:
        try:
            _control(house).unregister(admitted[name].node)
        except ControlRefused as error:
            raise ServerUnreachable(f"the SuperLink did not remove the key: {error}. Is the server up?") from error
        house.register({other: one for other, one in admitted.items() if other != name})
        ledger_witness.forget(house.witness, name)  # who comes back under this name brings new books
        answer(as_json, {"hospital": name}, f"{name} takes part no more.")
    elif (house.path / "researchers" / f"{name}.pem").exists():
        pki.revoke_researcher(house, name)
        reload_fence(house)
        answer(as_json, {"researcher": name}, f"{name}'s certificate opens the door no more.")
    else:
        raise NotAdmitted(f"there is no hospital and no researcher {name!r}; consilium-server status names all")


def researcher(name: HospitalName, home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Make a researcher's key and certificate, in one file to hand over on a safe way."""
    house = read(home)
    if not re.fullmatch(enrolment.NAME, name):
        raise ServerMisconfigured(f"{name!r}: a name has at most 40 letters, digits, '_' and '-'")
    try:
        path = pki.issue_researcher(house, name)
    except FileExistsError:
        raise ServerMisconfigured(f"{name} has a certificate already; consilium-server revoke {name} ends it") from None
    s = house.settings
    use = f"runtime.address={s.host}:{s.researchers_port} runtime.authority={house.authority.name}"
    lines = [f"wrote {path}; hand it over on a safe way, with {house.authority}. Then there:"]
    lines.append(f"consilium experiment=deployed {use} runtime.certificate={path.name}")
    answer(as_json, {"researcher": name, "file": path}, *lines)


def renew(
    days: Annotated[
        int, typer.Option("--days", min=1, help="How long the new certificate is valid.")
    ] = pki.SERVER_DAYS,
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Renew the server's certificate under the same authority. Hospitals need not do anything; runs go on."""
    house = read(home)
    pki.issue_server(house, days)
    reload_fence(house)
    left = round(pki.days_left(house))
    answer(as_json, {"days_left": left}, f"The server's certificate is valid for {left} days.")


def reload_fence(home: ServerDir) -> None:
    """Have a running fence read its files anew; one that does not run will."""
    nginx.write(home)
    with suppress(OSError, ValueError):
        os.kill(int((home.path / "fence" / "nginx.pid").read_text()), signal.SIGHUP)
