"""Who asks for a study: what a researcher hands in is signed with the key whose certificate opens their door.

The SuperLink itself asks nobody who reaches its Control API for a name, and keeps none. So the name comes with the
text: a certificate of this server's authority, and a signature (ECDSA with SHA-256) over the study and the time. A text
is good for a day and for one run, since whoever lists runs can read it. The server signs in the same way what it hands
in again.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.deployment.server_dir import ServerDir
from server.errors import NotSigned

_MOST_BYTES = 2**20
_GOOD_FOR, _AHEAD = timedelta(days=1), timedelta(minutes=10)
_HASH = ec.ECDSA(hashes.SHA256())
_REMEDY = "hand it in with `consilium`, of the server's release, and a certificate from `consilium-server researcher`"


class _Signed(BaseModel):
    """What travels: the text, as it was signed."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: Annotated[str, Field(max_length=_MOST_BYTES)]
    certificate: Annotated[str, Field(max_length=16384)]
    signature: Annotated[str, Field(max_length=512)]


class _Text(BaseModel):
    model_config = ConfigDict(extra="forbid")
    study: dict[str, Any]
    at: datetime


@dataclass(frozen=True)
class Asked:
    """A study's configuration, and the researcher who asks for it; ``None`` where the server itself goes on with it."""

    study: dict[str, Any]
    by: str | None


def signed(study: Mapping[str, object], key_file: Path, certificate_file: Path) -> str:
    """The text to hand in. Key and certificate (PEM) may lie in one file.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is no key or no certificate in it.
    """
    text = json.dumps({"study": study, "at": datetime.now(UTC).isoformat()})
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{key_file} holds no elliptic-curve key")
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    signature = base64.b64encode(key.sign(text.encode(), _HASH)).decode()
    return _Signed(text=text, certificate=pem, signature=signature).model_dump_json()


def read(home: ServerDir, run: int, content: str) -> Asked:
    """What a run's text asks for, and who does.

    Raises:
        NotSigned: nobody who may ask has signed it, or it was handed in before.
    """
    try:
        envelope = _Signed.model_validate_json(content[: 2 * _MOST_BYTES])
        certificate = x509.load_pem_x509_certificate(envelope.certificate.encode())
        by = _name(home, certificate)
        _verify(certificate, envelope)
        text = _Text.model_validate_json(envelope.text)
    except ValidationError:
        raise NotSigned(f"the study bears no signature: {_REMEDY}") from None
    except (ValueError, TypeError, InvalidSignature, RecursionError) as error:
        raise NotSigned(f"the study's signature does not hold ({type(error).__name__}): {_REMEDY}") from None
    _once(home, run, envelope, text)
    return Asked(text.study, by)


def _name(home: ServerDir, certificate: x509.Certificate) -> str | None:
    """Whose certificate it is; the server's own is nobody's.

    Raises:
        NotSigned: it is no researcher's of this server, or not any more.
        ValueError, TypeError, InvalidSignature: it is not of this authority.
    """
    if certificate == x509.load_pem_x509_certificate(home.certificate.read_bytes()):
        return None
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(home.authority.read_bytes()))
    name = str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise NotSigned("the study is signed with a certificate that is no researcher's")
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        raise NotSigned(f"{name}'s certificate has expired: consilium-server revoke {name}, then researcher {name}")
    revoked = x509.load_pem_x509_crl(home.revoked.read_bytes())
    if revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
        raise NotSigned(f"{name}'s certificate was revoked")
    return name


def _verify(certificate: x509.Certificate, envelope: _Signed) -> None:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("no elliptic-curve key")
    key.verify(base64.b64decode(envelope.signature, validate=True), envelope.text.encode(), _HASH)


def _once(home: ServerDir, run: int, envelope: _Signed, text: _Text) -> None:
    """Refuse what is old, and what another run has brought.

    The text is what counts and not the signature, of which anybody can make a second one that holds.
    """
    now, at = datetime.now(UTC), text.at if text.at.tzinfo else text.at.replace(tzinfo=UTC)
    if not now - _GOOD_FOR <= at <= now + _AHEAD:
        raise NotSigned(
            f"the study was signed at {at:%Y-%m-%d %H:%M} UTC and is too old, or a clock is wrong: {_REMEDY}"
        )
    mark = home.runs / f"{hashlib.sha256(envelope.text.encode()).hexdigest()}.asked"
    try:
        with mark.open("x", encoding="ascii") as file:
            file.write(str(run))
    except FileExistsError:
        if mark.read_text("ascii") != str(run):
            raise NotSigned(
                f"the study was handed in before, as run {mark.read_text('ascii')[:20]}: {_REMEDY}"
            ) from None
