"""Did an image arrive as it is stored? A status of success proves nothing: archives transcode silently."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from client.pixels.header import NATIVE


class Fidelity(StrEnum):
    """How the transfer syntax that came relates to those in which the archive holds the image."""

    AS_HELD = "AS_HELD"
    REENCODED = "REENCODED"
    """Both are uncompressed: other bytes, the same values."""
    TRANSCODED = "TRANSCODED"
    """One of them is compressed: values, or the trace of a lossy past, may be lost."""
    UNPROVEN = "UNPROVEN"
    """Nobody says what the archive holds."""


def judge(received: str, held: frozenset[str], somewhere: frozenset[str] = frozenset()) -> Fidelity:
    """Compare the transfer syntax that came with what the archive says.

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
    """What a person should know about how the images came, a sentence for each trouble."""
    found = []
    if transcoded:
        found.append(
            f"TRANSCODED: {transcoded} image(s) came in another encoding than the archive stores, and are not used; "
            "have the archive hand out what it stores (DICOMweb with `transfer-syntax=*`, or a folder export)"
        )
    if number := verdicts[Fidelity.REENCODED]:
        found.append(
            f"REENCODED: {number} image(s) came in another uncompressed encoding than stored; values are equal"
        )
    if number := verdicts[Fidelity.UNPROVEN]:
        found.append(
            f"UNPROVEN: the archive does not tell how it stores {number} image(s), so nobody can say that they came "
            "unchanged; give `holds` (its conformance statement has the UIDs), or compare some with a folder export"
        )
    return found
