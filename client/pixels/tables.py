"""Look-up tables of the header: palettes (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6, C.7.9.2) and the Modality LUT (C.11.1).

pydicom has functions for both. They take the bytes of a big-endian palette as little-endian, and keep indices in the
type of the entries, so that 8-bit entries with more than 256 indices come out wrong without an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from client.pixels.refusal import Reason, UnreadableDicom, guarded

_COLOURS = ("Red", "Green", "Blue")
LookupTable = NDArray[np.uint16]


def look_up_palette(stored: NDArray[Any], header: Dataset) -> tuple[NDArray[np.uint16], int]:
    """RGB of shape (rows, columns, 3), and the highest value that the palette can express.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER, the palette is missing or damaged.
    """
    tables = [guarded(Reason.IMPLAUSIBLE_HEADER, lambda c=colour: _palette(header, c)) for colour in _COLOURS]  # type: ignore[misc]
    if len({(first, bits) for _, first, bits in tables}) > 1:
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, "palettes of different depth for red, green and blue")
    _, first, bits = tables[0]
    if bits == 16 and max(int(table.max()) for table, _, _ in tables) < 256:
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, "a palette of 16 bits that holds values of 8 bits")
    return np.stack([_look_up(stored, table, first) for table, _, _ in tables], axis=-1), (1 << bits) - 1


def look_up_modality(stored: NDArray[Any], header: Dataset) -> tuple[NDArray[np.uint16], int]:
    """Output of the Modality LUT of the stored shape, and the highest value that it can express.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER.
    """
    item = header.ModalityLUTSequence[0]

    def read() -> tuple[LookupTable, int, int]:
        entries, first, bits = _descriptor(item, "LUTDescriptor")
        data = item.LUTData
        if isinstance(data, bytes):
            return _of_length(_words(data, 16, _order(header)), entries), first, bits
        table = np.atleast_1d(np.asarray(data)).astype(np.uint16)
        return _of_length(table, entries), first, bits

    table, first, bits = guarded(Reason.IMPLAUSIBLE_HEADER, read)
    if not 8 <= bits <= 16 or int(table.max()) >> bits:
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"a Modality LUT of {bits} bits up to {table.max()}")
    return _look_up(stored, table, first), (1 << bits) - 1


def _look_up(stored: NDArray[Any], table: LookupTable, first: int) -> NDArray[np.uint16]:
    """Values below the first mapped one take its entry, those past the last the last's (C.7.6.3.1.5, C.11.1.1.1)."""
    looked_up: LookupTable = table[(stored.astype(np.int64) - first).clip(0, len(table) - 1)]
    return looked_up


def _descriptor(item: Dataset, keyword: str) -> tuple[int, int, int]:
    entries, first, bits = (int(number) for number in item[keyword].value)
    return entries or 1 << 16, first, bits  # 65536 does not fit the field and is written as 0


def _palette(header: Dataset, colour: str) -> tuple[LookupTable, int, int]:
    entries, first, bits = _descriptor(header, f"{colour}PaletteColorLookupTableDescriptor")
    if bits not in (8, 16):
        raise ValueError(f"a palette of {bits} bits")
    if (data := header.get(f"{colour}PaletteColorLookupTableData")) is not None:
        # Entries of 8 bits may lie in words of 16 as well.
        width = 8 if bits == 8 and len(data) <= entries + 1 else 16
        return _of_length(_words(data, width, _order(header)), entries), first, bits
    segments = _words(header[f"Segmented{colour}PaletteColorLookupTableData"].value, bits, _order(header))
    return _of_length(_expanded(segments.tolist(), entries), entries), first, bits


def _words(data: bytes, width: int, order: str) -> LookupTable:
    if width == 16:
        return np.frombuffer(data, dtype=f"{order}u2").astype(np.uint16)
    flat = np.frombuffer(data, dtype="u1").astype(np.uint16)
    # The attributes are OW: in big endian even single bytes lie pairwise swapped (PS3.5 section 7.3).
    return flat.reshape(-1, 2)[:, ::-1].reshape(-1) if order == ">" else flat


def _of_length(table: LookupTable, entries: int) -> LookupTable:
    if len(table) < entries:
        raise ValueError(f"a table of {len(table)} entries that should have {entries}")
    return table[:entries]


def _order(header: Dataset) -> str:
    return "<" if header.original_encoding[1] else ">"


def _expanded(words: list[int], entries: int) -> LookupTable:
    """Discrete and linear segments (C.7.9.2.1, C.7.9.2.2), until there are as many entries as the descriptor says.

    Indirect segments (C.7.9.2.3) are refused: readers disagree on the unit of their offset, and none was seen.
    """
    table: list[int] = []
    position = 0
    while position + 2 < len(words) and len(table) < entries:
        kind, length, position = words[position], words[position + 1], position + 2
        if kind == 0:
            table.extend(words[position : position + length])
            position += length
        elif kind == 1 and table:
            table.extend(np.rint(np.linspace(table[-1], words[position], length + 1)[1:]).astype(int).tolist())
            position += 1
        else:
            raise ValueError(f"segment type {kind} after {len(table)} entries of a segmented palette")
    return np.array(table, dtype=np.uint16)
