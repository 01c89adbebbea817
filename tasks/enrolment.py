"""How a hospital and a server come to know each other: an invitation one way, a request the other. Neither is secret.

The hospital makes its key pair itself, and only the public half travels, signed by the other half, so a request can
only come from who holds the key. Flower's SuperNodes sign with ECDSA on P-384.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Annotated, Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.study import release

MOST_BYTES = 64 * 2**10
"""Neither file is longer."""
SERVER = r"^[A-Za-z0-9.-]+:\d{1,5}$"
"""``host:port``."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$"
"""What a hospital's name looks like."""
_CURVE = ec.SECP384R1()
_STRICT = ConfigDict(extra="forbid", frozen=True)
T = TypeVar("T", bound=BaseModel)


class BadEnrolment(ValueError):
    """A file is no request or no invitation, or was changed on its way."""


class Invitation(BaseModel):
    """Where the server is, and the certificate authority that its certificate comes from."""

    model_config = _STRICT
    kind: Literal["consilium-invitation"] = "consilium-invitation"
    server: Annotated[str, Field(pattern=SERVER)]
    """``host:port`` that hospitals dial."""
    certificate_authority: Annotated[str, Field(max_length=16384)]
    """PEM."""


class Request(BaseModel):
    """A hospital asks to be admitted."""

    model_config = _STRICT
    kind: Literal["consilium-request"] = "consilium-request"
    hospital: Annotated[str, Field(pattern=NAME)]
    """The hospital's public name."""
    public_key: Annotated[str, Field(max_length=2048)]
    """PEM, P-384."""
    release: Annotated[str, Field(max_length=40)]
    """Of the hospital's installation."""
    signature: Annotated[str, Field(max_length=512)]
    """ECDSA with SHA-384 over everything else, base64."""


def new_key() -> bytes:
    """A private key as OpenSSH PEM, which is what Flower reads."""
    return ec.generate_private_key(_CURVE).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def request(hospital: str, private_key: bytes) -> Request:
    """A signed request of the hospital that holds the key (OpenSSH PEM).

    Raises:
        BadEnrolment: it is no such key.
    """
    key = _private(private_key)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    own = {"hospital": hospital, "public_key": public.decode(), "release": release()}
    signature = key.sign(_signed(own), ec.ECDSA(hashes.SHA384()))
    return Request(
        hospital=hospital,
        public_key=own["public_key"],
        release=own["release"],
        signature=base64.b64encode(signature).decode(),
    )


def read_request(text: str) -> Request:
    """A request whose signature holds.

    Raises:
        BadEnrolment: what is wrong with it.
    """
    found = _read(text, Request, "request")
    own = {"hospital": found.hospital, "public_key": found.public_key, "release": found.release}
    try:
        public = serialization.load_pem_public_key(found.public_key.encode())
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != _CURVE.name:
            raise BadEnrolment("the request's key is not on the curve P-384; make it anew: consilium-site enroll")
        public.verify(base64.b64decode(found.signature, validate=True), _signed(own), ec.ECDSA(hashes.SHA384()))
    except (ValueError, InvalidSignature) as error:
        if isinstance(error, BadEnrolment):
            raise
        raise BadEnrolment("the request was changed after the hospital signed it; have it sent again") from error
    return found


def read_invitation(text: str) -> Invitation:
    """An invitation whose certificate can be read.

    Raises:
        BadEnrolment: what is wrong with it.
    """
    found = _read(text, Invitation, "invitation")
    try:
        x509.load_pem_x509_certificate(found.certificate_authority.encode())
    except ValueError as error:
        raise BadEnrolment(f"the invitation's certificate cannot be read: {error}") from error
    return found


def key_fingerprint(request: Request) -> str:
    """What hospital and server read to each other on the telephone: SHA-256 of the public key, in groups of four."""
    public = serialization.load_pem_public_key(request.public_key.encode())
    return _groups(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def authority_fingerprint(invitation: Invitation) -> str:
    """The same for the server's certificate authority."""
    return certificate_fingerprint(invitation.certificate_authority)


def certificate_fingerprint(pem: str) -> str:
    """The same for any certificate."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return _groups(certificate.public_bytes(serialization.Encoding.DER))


def _groups(content: bytes) -> str:
    digits = hashlib.sha256(content).hexdigest()[:32]
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def _private(content: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_ssh_private_key(content, None)
    except ValueError as error:
        raise BadEnrolment(f"not a private key as consilium-site enroll makes it: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVE.name:
        raise BadEnrolment("the key is not on the curve P-384; remove it and say consilium-site enroll again")
    return key


def _signed(own: dict[str, str]) -> bytes:
    return json.dumps({"kind": "consilium-request", **own}, sort_keys=True, separators=(",", ":")).encode()


def _read(text: str, kind: type[T], what: str) -> T:
    if len(text) > MOST_BYTES:
        raise BadEnrolment(f"no {what} is longer than {MOST_BYTES} bytes")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise BadEnrolment(f"not a {what}: {problems}") from None
