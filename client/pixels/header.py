"""The header of a DICOM file, and where its pixels begin. No pixels are read here.

A file may be malicious or damaged: the amount, depth and number of reads are bounded.

Tested in ``tests/client/reading/test_dicom.py``.
"""

from __future__ import annotations

import os
import sys
import zlib
from dataclasses import dataclass
from io import BufferedReader, BytesIO, FileIO, RawIOBase
from pathlib import Path
from struct import unpack
from typing import cast

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from client.pixels.refusal import Reason, UnreadableDicom, guarded

NATIVE = frozenset(
    map(
        str,
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian),
    )
)
"""Uncompressed transfer syntaxes (PS3.5 A.1 to A.3, A.5); conversion between them changes no value."""
MAX_READS = 1_000_000
"""An element takes two or three reads; a header that needs more is made to exhaust its reader."""
MAX_INFLATED = 1 << 29
"""Largest size of an inflated data set, in bytes."""
_DEFERRED = 1 << 21
"""Larger values (private volumes and the like) are skipped, and read only on access."""
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_META_START = 132
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"  # FileMetaInformationGroupLength, always first (PS3.10 table 7.1-1)
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class PixelElement:
    """Position of the pixels: the value starts at ``start``; ``length`` is ``None`` if encapsulated."""

    keyword: str
    vr: str
    start: int
    length: int | None
    little_endian: bool


class MeteredFile(BufferedReader):
    """A file that allows ``reads_left`` reads, none larger than the file."""

    def __init__(self, raw: RawIOBase | BytesIO) -> None:
        super().__init__(cast(RawIOBase, raw), buffer_size=1 << 14)  # any object with readinto and seek will do
        self.size = raw.seek(0, os.SEEK_END)
        raw.seek(0)
        self.reads_left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        self.refuse_if_spent()
        return super().read(self.size if size is None or size < 0 else min(size, self.size))

    def refuse_if_spent(self) -> None:
        if self.reads_left < 0:
            raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"a header of more than {MAX_READS} pieces")


class _InMemory(BytesIO):
    name = ""  # pydicom asks for it


def open_file(path: Path) -> tuple[MeteredFile, Dataset, PixelElement | None]:
    """The opened file, its header and its pixel element, if there is one; the caller closes the file.

    Raises:
        UnreadableDicom: UNREADABLE_FILE, NOT_DICOM, NO_TRANSFER_SYNTAX or IMPLAUSIBLE_HEADER.
    """
    file = guarded(Reason.UNREADABLE_FILE, lambda: MeteredFile(FileIO(path)))
    try:
        deflated = _deflated(file)
        if deflated:
            compressed = file
            file = guarded(Reason.IMPLAUSIBLE_HEADER, lambda: MeteredFile(_inflated(compressed)))
        bare = _is_bare(file.peek(8))
        header = guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _parsed(file, None if deflated else _DEFERRED, bare))
        element = guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _element_at(file, header))
        if bare and element is not None and element.length is None:
            raise UnreadableDicom(Reason.NO_TRANSFER_SYNTAX, "a compressed data set without file meta information")
        if deflated:
            header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        file.reads_left = sys.maxsize
        return file, header, element
    except BaseException:
        file.close()
        raise


def _parsed(file: MeteredFile, defer_size: int | None, bare: bool) -> Dataset:
    force = bare or _begins_with_meta(file.peek(8))
    try:
        header = dcmread(file, defer_size, stop_before_pixels=True, force=force)
    except InvalidDicomError:
        raise UnreadableDicom(Reason.NOT_DICOM, 'no "DICM" at byte 128') from None
    except BaseException:
        file.refuse_if_spent()  # pydicom turns what a file raises into an error about tags
        raise
    if not header.file_meta.get("TransferSyntaxUID"):
        if not bare:
            raise UnreadableDicom(Reason.NO_TRANSFER_SYNTAX)
        if "SOPClassUID" not in header:
            raise UnreadableDicom(Reason.NOT_DICOM, "begins as a data set does, but has no SOPClassUID")
        implicit, little = header.original_encoding
        header.file_meta.TransferSyntaxUID = _GUESSED[bool(implicit), bool(little)]
    return header


_GUESSED = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""Of a data set without file meta information: what its first elements show (implicit VR, little endian)."""


def _is_bare(start: bytes) -> bool:
    """Whether a file begins with an element of group 0008, as data sets do that old archives kept without the file meta
    information of PS3.10."""
    if start[:2] == b"\x08\x00" and start[3:4] == b"\0":
        return _is_vr(start[4:6]) or int.from_bytes(start[4:8], "little") < 1 << 12
    return start[:3] == b"\x00\x08\x00" and _is_vr(start[4:6])


def _is_vr(two: bytes) -> bool:
    return len(two) == 2 and two.isalpha() and two.isupper()


def _begins_with_meta(start: bytes) -> bool:
    """Such a file lacks only its preamble: its transfer syntax is known, so it can be read without guessing."""
    return start[:2] == b"\x02\x00" and start[3:6] in (b"\0UL", b"\0OB", b"\0UI")


def _element_at(file: MeteredFile, header: Dataset) -> PixelElement | None:
    """The element at which the parser stopped (PS3.5 section 7.1)."""
    implicit, little = header.original_encoding
    order = "<" if little else ">"
    head = file.read(8)
    if len(head) < 8:
        return None
    group, number = unpack(f"{order}HH", head[:4])
    keyword = _PIXELS.get(group << 16 | number)
    if keyword is None:
        return None
    vr, length_bytes = ("OW", head[4:]) if implicit else (head[4:6].decode("latin-1"), file.read(4))
    (length,) = unpack(f"{order}L", length_bytes)
    return PixelElement(keyword, vr, file.tell(), None if length == _UNDEFINED else length, bool(little))


def _deflated(file: MeteredFile) -> bool:
    start = guarded(Reason.UNREADABLE_FILE, lambda: file.read(2048))
    file.seek(0)
    marker = DeflatedExplicitVRLittleEndian.encode()
    return start[128:_META_START] == b"DICM" and marker in start and b"\x10\x00UI" in start


def _inflated(file: MeteredFile) -> _InMemory:
    """The same file as Explicit VR Little Endian, in memory (PS3.5 section A.5).

    pydicom would inflate without a bound; a few kilobytes may claim gigabytes.
    """
    with file:
        content = guarded(Reason.UNREADABLE_FILE, file.read)
    if content[_META_START : _META_START + 8] != _GROUP_LENGTH:
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, "FileMetaInformationGroupLength is not the first element")
    start = _META_START + 12 + int.from_bytes(content[_META_START + 8 : _META_START + 12], "little")
    data = inflate(content[start:], MAX_INFLATED)
    plain = ExplicitVRLittleEndian.encode().ljust(len(DeflatedExplicitVRLittleEndian), b"\0")
    return _InMemory(content[:start].replace(DeflatedExplicitVRLittleEndian.encode(), plain) + data)


def inflate(data: bytes, most: int) -> bytes:
    """Raw inflate (RFC 1951) to at most this many bytes.

    Raises:
        UnreadableDicom: TOO_LARGE, TRUNCATED, or DECODE_FAILED when the stream is damaged.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = stream.decompress(data, most)
    except zlib.error as error:
        raise UnreadableDicom(Reason.DECODE_FAILED, error) from None
    if not stream.eof:
        reason = Reason.TOO_LARGE if stream.unconsumed_tail or len(plain) >= most else Reason.TRUNCATED
        raise UnreadableDicom(reason, f"deflated data of more than {len(plain)} bytes")
    return plain


def transfer_syntax(header: Dataset) -> UID:
    """TransferSyntaxUID of the file meta information; ``read_header`` and ``open_file`` make sure there is one."""
    return UID(str(header.file_meta.TransferSyntaxUID))
