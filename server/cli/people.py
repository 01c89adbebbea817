"""Access: hospitals by their keys, people by certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.output import HERE, AsJson, HomeFolder, answer
from server.deployment import people as certified
from server.deployment import pki, register
from server.deployment.people import Person, Role
from server.deployment.server_dir import ServerDir, read
from server.errors import NotAdmitted, ServerMisconfigured
from server.rounds import ledger_witness
from server.runtime.flower_private import Control
from tasks.protocol import enrolment

File = Annotated[Path, typer.Argument(metavar="REQUEST", help="The file that `consilium-site enroll` wrote.")]
Name = Annotated[str, typer.Argument(metavar="NAME")]
_USE = {
    "coordinator": "A coordinator may submit studies, and stop every study and read its log.",
    "researcher": "A researcher may submit studies, and stop their own and read their logs.",
    "reader": "A reader may read results, and neither submit nor stop a study.",
}


def admit(
    request: File,
    fingerprint: Annotated[
        str,
        typer.Option(
            "--fingerprint", help="The fingerprint that the hospital read to you on the telephone; it must match."
        ),
    ] = "",
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Admit a hospital: from now on the holder of its key may take part. The server must be running.

    The same request may be admitted again: it then says what has changed, and restores what the SuperLink has lost.
    """
    server_dir = read(home)
    try:
        asked = enrolment.request_in(request)
    except enrolment.BadEnrolment as error:
        raise ServerMisconfigured(f"{request}: {error}") from error
    key = enrolment.key_fingerprint(asked)
    if fingerprint and fingerprint.replace(" ", "").lower() != key.replace(" ", ""):
        raise NotAdmitted(
            f"the request's key is {key}, not {fingerprint}: have the hospital read it out again; if it stays another, "
            "the request was changed on its way: ask for a new one"
        )
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


def revoke(name: Name, home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Revoke the access of a hospital or a person, also while the server is down. Studies go on without the
    hospital. To take part again, it must re-enrol with a new key."""
    server_dir = read(home)
    if name in server_dir.hospitals():
        done = register.revoke(server_dir, _control(server_dir), name)
        ledger_witness.forget(server_dir.witness, name)  # a hospital that re-enrols under this name brings a new ledger
        answer(as_json, {"hospital": name, "done": done}, done)
    elif certified.exists(server_dir, name):
        certified.revoke(server_dir, name)
        answer(as_json, {"person": name}, f"{name}'s certificate is revoked.")
    else:
        raise NotAdmitted(f"there is no hospital and no person {name!r}; consilium-server status lists all")


def person(
    name: Name,
    role: Annotated[
        Role, typer.Option("--role", help="Acts on every study, on studies of their own, or on none.")
    ] = "researcher",
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Create a person's key and certificate, in one file to send through a secure channel."""
    server_dir = read(home)
    try:
        path = certified.issue(server_dir, name, role)
    except FileExistsError:
        raise ServerMisconfigured(
            f"{name} already has a certificate; to renew it: consilium-server renew {name}; for another role or a new "
            f"key, first consilium-server revoke {name}"
        ) from None
    _tell_file(server_dir, path, Person(name, role), as_json)


def researcher(name: Name, home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """The same as ``person NAME --role researcher``."""
    person(name, "researcher", home, as_json)


def _tell_file(server_dir: ServerDir, path: Path, who: Person, as_json: bool) -> None:
    s = server_dir.settings
    use = f"runtime.address={s.host}:{s.researchers_port} runtime.authority={server_dir.authority.name}"
    use += f" runtime.certificate={path.name}"
    run = "consilium queue" if who.role == "reader" else "consilium experiment=deployed"
    lines = [
        f"wrote {path}; send it through a secure channel, with {server_dir.authority}.",
        f"{_USE[who.role]} {who.name} runs:",
        f"{run} {use}",
    ]
    answer(as_json, {"person": who.name, "role": who.role, "file": path}, *lines)


def renew(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A person's name; without it, the server itself.")] = "",
    days: Annotated[int | None, typer.Option("--days", min=1, help="How long the new certificate is valid.")] = None,
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Renew the server's certificate, or a person's, with the same key.

    The server's: hospitals need not do anything; studies go on. A person's: they need the new file; the old certificate
    is revoked.
    """
    server_dir = read(home)
    if name:
        path, who = certified.renew(server_dir, name, days or pki.PERSON_DAYS)
        _tell_file(server_dir, path, who, as_json)
        return
    pki.issue_server(server_dir, days or pki.SERVER_DAYS)
    left = round(pki.days_left(server_dir))
    answer(as_json, {"days_left": left}, f"The server's certificate is valid for {left} days.")
