"""How hospital and server introduce themselves: an invitation one way, a request the other. Neither is secret.

The hospital creates its key pair itself. Only the public key is sent, signed with the private one, so a request can
only come from the holder of the key. Flower's SuperNodes sign with ECDSA on P-384.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.protocol import received
from tasks.protocol.study import release

MOST_BYTES = 64 * 2**10
"""The largest size of either file."""
SERVER = r"^[A-Za-z0-9.-]+:\d{1,5}$"
"""``host:port``."""
LARGEST = 10_000_000
"""The largest public size that a hospital may declare."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$"
"""The pattern of a hospital's name."""
_CURVE = ec.SECP384R1()
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What ``cryptography`` raises for keys and certificates that it does not support or cannot read."""
_ANEW = "At the hospital, create it again with this release: consilium-site enroll --invitation FILE"
_MOST = 5
"""How many problems of a file are reported."""
_SENT_AGAIN = "Ask the coordinator to send the invitation again"
_STRICT = ConfigDict(extra="forbid", frozen=True)
T = TypeVar("T", bound=BaseModel)


class BadEnrolment(ValueError):
    """A file is not a request or an invitation, or was changed on its way."""


class Invitation(BaseModel):
    """Where the server is, and the certificate authority that its certificate comes from."""

    model_config = _STRICT
    kind: Literal["consilium-invitation"] = "consilium-invitation"
    server: Annotated[str, Field(pattern=SERVER)]
    """``host:port`` that hospitals connect to."""
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
    public_size: Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
    """The cohort size that the hospital declares. The server fixes it when it admits the hospital: no message can
    change the weight of its updates."""
    signature: Annotated[str, Field(max_length=512)]
    """ECDSA with SHA-384 over everything else, base64."""


def new_key() -> bytes:
    """A private key as OpenSSH PEM, which is what Flower reads."""
    return ec.generate_private_key(_CURVE).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def request(hospital: str, enrolled_key: bytes, public_size: int) -> Request:
    """A signed request of the hospital that holds the key (OpenSSH PEM).

    Raises:
        BadEnrolment: it is not such a key.
    """
    key = private_key(enrolled_key)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    unsigned = Request(
        hospital=hospital, public_key=public.decode(), release=release(), public_size=public_size, signature=""
    )
    signature = key.sign(_signed(unsigned), ec.ECDSA(hashes.SHA384()))
    return unsigned.model_copy(update={"signature": base64.b64encode(signature).decode()})


def request_in(path: Path) -> Request:
    """The request in a file, with its signature verified.

    Raises:
        BadEnrolment: the file cannot be read, or what is wrong with it.
    """
    return read_request(_text_in(path, "a request"))


def read_request(text: str) -> Request:
    """A request, with its signature verified.

    Raises:
        BadEnrolment: what is wrong with it.
    """
    request = _read(text, Request, "a request")
    try:
        public = serialization.load_pem_public_key(request.public_key.encode())
    except _UNREADABLE as error:
        raise BadEnrolment(f"the request's public_key is not a readable key in PEM ({error}). {_ANEW}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != _CURVE.name:
        raise BadEnrolment(f"the request's key is not on the curve P-384. {_ANEW}")
    try:
        public.verify(base64.b64decode(request.signature, validate=True), _signed(request), ec.ECDSA(hashes.SHA384()))
    except (ValueError, InvalidSignature) as error:
        raise BadEnrolment("the request was changed after the hospital signed it; ask for it again") from error
    return request


def invitation_in(path: Path) -> Invitation:
    """The invitation in a file, with a readable certificate.

    Raises:
        BadEnrolment: the file cannot be read, or what is wrong with it.
    """
    return read_invitation(_text_in(path, "an invitation"))


def read_invitation(text: str) -> Invitation:
    """An invitation with a readable certificate, and nothing beside that certificate.

    Raises:
        BadEnrolment: what is wrong with it.
    """
    invitation = _read(text, Invitation, "an invitation")
    authority = _only_certificate(invitation.certificate_authority)
    _require_usable(authority)
    only = authority.public_bytes(serialization.Encoding.PEM)
    return invitation.model_copy(update={"certificate_authority": only.decode()})


def key_fingerprint(request: Request) -> str:
    """The fingerprint to compare on the telephone: SHA-256 of the public key, in groups of four."""
    return _of_key(serialization.load_pem_public_key(request.public_key.encode()))


def public_fingerprint(public_key: bytes) -> str:
    """The same, of a public key in PEM.

    Raises:
        BadEnrolment: it is not such a key.
    """
    try:
        return _of_key(serialization.load_pem_public_key(public_key))
    except _UNREADABLE as error:
        raise BadEnrolment(f"not a readable public key in PEM: {error}") from error


def own_fingerprint(enrolled_key: bytes) -> str:
    """The same, of the hospital that holds the key (OpenSSH PEM).

    Raises:
        BadEnrolment: it is not such a key.
    """
    return _of_key(private_key(enrolled_key).public_key())


def key_fingerprint_of_der(public_key: bytes) -> str:
    """The same, of a public key in DER as ``cryptography`` writes it."""
    return _groups(public_key)


def authority_fingerprint(invitation: Invitation) -> str:
    """The same for the server's certificate authority."""
    return certificate_fingerprint(invitation.certificate_authority)


def certificate_fingerprint(pem: str) -> str:
    """The same for any certificate.

    Raises:
        BadEnrolment: it cannot be read, or is not the only one.
    """
    return _groups(_only_certificate(pem).public_bytes(serialization.Encoding.DER))


def _only_certificate(pem: str) -> x509.Certificate:
    """The only certificate in a text: several would all be trusted, but the fingerprint covers one."""
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except _UNREADABLE as error:
        raise BadEnrolment(f"the authority's certificate cannot be read: {error}. {_SENT_AGAIN}") from error
    if len(certificates) != 1:
        raise BadEnrolment(f"there are {len(certificates)} certificates instead of the authority's. {_SENT_AGAIN}")
    return certificates[0]


def _require_usable(authority: x509.Certificate) -> None:
    """With another certificate the hospital would be enrolled and admitted, and no connection would ever stand."""
    try:
        issues = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        issues = True  # of an older kind (X.509 version 1), which OpenSSL takes as it is
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise BadEnrolment(f"the authority's certificate cannot be read: {error}. {_SENT_AGAIN}") from error
    if not issues:
        raise BadEnrolment(
            "its certificate is a server's own and not the authority's that issued it; ask for the invitation.json "
            "that consilium-server init has written"
        )
    now = datetime.now(UTC)
    if not authority.not_valid_before_utc <= now <= authority.not_valid_after_utc:
        raise BadEnrolment(
            f"the authority's certificate is valid from {authority.not_valid_before_utc:%Y-%m-%d} to "
            f"{authority.not_valid_after_utc:%Y-%m-%d}, and here it is {now:%Y-%m-%d}: ask for a new invitation, or "
            "set this machine's clock right"
        )


def _of_key(public: PublicKeyTypes) -> str:
    return _groups(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _groups(content: bytes) -> str:
    digits = hashlib.sha256(content).hexdigest()[:32]
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def private_key(content: bytes) -> ec.EllipticCurvePrivateKey:
    """The hospital's enrolled key (OpenSSH PEM).

    Raises:
        BadEnrolment: it is not such a key.
    """
    try:
        key = serialization.load_ssh_private_key(content, None)
    except _UNREADABLE as error:
        raise BadEnrolment(f"not a private key as consilium-site enroll creates it: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVE.name:
        raise BadEnrolment("the key is not on the curve P-384; remove it and run consilium-site enroll again")
    return key


def _signed(request: Request) -> bytes:
    """What is signed: everything but the signature."""
    return json.dumps(request.model_dump(exclude={"signature"}), sort_keys=True, separators=(",", ":")).encode()


def _text_in(path: Path, what: str) -> str:
    try:
        return received.text_in(path, what, MOST_BYTES)
    except received.Unusable as error:
        raise BadEnrolment(str(error)) from error


def _read(text: str, kind: type[T], what: str) -> T:
    if len(text) > MOST_BYTES:
        raise BadEnrolment(f"{what} has at most {MOST_BYTES} bytes, so it is another file")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        problems = received.faults_of(error, f"{what} of this release", _MOST)
        raise BadEnrolment(f"{problems}; ask for a new one") from None
