"""Locate the bytes of one frame in a file, and read only those.

Uncompressed frames follow each other without a gap (PS3.5 section 8.1.1, annex D for single bits); compressed ones are
cut into fragments, which an offset table may or may not sort into frames (PS3.5 annex A.4, PS3.3 C.7.6.3.1.8).
"""

from __future__ import annotations

import struct
from struct import iter_unpack, unpack

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from client.pixels.header import MeteredFile, PixelElement
from client.pixels.pixel_format import PixelFormat
from client.pixels.refusal import Reason, UnreadableDicom

MAX_FRAGMENTS = 1_000_000
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_STARTS = (b"\xff\xd8", b"\xff\x4f")  # SOI of JPEG and JPEG-LS, SOC of JPEG 2000
_HALVED = ("YBR_FULL_422", "YBR_PARTIAL_422")

Piece = tuple[int, int]
"""Offset in the file and length in bytes."""


def size_in_bits(form: PixelFormat) -> int:
    """Bits that one uncompressed frame takes; 4:2:2 stores two samples a pixel instead of three (C.7.6.3.1.2)."""
    samples = 2 if form.photometric in _HALVED else form.samples
    return form.rows * form.columns * samples * form.bits_allocated


def read_native(file: MeteredFile, element: PixelElement, form: PixelFormat, index: int) -> NDArray[np.uint8]:
    """Bytes of one uncompressed frame in file order, uint8 of shape (bytes,); one a pixel for single bits.

    Raises:
        UnreadableDicom: TRUNCATED or LENGTH_MISMATCH, when the element has not the length that the header asks for.
    """
    bits = size_in_bits(form)
    _refuse_other_length(file, element, -(-bits * form.frames // 8), -(-bits // form.rows // 8))
    first, past = index * bits // 8, -(-(index + 1) * bits // 8)
    # Samples smaller than the 16-bit words of the other byte order lie pairwise swapped (PS3.5 section 7.3).
    swapped = not element.little_endian and element.vr == "OW" and form.bits_allocated <= 8
    start = first - first % 2 if swapped else first
    file.seek(element.start + start)
    data = np.frombuffer(file.read(past + past % 2 - start if swapped else past - start), dtype=np.uint8)
    if swapped:
        data = data[: data.size // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1)[first - start : past - start]
    if data.size < past - first:
        raise UnreadableDicom(Reason.TRUNCATED, f"frame {index} ends after {data.size} of {past - first} bytes")
    if form.bits_allocated > 1:
        return data
    skipped = index * bits % 8
    return np.unpackbits(data, bitorder="little")[skipped : skipped + bits]


def _refuse_other_length(file: MeteredFile, element: PixelElement, expected: int, row: int) -> None:
    if element.length is None:
        raise UnreadableDicom(Reason.LENGTH_MISMATCH, "uncompressed pixel data of undefined length")
    there = min(element.length, file.size - element.start)
    said = f"{there} bytes of pixel data, the header requires {expected}"
    if there < expected:
        raise UnreadableDicom(Reason.TRUNCATED, said)
    if element.length <= expected + expected % 2:
        return
    # Some writers pad with zeros. More than a row of them, or anything else, means that Rows or Columns are wrong.
    file.seek(element.start + expected)
    if element.length - expected > row or any(file.read(row)[: element.length - expected]):
        raise UnreadableDicom(Reason.LENGTH_MISMATCH, said)


def find_encapsulated(file: MeteredFile, element: PixelElement, header: Dataset, frames: int) -> list[list[Piece]]:
    """The fragments of each frame.

    The Extended Offset Table is believed first, then the Basic Offset Table; without either, fragments are counted, and
    at last told apart by the codestreams' start markers.

    Raises:
        UnreadableDicom: TRUNCATED, or FRAGMENTS_MISMATCH when the frames cannot be told apart.
    """
    if element.length is not None:
        raise UnreadableDicom(Reason.FRAGMENTS_MISMATCH, "compressed pixel data that is not encapsulated")
    table, pieces = _items(file, element.start)
    if not pieces:
        raise UnreadableDicom(Reason.TRUNCATED, "no fragment")
    if extended := header.get("ExtendedOffsetTable"):
        return _by_extended_table(extended, header.get("ExtendedOffsetTableLengths"), pieces, frames)
    if len(pieces) == frames:
        return [[piece] for piece in pieces]
    if frames == 1:
        return [pieces]
    starts = {offset - 8 - (pieces[0][0] - 8): number for number, (offset, _) in enumerate(pieces)}
    if len(table) == frames and table[0] == 0 and all(offset in starts for offset in table):
        firsts = [starts[offset] for offset in table]
    else:
        firsts = [number for number, piece in enumerate(pieces) if _read_piece(file, piece, 2) in _STARTS]
    if len(firsts) != frames or firsts[0] != 0 or firsts != sorted(set(firsts)):
        raise UnreadableDicom(Reason.FRAGMENTS_MISMATCH, f"{len(pieces)} fragments for {frames} frames")
    return [pieces[a:b] for a, b in zip(firsts, [*firsts[1:], len(pieces)], strict=True)]


def _items(file: MeteredFile, start: int) -> tuple[list[int], list[Piece]]:
    """The Basic Offset Table, and all fragments after it (PS3.5 table A.4-1)."""
    file.seek(start)
    pieces: list[Piece] = []
    position = start
    while len(pieces) <= MAX_FRAGMENTS:
        head = file.read(8)
        if len(head) < 8:
            if position == file.size:  # all fragments are there, only the delimiter is missing
                break
            raise UnreadableDicom(Reason.TRUNCATED, "the fragments end within an item's tag")
        group, number, length = unpack("<HHL", head)
        tag = group << 16 | number
        if tag == _END:
            break
        if tag != _ITEM:
            raise UnreadableDicom(Reason.FRAGMENTS_MISMATCH, f"tag {tag:08X} where an item should be")
        position = file.tell() + length
        if position > file.size:
            raise UnreadableDicom(Reason.TRUNCATED, f"fragment {len(pieces)} runs past the end of the file")
        pieces.append((file.tell(), length))
        file.seek(position)
    else:
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"more than {MAX_FRAGMENTS} fragments")
    if not pieces:
        return [], []
    first = _read_piece(file, pieces[0])
    if len(first) % 4:
        raise UnreadableDicom(Reason.FRAGMENTS_MISMATCH, f"a Basic Offset Table of {len(first)} bytes")
    return [offset for (offset,) in iter_unpack("<L", first)], pieces[1:]


def _by_extended_table(offsets: bytes, lengths: bytes | None, pieces: list[Piece], frames: int) -> list[list[Piece]]:
    """One fragment a frame, at byte offsets from the first fragment's item tag (PS3.3 C.7.6.3.1.8)."""
    try:
        starts = [start for (start,) in iter_unpack("<Q", offsets)]
        sizes = [size for (size,) in iter_unpack("<Q", lengths or b"")]
    except struct.error:
        starts, sizes = [], []
    fragment_at = {offset - pieces[0][0]: (offset, length) for offset, length in pieces}
    fits = len(starts) == len(sizes) == frames and all(start in fragment_at for start in starts)
    if not fits or any(size > fragment_at[start][1] for start, size in zip(starts, sizes, strict=True)):
        raise UnreadableDicom(Reason.FRAGMENTS_MISMATCH, f"the Extended Offset Table does not give {frames} frames")
    return [[(fragment_at[start][0], size)] for start, size in zip(starts, sizes, strict=True)]


def read_encapsulated(file: MeteredFile, pieces: list[Piece]) -> bytes:
    """The codestream of one frame: its fragments joined."""
    return b"".join(_read_piece(file, piece) for piece in pieces)


def _read_piece(file: MeteredFile, piece: Piece, most: int | None = None) -> bytes:
    offset, length = piece
    file.seek(offset)
    return file.read(length if most is None else min(most, length))
