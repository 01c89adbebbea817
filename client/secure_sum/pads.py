"""Pads: what two hospitals add and subtract, so that it cancels in the sum and hides both parts before.

For each pair the X25519 secret of their sum keys goes through HKDF (RFC 5869), bound to everything that the two must
agree on: study, cohort, round, attempt, roster, and the digest of the whole order. So a hospital that was shown another
roster or another model makes another pad, nothing cancels, and the sum is garbage. The derived key serves for
one AES-256 stream in counter mode, from counter 0. Of the two the one whose name comes first adds, the other subtracts.

A pad hides one message (it is a one-time pad). That no order is answered twice with different numbers is the ledger's
care, see ``Ledger.planning``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from client.errors import PeersRefused
from tasks.protocol.secure_sum import Grid, Words
from tasks.protocol.sum_key import SumKey, public_key_of

_PURPOSE = "consilium pad 1"
_AT_ONCE = 1 << 18
"""Words of a pad that are in memory at once."""


class Pads:
    """The pads of one hospital in one attempt.

    Args:
        own: the hospital's secret sum key.
        name: of the hospital, which is on the roster.
        roster: the sum keys, verified.
        order_digest: of the whole order, attempt and roster included.
        cohort: whose patients are summed.

    Raises:
        PeersRefused: a peer's key makes no secret.
    """

    def __init__(
        self, own: X25519PrivateKey, name: str, roster: Sequence[SumKey], order_digest: str, cohort: str
    ) -> None:
        tag = json.dumps([_PURPOSE, cohort, order_digest], separators=(",", ":")).encode()
        others = [peer for peer in roster if peer.hospital != name]
        self._keys = {peer.hospital: _derived(own.private_bytes_raw(), peer, tag) for peer in others}
        self._name = name

    def mask(self, words: Words, grid: Grid) -> Words:
        """Words with all pads, of shape (words,). Call it once."""
        masked = words.copy()
        for peer, key in self._keys.items():
            add = np.add if self._name < peer else np.subtract
            stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
            for start in range(0, len(masked), _AT_ONCE):
                part = masked[start : start + _AT_ONCE]
                pad = np.frombuffer(stream.update(bytes(part.nbytes)), dtype=grid.dtype.newbyteorder("<"))
                add(part, pad.astype(grid.dtype, copy=False), out=part)
        self._keys.clear()  # so that a second message under them is impossible here
        return masked


def _derived(own: bytes, peer: SumKey, tag: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=tag).derive(_secret(own, peer))


@lru_cache(maxsize=1 << 14)  # a process that plays a hundred hospitals has ten thousand pairs in every step
def _secret(own: bytes, peer: SumKey) -> bytes:
    try:
        return X25519PrivateKey.from_private_bytes(own).exchange(public_key_of(peer))
    except ValueError as error:  # a point of low order, whose secret everybody knows
        raise PeersRefused(f"the sum key of {peer.hospital} makes no secret: {error}") from None
