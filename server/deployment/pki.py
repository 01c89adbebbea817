"""Certificates (X.509, RFC 5280): the server's own authority, the server's certificate, and one for each researcher.

The server's certificate is valid for servers only and a researcher's for clients only, so neither can be used in place
of the other.

Tested in ``tests/server/cli/test_people.py``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.deployment.server_dir import ServerDir
from tasks.machine.disk import write_secret, write_whole

AUTHORITY_DAYS, SERVER_DAYS, RESEARCHER_DAYS, LIST_DAYS = 3650, 397, 365, 3650
WARN_DAYS = 30
"""From this many days before the server's certificate expires, ``status`` and the checklist warn."""
_HERE = ("localhost", "127.0.0.1")
_CURVE = ec.SECP256R1()
_BACKDATED = timedelta(minutes=10)  # a hospital's clock may be slow


def create_authority(server_dir: ServerDir) -> None:
    """Create the authority and an empty revocation list, if there is none."""
    if server_dir.authority.exists():
        return
    key = ec.generate_private_key(_CURVE)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Consilium {server_dir.settings.host}")])
    certificate = (
        _builder(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_secret(_authority_key(server_dir), _private_pem(key))
    write_whole(server_dir.authority, _pem(certificate))
    _write_list(server_dir, [])


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
    certificate = _issued(server_dir, hosts[0], key, days, purpose=ExtendedKeyUsageOID.SERVER_AUTH, names=names)
    write_whole(path, _pem(certificate))


def issue_researcher(server_dir: ServerDir, name: str, days: int = RESEARCHER_DAYS) -> Path:
    """Write a file with key and certificate for a researcher, readable by its owner only. Returns its path.

    Raises:
        FileExistsError: there already is one for that name.
    """
    key = ec.generate_private_key(_CURVE)
    certificate = _issued(server_dir, name, key, days, purpose=ExtendedKeyUsageOID.CLIENT_AUTH, names=None)
    path = server_dir.path / "researchers" / f"{name}.pem"
    write_secret(path, _private_pem(key) + _pem(certificate))
    return path


def revoke_researcher(server_dir: ServerDir, name: str) -> Path:
    """Add a researcher's certificate to the revocation list. Returns its file, which is kept under another name."""
    path = server_dir.path / "researchers" / f"{name}.pem"
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    old = x509.load_pem_x509_crl(server_dir.revoked.read_bytes())
    _write_list(server_dir, [*(entry.serial_number for entry in old), certificate.serial_number])
    return path.rename(path.with_suffix(".revoked"))


def days_left(server_dir: ServerDir) -> float:
    """Days until the server's certificate expires; negative when it has."""
    return days_of(server_dir.certificate)


def days_of(path: Path) -> float:
    """Days until the certificate in a PEM file expires; negative when it has.

    Raises:
        OSError, ValueError: the file holds none.
    """
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return (certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds() / 86400


def _issued(
    server_dir: ServerDir,
    name: str,
    key: ec.EllipticCurvePrivateKey,
    days: float,
    purpose: x509.ObjectIdentifier,
    names: x509.SubjectAlternativeName | None,
) -> x509.Certificate:
    authority = x509.load_pem_x509_certificate(server_dir.authority.read_bytes())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, authority.subject, key, days)
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
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    begins = min(now - _BACKDATED, now + timedelta(days=days) - _BACKDATED)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
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


def _write_list(server_dir: ServerDir, serials: list[int]) -> None:
    now = datetime.now(UTC)
    authority = x509.load_pem_x509_certificate(server_dir.authority.read_bytes())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - _BACKDATED)
        .next_update(now + timedelta(days=LIST_DAYS))
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
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
