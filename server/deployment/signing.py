"""Who submits a study or stops one: a person signs that with the key of the certificate that gives access here.

The SuperLink does not authenticate callers of its Control API, and keeps no names. So the name comes with the text: a
certificate of this server's authority, and a signature (ECDSA with SHA-256) over the study and the time. A text is
valid for one day and one run, since everybody who can list runs can read it. The server signs what it resubmits in the
same way. Whoever only reads, by the role in the certificate, submits and stops nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.deployment import people, pki
from server.deployment.people import Person
from server.deployment.server_dir import ServerDir
from server.errors import NotSigned

_MOST_BYTES = 2**20
_GOOD_FOR, _AHEAD = timedelta(days=1), timedelta(minutes=10)
_LISTS_SECONDS = timedelta(seconds=1)
"""A revocation list knows no fractions of a second."""
_HASH = ec.ECDSA(hashes.SHA256())
_REMEDY = "submit it with `consilium`, of the server's release, and a certificate from `consilium-server person`"


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
    """A study's configuration, or the study to be stopped, and who asks; ``None`` where the server itself resumes a
    study."""

    study: dict[str, Any]
    by: Person | None

    @property
    def name(self) -> str | None:
        return None if self.by is None else self.by.name


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
        text = _Text.model_validate_json(envelope.text)
        _verify(certificate, envelope)
        by = _signer(server_dir, certificate, text)
    except ValidationError:
        raise NotSigned(f"the study is not signed: {_REMEDY}") from None
    except (NotSigned, OSError):
        raise
    except Exception as error:  # a certificate can be odd in many ways, each with an error of its own
        raise NotSigned(f"the study's signature is not valid ({type(error).__name__}): {_REMEDY}") from None
    _once(server_dir, run, envelope, text)
    if by is None and text.by is not None:
        by = Person(text.by, people.role_of(server_dir, text.by))
    return Asked(text.study, by)


def _signer(server_dir: ServerDir, certificate: x509.Certificate, text: _Text) -> Person | None:
    """Whose certificate it is; ``None`` for the server's own.

    Raises:
        NotSigned: it is nobody's who may submit, has expired, or was revoked.
        ValueError, TypeError, InvalidSignature: it was not issued by this authority.
    """
    own = x509.load_pem_x509_certificate(server_dir.certificate.read_bytes())
    if certificate.public_key() == own.public_key():  # also one that was renewed since
        return None
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(server_dir.authority.read_bytes()))
    person = people.person_in(certificate)
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes or person is None:
        raise NotSigned("the study is signed with a certificate that is not a researcher's")
    if person.role not in people.ASKING:
        raise NotSigned(f"{person.name} is a {person.role}, who may read results but not submit or stop studies")
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        raise NotSigned(f"{person.name}'s certificate has expired: consilium-server renew {person.name}")
    _refuse_revoked(server_dir, person.name, certificate.serial_number, _moment(text))
    return person


def _refuse_revoked(server_dir: ServerDir, name: str, serial: int, signed_at: datetime) -> None:
    """Refuse a certificate on the revocation list. One that was renewed, under the same key, holds for what was signed
    before: a study that waits in the queue need not be submitted again.

    Raises:
        NotSigned
    """
    entry = pki.revocations(server_dir).get(serial)
    if entry is None:
        return
    renewed = pki.reason_of(entry) is pki.SUPERSEDED and people.exists(server_dir, name)
    if renewed and signed_at <= entry.revocation_date_utc + _LISTS_SECONDS:
        return
    raise NotSigned(f"{name}'s certificate was revoked")


def _moment(text: _Text) -> datetime:
    return text.at if text.at.tzinfo else text.at.replace(tzinfo=UTC)


def _verify(certificate: x509.Certificate, envelope: _Signed) -> None:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("no elliptic-curve key")
    key.verify(base64.b64decode(envelope.signature, validate=True), envelope.text.encode(), _HASH)


def _once(server_dir: ServerDir, run: int, envelope: _Signed, text: _Text) -> None:
    """Refuse a text that is too old, or that another run has brought.

    The text counts and not the signature, of which anybody can make a second valid one.
    """
    now, at = datetime.now(UTC), _moment(text)
    if not now - _GOOD_FOR <= at <= now + _AHEAD:
        raise NotSigned(
            f"the study was signed at {at:%Y-%m-%d %H:%M} UTC and is too old, or a clock is wrong: {_REMEDY}"
        )
    mark = server_dir.runs / f"{hashlib.sha256(envelope.text.encode()).hexdigest()}.asked"
    draft = mark.with_suffix(f".{run}.partial")
    draft.write_text(str(run), "ascii")
    try:
        os.link(draft, mark)  # whole or not at all: a mark that a kill left empty would refuse the next try
    except FileExistsError:
        if (earlier := mark.read_text("ascii")) not in (str(run), ""):
            raise NotSigned(f"the study was submitted before, as run {earlier[:20]}: {_REMEDY}") from None
    finally:
        draft.unlink(missing_ok=True)
