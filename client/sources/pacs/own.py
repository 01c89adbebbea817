"""Consilium's own objects in an archive: unique names that a second run finds again, and how a search knows them.

A name is made of what the object was computed from, under the hospital's key: the same computation has the same name,
and nobody without the key learns anything from it. Part of it is a seal, by which the hospital recognises its own names
without a list of them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Callable
from functools import partial

from client.sources.pacs.search import Match, number, value

NOT_FOR_CLINICAL_USE = "NOT FOR CLINICAL USE"
SERIES_NUMBERS = {"SR": 9100, "SEG": 9101}
"""SeriesNumber of everything that Consilium writes, by Modality."""
_PREFIX, _LONGEST_UUID = "2.25.", 1 << 128
_SEAL = 4  # bytes of a name that are its seal: of 2^30 foreign names one is mistaken for ours


def own_uid(key: bytes, *parts: object) -> str:
    """A UID made of a name-based UUID (PS3.5 B.2), the same for the same parts.

    Args:
        key: the hospital's secret.
        parts: what the object is and was made of; anything that JSON can hold.
    """
    name = hmac.digest(key, json.dumps(["own object", *parts]).encode(), hashlib.sha256)[: 16 - _SEAL]
    return _sealed(key, uuid.UUID(bytes=name + bytes(_SEAL), version=5))


def is_own_uid(key: bytes, uid: str) -> bool:
    """Whether ``own_uid`` made it under this key."""
    ending = uid.removeprefix(_PREFIX)
    if not uid.startswith(_PREFIX) or not (ending.isascii() and ending.isdecimal()) or int(ending) >= _LONGEST_UUID:
        return False
    return hmac.compare_digest(_sealed(key, uuid.UUID(int=int(ending))), uid)


def _sealed(key: bytes, name: uuid.UUID) -> str:
    kept = name.bytes[:-_SEAL]
    seal = hmac.digest(key, b"own object's seal" + kept, hashlib.sha256)[:_SEAL]
    return f"{_PREFIX}{int.from_bytes(kept + seal, 'big')}"


def is_own_series(key: bytes, series: Match) -> bool:
    """Whether Consilium wrote a series, as far as a search tells: by its UID; or, of releases that drew UIDs at random,
    by modality, number and description."""
    if is_own_uid(key, value(series, "SeriesInstanceUID")):
        return True
    numbered = number(series, "SeriesNumber") == SERIES_NUMBERS.get(value(series, "Modality"), -1)
    return numbered and value(series, "SeriesDescription").startswith(NOT_FOR_CLINICAL_USE)


def own_under(key: bytes) -> Callable[[Match], bool]:
    """``is_own_series`` under the hospital's secret."""
    return partial(is_own_series, key)
