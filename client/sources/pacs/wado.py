"""One WADO-RS retrieval, streamed to disk: as stored, within limits, and verified as complete.

An ultrasound clip can be too large to hold in memory. The body is a multipart/related message
(RFC 2387, RFC 2046 section 5.1) with one part.

Tested in ``tests/client/sources/pacs/test_dicomweb.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO

import requests
from urllib3.exceptions import HTTPError

from client.sources.pacs.retry import Temporary
from client.sources.pacs.spool import InstanceMissing, MissingReason

ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""Any transfer syntax, that is, the stored one (PS3.18 section 8.7.3.5.2): nothing is decompressed in transfer."""
_CHUNK = 1 << 20
_LONGEST_PREAMBLE = 1 << 16


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, without any byte, and for one retrieval in total."""

    connect: float
    silence: float
    whole: float


def retrieve(session: requests.Session, url: str, into: Path, limits: Timeouts, room: Callable[[int], None]) -> None:
    """Write the one DICOM file in the response, byte by byte as received.

    Args:
        room: called with the number of bytes so far; raises when they are too many.

    Raises:
        requests.RequestException: as ``requests`` does, also for an HTTP status that is an error.
        Temporary: the answer is cut or takes too long.
        Refused: the answer is something else than a DICOM file.
    """
    timeouts = (limits.connect, limits.silence)
    headers = {"Accept": ACCEPT, "Accept-Encoding": "identity"}  # pixels hardly shrink; it would cost the archive time
    with session.get(url, headers=headers, stream=True, timeout=timeouts) as response, into.open("wb") as file:
        response.raise_for_status()
        chunks = _within(response, time.monotonic() + limits.whole, room)
        kind = _content_type(response)
        if kind.get_content_type() == "multipart/related":
            _unpack(chunks, str(kind.get_param("boundary", "")).encode(), file)
        elif kind.get_content_type() == "application/dicom":  # against the standard, and met in the field
            _refuse_endless(response)
            file.writelines(chunks)
        else:
            raise InstanceMissing(
                MissingReason.ARCHIVE_FAILED, f"the response is {kind.get_content_type()}, not application/dicom"
            )


def _within(response: requests.Response, deadline: float, room: Callable[[int], None]) -> Iterator[bytes]:
    """The body as it arrives.

    ``requests`` limits only the silence between two bytes, which a dripping archive never breaks, and would wait for a
    full chunk; ``read1`` returns with what is there.
    """
    total = 0
    while chunk := _next(response):
        total += len(chunk)
        room(total)
        if time.monotonic() > deadline:
            raise Temporary("the retrieval takes longer than request_seconds")
        yield chunk


def _next(response: requests.Response) -> bytes:
    try:
        chunk: bytes = response.raw.read1(_CHUNK, decode_content=True)
    except HTTPError as error:
        raise Temporary(f"the response is truncated: {type(error).__name__}") from error
    return chunk


def _unpack(chunks: Iterator[bytes], boundary: bytes, file: BinaryIO) -> None:
    if not boundary:
        raise InstanceMissing(MissingReason.ARCHIVE_FAILED, "a multipart response without boundary")
    delimiter = b"\r\n--" + boundary
    tail = _after_part_header(chunks, delimiter)
    for chunk in chunks:
        tail += chunk
        if len(tail) > 2 * _LONGEST_PREAMBLE:
            file.write(tail[:-_LONGEST_PREAMBLE])
            tail = tail[-_LONGEST_PREAMBLE:]
    content, found, epilogue = tail.rpartition(delimiter)
    if not found or not epilogue.startswith(b"--"):
        raise Temporary("the response ends before its closing boundary")
    file.write(content)


def _after_part_header(chunks: Iterator[bytes], delimiter: bytes) -> bytes:
    """What follows the header of the first part. The first delimiter may lack its line break (RFC 2046 5.1.1)."""
    head = b"\r\n"
    for chunk in chunks:
        head += chunk
        start = head.find(delimiter)
        end = head.find(b"\r\n\r\n", start) if start >= 0 else -1
        if end >= 0:
            return head[end + 4 :]
        if len(head) > _LONGEST_PREAMBLE + _CHUNK:
            raise InstanceMissing(MissingReason.ARCHIVE_FAILED, "a multipart response without a part")
    raise Temporary("the response ends before its first part")


def _content_type(response: requests.Response) -> Message:
    message = Message()
    message["Content-Type"] = response.headers.get("Content-Type", "")
    return message


def _refuse_endless(response: requests.Response) -> None:
    """A body that ends only with the connection cannot be distinguished from a truncated one."""
    if "Content-Length" not in response.headers and response.headers.get("Transfer-Encoding") != "chunked":
        raise InstanceMissing(
            MissingReason.ARCHIVE_FAILED, "a response without length, which cannot be checked for completeness"
        )
