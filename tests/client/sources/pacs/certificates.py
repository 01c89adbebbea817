"""A certificate authority for the length of a test, with a server and a client that it vouches for."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificates:
    """Writes ``ca.pem``, ``server.pem`` / ``.key`` for localhost and ``client.pem`` / ``.key`` into a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._authority_key = ec.generate_private_key(ec.SECP256R1())
        self._authority = self._issue("test authority", self._authority_key, authority=True)
        (path / "ca.pem").write_bytes(self._authority.public_bytes(serialization.Encoding.PEM))
        for name in ("server", "client"):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = self._issue("localhost", key, authority=False)
            (path / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
            encodings = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            (path / f"{name}.key").write_bytes(key.private_bytes(*encodings))
            (path / f"{name}.key").chmod(0o600)

    def server(self, ask_for_client: bool) -> ssl.SSLContext:
        """What a server on localhost uses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path / "server.pem", self.path / "server.key")
        if ask_for_client:
            context.load_verify_locations(self.path / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _issue(self, name: str, key: ec.EllipticCurvePrivateKey, authority: bool) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if authority else self._authority.subject
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._authority_key.public_key())
        builder = builder.add_extension(signer, critical=False)
        if authority:
            builder = builder.add_extension(_may_sign(), critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        return builder.sign(self._authority_key, hashes.SHA256())


def _may_sign() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
