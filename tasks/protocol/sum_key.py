"""A hospital's key for the secure sums of one study, signed so that no coordinator can play a hospital.

    enrolled key (P-384)    at the gateway; hospitals have compared its fingerprint by telephone
      signs deputy key      (P-384) at the trainer, which cannot read the enrolled one; made by ``enroll``
        signs sum key       (X25519) a new one for each study, with the study's digest and the hospital's name

Whoever pins the fingerprint of the enrolled key accepts a sum key only if both signatures are right.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from tasks.protocol import enrolment
from tasks.protocol.study import STRICT, Name

_BASE64 = r"^[A-Za-z0-9+/]{1,400}={0,2}$"
Encoded = Annotated[str, Field(pattern=_BASE64)]
"""Bytes in base64."""
_ALGORITHM = ec.ECDSA(hashes.SHA384())
_DEPUTY, _SUM_KEY = b"consilium deputy key for secure sums 1\0", "consilium sum key 1"


class BadSumKey(ValueError):
    """A sum key that no pinned hospital has signed; the text says what is wrong."""


@dataclass(frozen=True, config=STRICT)
class SumKey:
    """What travels of a sum key; nothing in it is secret.

    Attributes:
        hospital: whose it is.
        key: the X25519 public key, 32 bytes.
        identity: the enrolled public key, DER.
        deputy: the deputy's public key, DER.
        deputised: the identity's signature of the deputy.
        signature: the deputy's, of hospital, study and key.
    """

    hospital: Name
    key: Encoded
    identity: Encoded
    deputy: Encoded
    deputised: Encoded
    signature: Encoded


@dataclass(frozen=True, config=STRICT)
class Deputy:
    """The deputy's secret key, and what proves whose it is. A secret file at the trainer.

    Attributes:
        private_key: PEM.
    """

    private_key: Annotated[str, Field(max_length=2048, repr=False)]
    identity: Encoded
    deputised: Encoded


_DEPUTIES = TypeAdapter(Deputy)


def new_deputy(enrolled_key: bytes) -> bytes:
    """A new deputy of an enrolled key (OpenSSH PEM), as its file holds it.

    Raises:
        BadEnrolment: it is not such a key.
    """
    identity, deputy = enrolment.private_key(enrolled_key), ec.generate_private_key(ec.SECP384R1())
    pem = deputy.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    deputised = identity.sign(_DEPUTY + _der(deputy.public_key()), _ALGORITHM)
    facts = {
        "private_key": pem.decode(),
        "identity": encoded(_der(identity.public_key())),
        "deputised": encoded(deputised),
    }
    return json.dumps(facts, indent=1).encode()


def read_deputy(content: bytes) -> Deputy:
    """The deputy in a file.

    Raises:
        BadSumKey: it holds none.
    """
    try:
        return _DEPUTIES.validate_json(content)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) or "file" for problem in error.errors())
        raise BadSumKey(f"not a deputy's key as consilium-site enroll writes it ({fields})") from None


def own_fingerprint(deputy: Deputy) -> str:
    """The fingerprint that others pin."""
    return enrolment.key_fingerprint_of_der(base64.b64decode(deputy.identity))


def signed(deputy: Deputy, hospital: str, study_digest: str, public_key: X25519PublicKey) -> SumKey:
    """A sum key with its signatures.

    Raises:
        BadSumKey: the deputy's key cannot be read.
    """
    try:
        key = serialization.load_pem_private_key(deputy.private_key.encode(), None)
    except ValueError as error:
        raise BadSumKey(f"the deputy's private key cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadSumKey("the deputy's private key is not on the curve P-384")
    shown = encoded(public_key.public_bytes_raw())
    return SumKey(
        hospital=hospital,
        key=shown,
        identity=deputy.identity,
        deputy=encoded(_der(key.public_key())),
        deputised=deputy.deputised,
        signature=encoded(key.sign(_signed(hospital, study_digest, shown), _ALGORITHM)),
    )


def fingerprint_of(sum_key: SumKey, study_digest: str) -> str:
    """Fingerprint of the enrolled key that answers for a sum key of a study.

    Raises:
        BadSumKey: a signature or a key is wrong.
    """
    try:
        parts = {name: base64.b64decode(getattr(sum_key, name), validate=True) for name in _PARTS}
        identity, deputy = _public(parts["identity"]), _public(parts["deputy"])
        X25519PublicKey.from_public_bytes(parts["key"])
        identity.verify(parts["deputised"], _DEPUTY + parts["deputy"], _ALGORITHM)
        deputy.verify(parts["signature"], _signed(sum_key.hospital, study_digest, sum_key.key), _ALGORITHM)
    except InvalidSignature:
        raise BadSumKey(f"the sum key of {sum_key.hospital} is not signed by its enrolled key for this study") from None
    except ValueError as error:
        raise BadSumKey(f"the sum key of {sum_key.hospital} cannot be read: {error}") from None
    return enrolment.key_fingerprint_of_der(parts["identity"])


_PARTS = ("key", "identity", "deputy", "deputised", "signature")


def public_key_of(sum_key: SumKey) -> X25519PublicKey:
    """The X25519 key, of a sum key whose signatures were verified."""
    return X25519PublicKey.from_public_bytes(base64.b64decode(sum_key.key))


def _public(der: bytes) -> ec.EllipticCurvePublicKey:
    key = serialization.load_der_public_key(der)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("a key that is not on the curve P-384")
    if _der(key) != der:  # another spelling of a key would have another fingerprint
        raise ValueError("a key in an unusual form")
    return key


def _signed(hospital: str, study_digest: str, key: str) -> bytes:
    return json.dumps([_SUM_KEY, hospital, study_digest, key], separators=(",", ":")).encode()


def _der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def encoded(content: bytes) -> str:
    """Bytes in base64, as the fields of a sum key hold them."""
    return base64.b64encode(content).decode()
