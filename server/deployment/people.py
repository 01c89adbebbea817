"""People with certificates, and what each may do.

A role stands in the certificate's subject as OU, where the reverse proxy and ``signing.py`` read it; nobody can have
another one without another certificate. A person keeps name, key and role when the certificate is renewed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.deployment import pki
from server.deployment.server_dir import ServerDir
from server.errors import NotAllowed, ServerMisconfigured
from tasks.machine.disk import write_secret, write_whole
from tasks.protocol import enrolment

Role = Literal["coordinator", "researcher", "reader"]
ROLES: tuple[Role, ...] = get_args(Role)
"""A coordinator acts on every study, a researcher on studies of their own, a reader on none. All three read results."""
ASKING: tuple[Role, ...] = ("coordinator", "researcher")
"""Who may submit a study."""


@dataclass(frozen=True)
class Person:
    """Somebody with a certificate of this server."""

    name: str
    role: Role

    def require_own(self, study: str, asked_by: str | None) -> None:
        """Refuse what concerns somebody else's study.

        Raises:
            NotAllowed
        """
        if self.role == "coordinator" or (self.role == "researcher" and self.name == asked_by):
            return
        if self.role == "reader":
            raise NotAllowed(f"{self.name} is a reader, who reads results and acts on no study; ask a coordinator")
        whose = f"{asked_by}'s" if asked_by else "nobody's whose name is known"
        raise NotAllowed(f"{study} is {whose}; {self.name} is a researcher and acts on studies of their own only")


def person_in(certificate: x509.Certificate) -> Person | None:
    """Whose certificate it is; ``None`` where its subject names no person, such as a hospital's. One without a role is
    of an older release, which knew researchers alone."""
    subject = certificate.subject
    names = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    roles = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    if len(subject) != len(names) + len(roles) or len(names) != 1 or len(roles) > 1:
        return None
    role = next((role for role in ROLES if roles == [role]), None) if roles else "researcher"
    return Person(names[0], role) if role is not None and re.fullmatch(enrolment.NAME, names[0]) else None


def role_of(server_dir: ServerDir, name: str) -> Role:
    """The role of somebody whose name the server itself has noted; the least that may ask where it is not known."""
    return next((person.role for person, _ in everybody(server_dir) if person.name == name), "researcher")


def issue(server_dir: ServerDir, name: str, role: Role = "researcher", days: float = pki.PERSON_DAYS) -> Path:
    """Write a file with key and certificate for a person, readable by its owner only. Returns its path.

    Raises:
        ServerMisconfigured: that is no name, or a hospital's.
        FileExistsError: there already is one for that name.
    """
    if not re.fullmatch(enrolment.NAME, name):
        raise ServerMisconfigured(f"{name!r}: a name has at most 40 letters, digits, '_' and '-'")
    if name in server_dir.hospitals():
        raise ServerMisconfigured(f"{name} is a hospital; give the person another name")
    key = ec.generate_private_key(ec.SECP256R1())
    path = _file(server_dir, name)
    write_secret(path, _both(key, pki.issue_client(server_dir, role, name, key.public_key(), days)))
    return path


def renew(server_dir: ServerDir, name: str, days: float = pki.PERSON_DAYS) -> tuple[Path, Person]:
    """Write a new certificate with the old key, name and role; then the old one is revoked. Returns the file.

    A study that was signed with the old one before that may still start.

    Raises:
        ServerMisconfigured: there is nobody of that name, or the file cannot be read.
    """
    path = _file(server_dir, name)
    try:
        content = path.read_bytes()
        key, old = serialization.load_pem_private_key(content, None), x509.load_pem_x509_certificate(content)
    except FileNotFoundError:
        raise ServerMisconfigured(f"there is no certificate of {name!r}; consilium-server person {name}") from None
    except ValueError as error:
        raise ServerMisconfigured(f"{path} cannot be read: {error}") from error
    person = person_in(old)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or person is None or person.name != name:
        raise ServerMisconfigured(f"{path} holds no key and certificate of {name}")
    if key.public_key() != old.public_key():
        raise ServerMisconfigured(f"in {path}, the certificate is not the key's")
    new = pki.issue_client(server_dir, person.role, name, key.public_key(), days)
    pki.revoke(server_dir, [old.serial_number], pki.SUPERSEDED)  # first: a kill must not leave one that nothing lists
    write_whole(path, _both(key, new), mode=0o600)
    return path, person


def revoke(server_dir: ServerDir, name: str) -> Path:
    """Add a person's certificate to the revocation list. Returns its file, which is kept under another name.

    Raises:
        FileNotFoundError: there is none.
    """
    path = _file(server_dir, name)
    pki.revoke(server_dir, [x509.load_pem_x509_certificate(path.read_bytes()).serial_number])
    return path.rename(path.with_suffix(".revoked"))


def exists(server_dir: ServerDir, name: str) -> bool:
    """Whether somebody of that name has a certificate."""
    return re.fullmatch(enrolment.NAME, name) is not None and _file(server_dir, name).exists()


def everybody(server_dir: ServerDir) -> Iterator[tuple[Person, float]]:
    """All who have a certificate, and for how many days it is still valid."""
    for path in sorted((server_dir.path / "researchers").glob("*.pem")):
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError):
            continue
        if (person := person_in(certificate)) is not None:
            yield person, pki.days_left_of(certificate)


def _file(server_dir: ServerDir, name: str) -> Path:
    return server_dir.path / "researchers" / f"{name}.pem"


def _both(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bytes:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
