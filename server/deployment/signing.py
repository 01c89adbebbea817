"""Who submits a study: a researcher signs it with the key of the certificate that gives access to the server.

The SuperLink does not authenticate callers of its Control API, and keeps no names. So the name comes with the text: a
certificate of this server's authority, and a signature (ECDSA with SHA-256) over the study and the time. A text is
valid for one day and one run, since everybody who can list runs can read it. The server signs what it resubmits in the
same way.
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
_REMEDY = "submit it with `consilium`, of the server's release, and a certificate from `consilium-server researcher`"


class _Signed(BaseModel):
    """What is sent: the text, as it was signed."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: Annotated[str, Field(max_length=_MOST_BYTES)]
    certificate: Annotated[str, Field(max_length=16384)]
    signature: Annotated[str, Field(max_length=512)]


class _Text(BaseModel):
    model_config = ConfigDict(extra="forbid")
    study: dict[str, Any]
    at: datetime
    by: Annotated[str | None, Field(max_length=64)] = None
    """Who first asked for a study that the server submits again; believed of the server alone."""


@dataclass(frozen=True)
class Asked:
    """A study's configuration, and the researcher who submits it; ``None`` where the server itself resumes a study."""

    study: dict[str, Any]
    by: str | None


def signed(study: Mapping[str, object], key_file: Path, certificate_file: Path, by: str | None = None) -> str:
    """The text to submit. Key and certificate (PEM) may be in one file.

    Args:
        by: for the server, which submits again what somebody else has asked for.

    Raises:
        OSError: a file cannot be read.
        ValueError: it holds no key or no certificate.
    """
    text = json.dumps({"study": study, "at": datetime.now(UTC).isoformat()} | ({"by": by} if by else {}))
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{key_file} holds no elliptic-curve key")
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    signature = base64.b64encode(key.sign(text.encode(), _HASH)).decode()
    return _Signed(text=text, certificate=pem, signature=signature).model_dump_json()


def read(server_dir: ServerDir, run: int, content: str) -> Asked:
    """What a run's text asks for, and who submits it.

    Raises:
        NotSigned: nobody with the right to submit has signed it, or it was submitted before.
    """
    try:
        envelope = _Signed.model_validate_json(content[: 2 * _MOST_BYTES])
        certificate = x509.load_pem_x509_certificate(envelope.certificate.encode())
        by = _name(server_dir, certificate)
        _verify(certificate, envelope)
        text = _Text.model_validate_json(envelope.text)
    except ValidationError:
        raise NotSigned(f"the study is not signed: {_REMEDY}") from None
    except (ValueError, TypeError, InvalidSignature, RecursionError) as error:
        raise NotSigned(f"the study's signature is not valid ({type(error).__name__}): {_REMEDY}") from None
    _once(server_dir, run, envelope, text)
    return Asked(text.study, text.by if by is None else by)


def _name(server_dir: ServerDir, certificate: x509.Certificate) -> str | None:
    """Whose certificate it is; ``None`` for the server's own.

    Raises:
        NotSigned: it is not a researcher's certificate, has expired, or was revoked.
        ValueError, TypeError, InvalidSignature: it was not issued by this authority.
    """
    own = x509.load_pem_x509_certificate(server_dir.certificate.read_bytes())
    if certificate.public_key() == own.public_key():  # also one that was renewed since
        return None
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(server_dir.authority.read_bytes()))
    name = str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise NotSigned("the study is signed with a certificate that is not a researcher's")
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        raise NotSigned(f"{name}'s certificate has expired: consilium-server revoke {name}, then researcher {name}")
    revoked = x509.load_pem_x509_crl(server_dir.revoked.read_bytes())
    if revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
        raise NotSigned(f"{name}'s certificate was revoked")
    return name


def _verify(certificate: x509.Certificate, envelope: _Signed) -> None:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("no elliptic-curve key")
    key.verify(base64.b64decode(envelope.signature, validate=True), envelope.text.encode(), _HASH)


def _once(server_dir: ServerDir, run: int, envelope: _Signed, text: _Text) -> None:
    """Refuse a text that is too old, or that another run has brought.

    The text counts and not the signature, of which anybody can make a second valid one.
    """
    now, at = datetime.now(UTC), text.at if text.at.tzinfo else text.at.replace(tzinfo=UTC)
    if not now - _GOOD_FOR <= at <= now + _AHEAD:
        raise NotSigned(
            f"the study was signed at {at:%Y-%m-%d %H:%M} UTC and is too old, or a clock is wrong: {_REMEDY}"
        )
    mark = server_dir.runs / f"{hashlib.sha256(envelope.text.encode()).hexdigest()}.asked"
    try:
        with mark.open("x", encoding="ascii") as file:
            file.write(str(run))
    except FileExistsError:
        if mark.read_text("ascii") != str(run):
            raise NotSigned(
                f"the study was submitted before, as run {mark.read_text('ascii')[:20]}: {_REMEDY}"
            ) from None
