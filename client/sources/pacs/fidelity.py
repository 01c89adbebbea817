"""Whether an image was received as it is stored. A success status proves nothing: archives transcode silently.

Tested in ``tests/client/sources/pacs/test_retry.py``.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from client.pixels.header import NATIVE


class Fidelity(StrEnum):
    """How the received transfer syntax relates to the stored one."""

    AS_HELD = "AS_HELD"
    REENCODED = "REENCODED"
    """Both are uncompressed: different bytes, the same values."""
    TRANSCODED = "TRANSCODED"
    """One of them is compressed: values, or the trace of lossy compression, may be lost."""
    UNPROVEN = "UNPROVEN"
    """The stored transfer syntax is unknown."""


def judge(received: str, held: frozenset[str], somewhere: frozenset[str] = frozenset()) -> Fidelity:
    """Compare the received transfer syntax with what the archive reports.

    Args:
        received: TransferSyntaxUID of the file.
        held: AvailableTransferSyntaxUID (0008,3002) of this image; empty when the archive does not tell.
        somewhere: what the archive holds among all its images, a source's ``holds``; used when ``held`` is empty. If
            it holds both kinds, an uncompressed image may be stored so, or may have been decompressed: no proof.
    """
    known = held or somewhere
    if received in NATIVE and not held and known - NATIVE and known & NATIVE:
        return Fidelity.UNPROVEN
    if not known:
        return Fidelity.UNPROVEN
    if received in known:
        return Fidelity.AS_HELD
    return Fidelity.REENCODED if received in NATIVE and known <= NATIVE else Fidelity.TRANSCODED


def sentences(verdicts: Counter[Fidelity], transcoded: int) -> list[str]:
    """Warnings about how the images were received, one sentence per problem."""
    warnings = []
    if transcoded:
        warnings.append(
            f"TRANSCODED: {transcoded} image(s) came in an encoding other than the archive stores, and are not used; "
            "have the archive send what it stores (DICOMweb with `transfer-syntax=*`, or a folder export)"
        )
    if number := verdicts[Fidelity.REENCODED]:
        warnings.append(
            f"REENCODED: {number} image(s) came in an uncompressed encoding other than stored; values are equal"
        )
    if number := verdicts[Fidelity.UNPROVEN]:
        warnings.append(
            f"UNPROVEN: the archive does not report how it stores {number} image(s), so it is unproven that they came "
            "unchanged; set `holds` (its conformance statement has the UIDs), or compare some with a folder export"
        )
    return warnings
