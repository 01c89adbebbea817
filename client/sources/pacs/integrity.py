"""Whether a DICOM file is complete, and the digest of its pixels; without decoding and with little memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

_CHUNK = 1 << 20
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PIXEL_TAGS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD  # Item and Sequence Delimitation Item (PS3.5 table 7.5-3)
_UNDEFINED = 0xFFFFFFFF


class NotWhole(Exception):
    """The file is not DICOM, or ends before its pixels do."""


@dataclass(frozen=True)
class FileEvidence:
    """What a file shows about itself.

    Attributes:
        sop_instance: SOPInstanceUID of the dataset.
        transfer_syntax: TransferSyntaxUID of the file meta information.
        pixel_sha256: SHA-256 of the value of PixelData as stored, in hexadecimal; with encapsulated pixels that is the
            Basic Offset Table and all fragments with their item headers. Empty when the file has no pixels.
    """

    sop_instance: str
    transfer_syntax: str
    pixel_sha256: str


def examine(path: Path) -> FileEvidence:
    """Read a file's identity and hash its pixels.

    Raises:
        NotWhole: it is no DICOM file, names no transfer syntax, or is cut.
    """
    try:
        with path.open("rb") as file:
            header = dcmread(file, stop_before_pixels=True)
            syntax = header.file_meta.TransferSyntaxUID
            instance = str(header.get("SOPInstanceUID", ""))
            if syntax == DeflatedExplicitVRLittleEndian:  # one compressed stream: there is no place to stop in it
                return FileEvidence(instance, str(syntax), _digest_of_value(dcmread(path)))
            implicit, little_endian = header.original_encoding  # as found: some writers name another than they write
            return FileEvidence(instance, str(syntax), _digest(file, not little_endian, bool(implicit)))
    except NotWhole:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # a broken file may provoke any error in a parser; each means the same to us
        raise NotWhole(f"{type(error).__name__}: {error}") from error


def _digest_of_value(dataset: Dataset) -> str:
    values = [dataset[name].value for name in _PIXELS if name in dataset]
    return hashlib.sha256(values[0]).hexdigest() if values else ""


def _digest(file: BinaryIO, big_endian: bool, implicit: bool) -> str:
    """Hash from where ``dcmread`` stopped: at the tag of the pixels (PS3.5 section 7.1), or at the end."""
    start = _read(file, 8, at_end=b"")
    if not start or _tag(start, big_endian) not in _PIXEL_TAGS:
        return ""
    length = _number(start[4:] if implicit else _read(file, 4), big_endian)
    sha = hashlib.sha256()
    if length == _UNDEFINED:
        _hash_fragments(file, sha, big_endian)
    else:
        _hash_bytes(file, sha, length)
    return sha.hexdigest()


def _hash_fragments(file: BinaryIO, sha: hashlib._Hash, big_endian: bool) -> None:
    while True:
        head = _read(file, 8)
        tag, length = _tag(head, big_endian), _number(head[4:], big_endian)
        if tag == _END:
            return
        if tag != _ITEM or length == _UNDEFINED:
            raise NotWhole(f"tag {tag:08X} where a fragment should start (PS3.5 A.4)")
        sha.update(head)
        _hash_bytes(file, sha, length)


def _hash_bytes(file: BinaryIO, sha: hashlib._Hash, length: int) -> None:
    while length:
        block = _read(file, min(length, _CHUNK))
        sha.update(block)
        length -= len(block)


def _read(file: BinaryIO, length: int, at_end: bytes | None = None) -> bytes:
    block = file.read(length)
    if not block and at_end is not None:
        return at_end
    if len(block) < length:
        raise NotWhole(f"the file ends {length - len(block)} bytes too early")
    return block


def _number(block: bytes, big_endian: bool) -> int:
    return int.from_bytes(block, "big" if big_endian else "little")


def _tag(head: bytes, big_endian: bool) -> int:
    return _number(head[:2], big_endian) << 16 | _number(head[2:4], big_endian)
