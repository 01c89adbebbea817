"""A certificate for each admitted hospital, by which the reverse proxy knows it before it reads a request.

It is issued for the key that the hospital made, and is public: ``register.publish`` hands it to whoever asks for that
key. Its serial number comes from the key, so that revoking a hospital needs no file but the register.
"""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.deployment import pki
from server.deployment.server_dir import Hospital, ServerDir

ROLE = "hospital"
"""What stands in the subject as OU: no role of a person."""
_RENEW_DAYS = 60.0
_KEY = re.compile(r"[0-9a-f]{32}")


def certificate(server_dir: ServerDir, one: Hospital, known: object = None) -> str | None:
    """The hospital's certificate (PEM), valid almost as long as the authority; ``None`` where its key is not known.

    Args:
        known: the one that it has, which stays as long as it is good.

    Raises:
        OSError, ValueError: the authority's files cannot be read.
    """
    serial = _serial(one)
    if one.public_key is None or serial is None:
        return None
    days = pki.days_of(server_dir.authority) - 1
    if isinstance(known, str) and _is_good(known, one, days):
        return known
    key = serialization.load_pem_public_key(one.public_key.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    issued = pki.issue_client(server_dir, ROLE, one.name, key, days=days, serial=serial)
    return issued.public_bytes(serialization.Encoding.PEM).decode()


def revoke(server_dir: ServerDir, hospitals: list[Hospital]) -> bool:
    """Put the certificates of hospitals that were revoked on the list. Returns whether that changes it.

    Raises:
        OSError, ValueError: the authority's files cannot be read.
    """
    gone = [_serial(one) for one in hospitals if one.revoked is not None]
    return pki.revoke(server_dir, [serial for serial in gone if serial is not None])


def _serial(one: Hospital) -> int | None:
    """128 bits of the SHA-256 of the public key."""
    key = one.key.replace(" ", "")
    return int(key, 16) or None if _KEY.fullmatch(key) else None


def _is_good(pem: str, one: Hospital, days: float) -> bool:
    try:
        found = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return False
    return found.serial_number == _serial(one) and pki.days_left_of(found) > min(days - 1, _RENEW_DAYS)
