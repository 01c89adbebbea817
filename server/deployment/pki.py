"""Certificates (X.509, RFC 5280): the server's own authority, the server's certificate, and those of clients.

The server's certificate is valid for servers only and a client's for clients only, so neither can be used in place
of the other. What a client may do stands in its subject as OU: a role of ``people.py``, and in its CN its name.

Tested in ``tests/server/cli/test_people.py``.
"""

from __future__ import annotations

import fcntl
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.deployment.server_dir import ServerDir
from tasks.machine.disk import private_file, write_secret, write_whole

AUTHORITY_DAYS, SERVER_DAYS, PERSON_DAYS, LIST_DAYS = 3650, 397, 365, 3650
SUPERSEDED = x509.ReasonFlags.superseded
"""Why a certificate is on the list whose holder has a newer one (RFC 5280, section 5.3.1)."""
WARN_DAYS = 30
"""From this many days before the server's certificate expires, ``status`` and the checklist warn."""
_HERE = ("localhost", "127.0.0.1")
_CURVE = ec.SECP256R1()
_BACKDATED = timedelta(minutes=10)  # a hospital's clock may be slow


def create_authority(server_dir: ServerDir) -> None:
    """Create the authority and an empty revocation list, if there is none."""
    if server_dir.authority.exists():
        return
    key_file = _authority_key(server_dir)
    key = _read_key(key_file) if key_file.exists() else ec.generate_private_key(_CURVE)  # of a try that was killed
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Consilium {server_dir.settings.host}")])
    certificate = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    if not key_file.exists():
        write_secret(key_file, _private_pem(key))
    _write_list(server_dir, [], certificate)
    write_whole(server_dir.authority, _pem(certificate))  # last: where it is, all is there


def issue_server(server_dir: ServerDir, days: int = SERVER_DAYS) -> None:
    """Issue a new certificate for the server under its old key, or under a new one if it has none."""
    _issue(server_dir, (server_dir.settings.host, *_HERE), days, server_dir.certificate, server_dir.certificate_key)


def issue_superlink(server_dir: ServerDir) -> None:
    """Issue the SuperLink's own certificate, unless it has one that lasts. It is valid on this machine only, and almost
    as long as the authority: a SuperLink reads its certificate once, when it starts."""
    path, key = superlink_certificate(server_dir)
    left = days_of(server_dir.authority) - 1
    if not path.exists() or days_of(path) < min(left, SERVER_DAYS):
        _issue(server_dir, _HERE, left, path, key)


def superlink_certificate(server_dir: ServerDir) -> tuple[Path, Path]:
    """Files of the SuperLink's own certificate and of its key."""
    return server_dir.path / "pki" / "superlink.crt", server_dir.path / "pki" / "superlink.key"


def _issue(server_dir: ServerDir, hosts: Sequence[str], days: float, path: Path, key_path: Path) -> None:
    if key_path.exists():
        key = _read_key(key_path)
    else:
        key = ec.generate_private_key(_CURVE)
        write_secret(key_path, _private_pem(key))
    names = x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    purpose = ExtendedKeyUsageOID.SERVER_AUTH
    certificate = _issued(server_dir, subject, key.public_key(), days, purpose=purpose, names=names)
    write_whole(path, _pem(certificate))


def issue_client(
    server_dir: ServerDir, role: str, name: str, key: ec.EllipticCurvePublicKey, days: float, serial: int | None = None
) -> x509.Certificate:
    """A certificate for a client's public key.

    Args:
        serial: by default a random one.
    """
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    return _issued(server_dir, subject, key, days, purpose=ExtendedKeyUsageOID.CLIENT_AUTH, names=None, serial=serial)


def revoke(server_dir: ServerDir, serials: Iterable[int], reason: x509.ReasonFlags | None = None) -> bool:
    """Add certificates to the revocation list. Returns whether that changes it; nginx must then read it again."""
    with _alone(server_dir):
        entries = revocations(server_dir)
        new = set(serials) - entries.keys()
        if new:
            _write_list(server_dir, [*entries.values(), *(_revocation(serial, reason) for serial in sorted(new))])
        return bool(new)


def revocations(server_dir: ServerDir) -> dict[int, x509.RevokedCertificate]:
    """The revocation list, by serial number."""
    listed = x509.load_pem_x509_crl(server_dir.revoked.read_bytes())
    return {entry.serial_number: entry for entry in listed}


def reason_of(entry: x509.RevokedCertificate) -> x509.ReasonFlags | None:
    """Why a certificate is on the list; ``None`` where the list does not say."""
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return None


def _revocation(serial: int, reason: x509.ReasonFlags | None) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(datetime.now(UTC))
    return (builder if reason is None else builder.add_extension(x509.CRLReason(reason), critical=False)).build()


@contextmanager
def _alone(server_dir: ServerDir) -> Iterator[None]:
    """Nobody else changes the revocation list meanwhile."""
    with private_file(server_dir.path / "revoked.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def days_left(server_dir: ServerDir) -> float:
    """Days until the server's certificate expires; negative when it has."""
    return days_of(server_dir.certificate)


def days_of(path: Path) -> float:
    """Days until the certificate in a PEM file expires; negative when it has.

    Raises:
        OSError, ValueError: the file holds none.
    """
    return days_left_of(x509.load_pem_x509_certificate(path.read_bytes()))


def days_left_of(certificate: x509.Certificate) -> float:
    """Days until it expires; negative when it has."""
    return (certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds() / 86400


def _issued(
    server_dir: ServerDir,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: float,
    purpose: x509.ObjectIdentifier,
    names: x509.SubjectAlternativeName | None,
    serial: int | None = None,
) -> x509.Certificate:
    authority = x509.load_pem_x509_certificate(server_dir.authority.read_bytes())
    builder = (
        _builder(subject, authority.subject, key, days, serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(_read_key(_authority_key(server_dir)).public_key()),
            False,
        )
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(_read_key(_authority_key(server_dir)), hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float, serial: int | None = None
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    begins = min(now - _BACKDATED, now + timedelta(days=days) - _BACKDATED)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_list(
    server_dir: ServerDir, entries: Sequence[x509.RevokedCertificate], authority: x509.Certificate | None = None
) -> None:
    now = datetime.now(UTC)
    authority = authority or x509.load_pem_x509_certificate(server_dir.authority.read_bytes())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - _BACKDATED)
        .next_update(now + timedelta(days=LIST_DAYS))
    )
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    signed = builder.sign(_read_key(_authority_key(server_dir)), hashes.SHA256())
    write_whole(server_dir.revoked, signed.public_bytes(serialization.Encoding.PEM))


def _authority_key(server_dir: ServerDir) -> Path:
    return server_dir.path / "pki" / "authority.key"


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds no elliptic-curve key")
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
