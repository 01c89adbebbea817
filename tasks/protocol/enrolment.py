"""How a hospital and a server come to know each other: an invitation one way, a request the other. Neither is secret.

The hospital makes its key pair itself, and only the public half travels, signed by the other half, so a request can
only come from who holds the key. Flower's SuperNodes sign with ECDSA on P-384.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.protocol.study import release

MOST_BYTES = 64 * 2**10
"""Neither file is longer."""
SERVER = r"^[A-Za-z0-9.-]+:\d{1,5}$"
"""``host:port``."""
LARGEST = 10_000_000
"""No hospital declares a larger public size."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$"
"""What a hospital's name looks like."""
_CURVE = ec.SECP384R1()
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What cryptography raises for keys and certificates that it does not know, or are none."""
_ANEW = "At the hospital, make it anew with this release: consilium-site enroll --invitation FILE"
_MOST = 5
"""So many problems of a file are told."""
_SENT_AGAIN = "Have the coordinator send the invitation again"
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
    public_size: Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
    """The cohort size that the hospital declares. The server fixes it when it admits the hospital: no message can
    change how much its updates weigh."""
    signature: Annotated[str, Field(max_length=512)]
    """ECDSA with SHA-384 over everything else, base64."""


def new_key() -> bytes:
    """A private key as OpenSSH PEM, which is what Flower reads."""
    return ec.generate_private_key(_CURVE).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def request(hospital: str, private_key: bytes, public_size: int) -> Request:
    """A signed request of the hospital that holds the key (OpenSSH PEM).

    Raises:
        BadEnrolment: it is no such key.
    """
    key = _private(private_key)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    unsigned = Request(
        hospital=hospital, public_key=public.decode(), release=release(), public_size=public_size, signature=""
    )
    signature = key.sign(_signed(unsigned), ec.ECDSA(hashes.SHA384()))
    return unsigned.model_copy(update={"signature": base64.b64encode(signature).decode()})


def request_in(path: Path) -> Request:
    """The request in a file, whose signature holds.

    Raises:
        BadEnrolment: the file cannot be read, or what is wrong with it.
    """
    return read_request(_text_in(path, "request"))


def read_request(text: str) -> Request:
    """A request whose signature holds.

    Raises:
        BadEnrolment: what is wrong with it.
    """
    found = _read(text, Request, "request")
    try:
        public = serialization.load_pem_public_key(found.public_key.encode())
    except _UNREADABLE as error:
        raise BadEnrolment(f"the request's public_key is no key in PEM that can be read ({error}). {_ANEW}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != _CURVE.name:
        raise BadEnrolment(f"the request's key is not on the curve P-384. {_ANEW}")
    try:
        public.verify(base64.b64decode(found.signature, validate=True), _signed(found), ec.ECDSA(hashes.SHA384()))
    except (ValueError, InvalidSignature) as error:
        raise BadEnrolment("the request was changed after the hospital signed it; have it sent again") from error
    return found


def invitation_in(path: Path) -> Invitation:
    """The invitation in a file, whose certificate can be read.

    Raises:
        BadEnrolment: the file cannot be read, or what is wrong with it.
    """
    return read_invitation(_text_in(path, "invitation"))


def read_invitation(text: str) -> Invitation:
    """An invitation whose certificate can be read, with nothing beside that certificate.

    Raises:
        BadEnrolment: what is wrong with it.
    """
    found = _read(text, Invitation, "invitation")
    only = _only_certificate(found.certificate_authority).public_bytes(serialization.Encoding.PEM)
    return found.model_copy(update={"certificate_authority": only.decode()})


def key_fingerprint(request: Request) -> str:
    """What hospital and server read to each other on the telephone: SHA-256 of the public key, in groups of four."""
    return _of_key(serialization.load_pem_public_key(request.public_key.encode()))


def own_fingerprint(private_key: bytes) -> str:
    """The same, of the hospital that holds the key (OpenSSH PEM).

    Raises:
        BadEnrolment: it is no such key.
    """
    return _of_key(_private(private_key).public_key())


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
    """The one certificate of a text: of several all would be believed, and the fingerprint is of one."""
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except _UNREADABLE as error:
        raise BadEnrolment(f"the authority's certificate cannot be read: {error}. {_SENT_AGAIN}") from error
    if len(certificates) != 1:
        raise BadEnrolment(f"there are {len(certificates)} certificates instead of the authority's. {_SENT_AGAIN}")
    return certificates[0]


def _of_key(public: PublicKeyTypes) -> str:
    return _groups(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _groups(content: bytes) -> str:
    digits = hashlib.sha256(content).hexdigest()[:32]
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def _private(content: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_ssh_private_key(content, None)
    except _UNREADABLE as error:
        raise BadEnrolment(f"not a private key as consilium-site enroll makes it: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVE.name:
        raise BadEnrolment("the key is not on the curve P-384; remove it and say consilium-site enroll again")
    return key


def _signed(request: Request) -> bytes:
    """What the signature is of: everything but itself."""
    return json.dumps(request.model_dump(exclude={"signature"}), sort_keys=True, separators=(",", ":")).encode()


def _text_in(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)  # whoever sent it may have sent anything of any size
        _refuse_long(content, what)
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadEnrolment(f"cannot be read as a {what}: {error}") from error


def _read(text: str, kind: type[T], what: str) -> T:
    _refuse_long(text, what)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:_MOST])
        raise BadEnrolment(f"not a {what} of this release ({problems}); have it made and sent again") from None


def _refuse_long(content: str | bytes, what: str) -> None:
    if len(content) > MOST_BYTES:
        raise BadEnrolment(f"no {what} is longer than {MOST_BYTES} bytes; is it the right file?")
