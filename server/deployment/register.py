"""One register of hospitals: ``hospitals.json``. What the SuperLink knows, and what hospitals are told, follow it.

The SuperLink has a list of its own, in a database that can be lost and that accepts no key twice. ``reconcile``
registers there who is missing and removes who was revoked, at every start of the server and every few seconds after,
so ``revoke`` works while the server is down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.deployment import hospital_certificates
from server.deployment.server_dir import UNKNOWN, Hospital, ServerDir
from server.errors import NotAdmitted, ServerUnreachable
from server.runtime.flower_private import Control, ControlRefused, Node
from tasks.machine.disk import write_changed
from tasks.protocol import enrolment

_USED = (
    "was {how}, and the SuperLink accepts none twice. The hospital needs a new one: delete link/node.key there, run "
    "consilium-site enroll, and send the new request"
)


def admit(server_dir: ServerDir, control: Control, asked: enrolment.Request) -> list[str]:
    """Admit the hospital that asks, or bring what is known of it up to date. Returns what was done, in sentences.

    Raises:
        NotAdmitted: its name has another key, its key another name, or the key was revoked.
        ServerUnreachable: the SuperLink does not answer, and the hospital is new.
    """
    key = enrolment.key_fingerprint(asked)
    with server_dir.changing() as register:
        _refuse_conflicts(register, asked, key)
        known = next((one for one in register if one.key == key), None)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        one = known or Hospital(asked.hospital, 0, key, now)
        one, done = _with_size(one, asked.public_size, known is None)
        try:
            one, registered = _registered(control, replace(one, public_key=asked.public_key), _by_key(control))
        except ControlRefused as error:
            if known is None:
                raise ServerUnreachable(
                    f"the SuperLink did not accept the key: {error}. Is the server running?"
                ) from error
            registered = f"The SuperLink does not answer ({error}); it is told when the server runs."
        register[:] = [one if other is known else other for other in register] + ([one] if known is None else [])
    publish(server_dir)
    done += [registered] if registered else []
    return done or [f"{one.name} was admitted on {one.admitted}; nothing has changed."]


def _refuse_conflicts(register: list[Hospital], asked: enrolment.Request, key: str) -> None:
    for one in register:
        if one.key == key and one.revoked is not None:
            raise NotAdmitted(f"this key of {one.name} {_USED.format(how=f'revoked on {one.revoked}')}")
        if one.key == key and one.name != asked.hospital:
            raise NotAdmitted(
                f"this key is admitted as {one.name}, not as {asked.hospital}; run consilium-server revoke {one.name} "
                "first, and the hospital needs a new key"
            )
        if one.name == asked.hospital and one.key != key and one.revoked is None:
            raise NotAdmitted(f"{one.name} was admitted with another key; run consilium-server revoke {one.name} first")


def _with_size(one: Hospital, size: int, new: bool) -> tuple[Hospital, list[str]]:
    if new:
        return replace(one, public_size=size), [f"{one.name} is admitted."]
    if one.public_size == size:
        return one, []
    changed = f"{one.name}'s public size is {size} from now on; it was {one.public_size or 'unknown'}."
    return replace(one, public_size=size), [changed]


def revoke(server_dir: ServerDir, control: Control, name: str) -> str:
    """End a hospital's participation. Returns what was done, in a sentence.

    Raises:
        NotAdmitted: there is no such hospital.
    """
    with server_dir.changing() as register:
        one = next((one for one in register if one.name == name and one.revoked is None), None)
        if one is None:
            raise NotAdmitted(f"there is no hospital {name!r}")
        gone = replace(one, revoked=datetime.now(UTC).isoformat(timespec="seconds"))
        register[:] = [gone if other is one else other for other in register]
    publish(server_dir)
    try:
        _remove(control, gone, _by_key(control))
    except ControlRefused as error:
        return (
            f"{name} can no longer take part. The SuperLink does not answer ({error}); it is told when the server "
            "runs, before any study goes on."
        )
    return f"{name} can no longer take part."


def reconcile(server_dir: ServerDir, control: Control) -> list[str]:
    """Bring the SuperLink's list, and what hospitals are told, in line with the register. Returns what was done or
    cannot be done, in sentences.

    Raises:
        ControlRefused: the SuperLink does not answer.
        ServerMisconfigured: the register cannot be read.
    """
    nodes, told = _by_key(control), list[str]()
    with server_dir.changing() as register:
        told += [
            f"The SuperLink knows the key {key}, which is not in hospitals.json: admit its hospital's request again"
            for key in sorted(key for key, node in nodes.items() if node.admitted)
            if all(one.key != key for one in register)
        ]
        for number, one in enumerate(register):
            if one.revoked is not None:
                told += _remove(control, one, nodes)
                continue
            try:
                register[number], done = _registered(control, one, nodes)
            except NotAdmitted as error:
                done = str(error)
            told += [done] if done else []
    publish(server_dir)
    return told


def _by_key(control: Control) -> dict[str, Node]:
    """What the SuperLink knows, by the fingerprint of the key."""
    return dict(_fingerprinted(control))


def _fingerprinted(control: Control) -> Iterator[tuple[str, Node]]:
    for node in control.known_keys():
        try:
            yield enrolment.public_fingerprint(node.key), node
        except enrolment.BadEnrolment:
            continue


def _registered(control: Control, one: Hospital, nodes: Mapping[str, Node]) -> tuple[Hospital, str]:
    """The hospital as the SuperLink knows it now, and what was done.

    Raises:
        NotAdmitted: it cannot be registered, and the remedy.
        ControlRefused: the SuperLink does not answer.
    """
    node = nodes.get(one.key)
    if node is not None and node.admitted:
        return replace(one, node=node.number, public_key=node.key.decode()), ""
    if node is not None:
        raise NotAdmitted(f"this key of {one.name} {_USED.format(how='removed from the SuperLink before')}")
    if one.public_key is None:
        raise NotAdmitted(
            f"{one.name} was admitted by an older release, and the SuperLink has lost its key: admit its request again"
        )
    number = control.register(one.public_key.encode())
    again = f"{one.name} was registered with the SuperLink again, which had lost it." if one.node else ""
    return replace(one, node=number), again


def _remove(control: Control, one: Hospital, nodes: Mapping[str, Node]) -> list[str]:
    node = nodes.get(one.key)
    if node is None or not node.admitted:
        return []
    control.unregister(node.number)
    return [f"{one.name} was revoked on {one.revoked} and is now removed from the SuperLink."]


def publish(server_dir: ServerDir) -> None:
    """Write for each key what its hospital is told, where nginx serves it: whether it is admitted, and its certificate.
    The key is in no other list: who asks must know it. Certificates of those who were revoked open nothing any more."""
    folder = server_dir.admission
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with server_dir.changing() as register:  # so that no other process publishes meanwhile
        wanted: dict[str, dict[str, str]] = {UNKNOWN: {"state": "unknown"}}
        for one in register:
            name = f"{one.key.replace(' ', '')}.json"
            wanted[name] = _told(server_dir, one, _read(folder / name).get("certificate"))
        for name, facts in wanted.items():
            write_changed(folder / name, json.dumps(facts).encode(), mode=0o600)
        for path in folder.glob("*.json"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)
        if server_dir.authority.exists():
            hospital_certificates.revoke(server_dir, register)


def _told(server_dir: ServerDir, one: Hospital, known: object) -> dict[str, str]:
    if one.revoked is not None:
        return {"state": "revoked", "since": one.revoked}
    certificate = hospital_certificates.certificate(server_dir, one, known) if server_dir.authority.exists() else None
    return {"state": "admitted", "since": one.admitted} | ({"certificate": certificate} if certificate else {})


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        facts = json.loads(path.read_text("utf-8"))
        return facts if isinstance(facts, dict) else {}
    return {}
