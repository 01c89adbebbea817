"""The hospital's certificate, by which the server's reverse proxy knows it before it reads a request.

The server issues it for the hospital's own key when it admits the hospital, and gives it to whoever asks for that key:
it is no secret, and of no use without the private key, which stays here.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tasks.machine.disk import write_changed


@dataclass(frozen=True)
class Credential:
    """The hospital's private key (OpenSSH PEM), and the authority that signs for the server and for hospitals."""

    key: Path
    authority: Path

    @property
    def certificate(self) -> Path:
        """Where the certificate is kept, beside the key."""
        return self.key.with_name("node.crt")

    def keep(self, pem: object) -> bool:
        """Keep the certificate that a server has sent. Returns whether it is one of this hospital's.

        Raises:
            OSError: there is no room.
        """
        if not isinstance(pem, str) or not self._is_ours(pem):
            return False
        write_changed(self.certificate, pem.encode(), mode=0o600)
        return True

    @property
    def there(self) -> bool:
        """Whether a certificate is kept that is this hospital's."""
        try:
            return self._is_ours(self.certificate.read_text("utf-8"))
        except (OSError, ValueError):
            return False

    def _is_ours(self, pem: str) -> bool:
        """Whether a certificate is for this hospital's key, by the authority of the invitation."""
        try:
            certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(self.authority.read_bytes()))
            own = serialization.load_ssh_private_key(self.key.read_bytes(), None).public_key()
        except Exception:  # a certificate can be odd in many ways, each with an error of its own
            return False
        return certificate.public_key() == own

    def context(self) -> ssl.SSLContext:
        """Authenticates the server, and this hospital to it if there is a certificate.

        Raises:
            OSError: a file cannot be read.
        """
        context = ssl.create_default_context(cafile=str(self.authority))
        if self.there:
            self._load_into(context)
        return context

    def _load_into(self, context: ssl.SSLContext) -> None:
        """OpenSSL reads keys from files only, and not in the form that Flower reads."""
        key = serialization.load_ssh_private_key(self.key.read_bytes(), None)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        read_end, write_end = os.pipe()  # so that it is in no other file
        try:
            with os.fdopen(write_end, "wb") as pipe:
                pipe.write(private)
            context.load_cert_chain(self.certificate, f"/dev/fd/{read_end}")
        finally:
            os.close(read_end)
