"""A DICOM association with an archive (PS3.8): proposed contexts, transport, and the meaning of failures.

Tested in ``tests/client/sources/pacs/test_dimse.py``.
"""

from __future__ import annotations

import queue
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import (
    HEVCM10P51,
    HEVCMP51,
    HTJ2K,
    JPEG2000,
    MPEG2MPHL,
    MPEG2MPML,
    MPEG4HP41,
    MPEG4HP41BD,
    MPEG4HP42STEREO,
    MPEG4HP422D,
    MPEG4HP423D,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.presentation import PresentationContext

from client.errors import ArchiveRefused
from client.pixels.header import NATIVE
from client.sources.pacs.retry import Temporary
from client.sources.secrets import owned
from client.sources.settings import DimseSource

SYNTAXES = tuple(
    map(
        str,
        (
            *(ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian),
            *(JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless),
            *(JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K, RLELossless, MPEG2MPML, MPEG2MPHL),
            *(MPEG4HP41, MPEG4HP41BD, MPEG4HP422D, MPEG4HP423D, MPEG4HP42STEREO, HEVCMP51, HEVCM10P51),
        ),
    )
)
"""Every transfer syntax an image may be stored in, even those we cannot decode: the archive must not transcode them."""
COMPRESSED = tuple(syntax for syntax in SYNTAXES if syntax not in NATIVE)
MOST_CONTEXTS = 128
"""Presentation context IDs are the odd numbers from 1 to 255 (PS3.8 9.3.2.2)."""

IMPLEMENTATION = "CONSILIUM"
"""Implementation Version Name (PS3.7 D.3.3.2)."""
_CALLED_AE_UNKNOWN, _CALLING_AE_UNKNOWN = 7, 3  # PS3.8 table 9-21, source 1
_TRANSIENT = 2


@dataclass(frozen=True)
class RemoteArchive:
    """An archive that is not a source of images: its address and credentials, as in ``DimseSource``."""

    host: str
    port: int
    called_ae: str
    calling_ae: str = "CONSILIUM"
    tls: bool = False
    authority: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None
    connect_seconds: float = 10
    silence_seconds: float = 60
    attempts: int = 4
    first_wait_seconds: float = 1


def storage_contexts(classes: Sequence[str], syntaxes: Sequence[str]) -> list[PresentationContext]:
    """One context per class and transfer syntax.

    In a context with several transfer syntaxes the archive chooses one for all images (PS3.8 9.3.3.2), and decompresses
    whatever it stores otherwise.
    """
    return [build_context(sop_class, syntax) for sop_class in classes for syntax in syntaxes]


def in_groups(classes: Sequence[str], syntaxes: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The classes in groups, such that all contexts of a group and one for the retrieval fit into an association."""
    size = (MOST_CONTEXTS - 1) // len(syntaxes)
    for start in range(0, len(classes), size):
        yield tuple(classes[start : start + size])


def associate(
    source: DimseSource | RemoteArchive,
    contexts: list[PresentationContext],
    classes: Sequence[str] = (),
    receive: Callable[[Event], int] | None = None,
    message_seconds: float | None = None,
    handlers: Sequence[EventHandlerType] = (),
) -> Association:
    """An established association.

    Args:
        contexts: what to propose.
        classes: SOP classes of which we are the receiver (SCP role, PS3.7 D.3.3.4), as C-GET needs.
        receive: called for every image that comes.
        message_seconds: how long one message may take; ``silence_seconds`` of the source when not given.
        handlers: called for what else the archive sends.

    Raises:
        Temporary: no connection, the association is aborted, or rejected for the time being.
        ArchiveRefused: it is rejected for good, or the archive's certificate is not trusted.
        SiteMisconfigured: a certificate or key file is missing or readable by others.
    """
    entity = AE(source.calling_ae)
    entity.implementation_version_name = IMPLEMENTATION
    entity.connection_timeout = entity.acse_timeout = source.connect_seconds
    entity.dimse_timeout = message_seconds or source.silence_seconds
    entity.network_timeout = entity.dimse_timeout + source.connect_seconds
    entity.maximum_pdu_size = 0
    association = entity.associate(
        source.host,
        source.port,
        contexts,
        source.called_ae,
        max_pdu=0,
        ext_neg=[build_role(sop_class, scp_role=True) for sop_class in classes],
        tls_args=(_tls(source), source.host) if source.tls else None,
        evt_handlers=[*_WITHOUT_DELAY, *([(evt.EVT_C_STORE, receive)] if receive else []), *handlers],
    )
    if association.is_established:
        association.dimse.msg_queue = Awaited()
        return association
    if association.is_rejected:
        raise _rejection(source, association)
    raise _why_no_connection(source)


class Awaited(queue.Queue[Any]):
    """Messages for a waiting reader. A reader that does not wait gets none, until ``to_library`` is set.

    The library's own thread looks for requests of the archive, and on a busy machine it now and then took an answer
    that a search was waiting for, and dropped it (pynetdicom issue 875): an image was missing and nobody knew. While we
    search and retrieve, whatever comes is waited for.
    """

    to_library = False
    """The library's thread may take messages: those that the archive sends by itself."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not block and not self.to_library:
            raise queue.Empty
        return super().get(block, timeout)


def _hurry(event: Event) -> None:
    """Send small writes immediately (no Nagle), and acknowledge immediately (Linux resets that by itself).

    Requests and answers are several small writes; either side waits 40 ms for the other's acknowledgement in between.
    86 searches and 40 retrievals took 13.5 s without this and 2 s with it (Orthanc 1.10 on loopback).
    """
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        with suppress(OSError):  # it may be closed at this moment
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


_WITHOUT_DELAY: list[EventHandlerType] = [
    (evt.EVT_CONN_OPEN, _hurry),
    (evt.EVT_DATA_SENT, _hurry),
    (evt.EVT_DATA_RECV, _hurry),
]


def _tls(source: DimseSource | RemoteArchive) -> ssl.SSLContext:
    """Ours as the one who connects: TLS 1.2 or later; certificate and name of the archive are verified."""
    try:
        context = ssl.create_default_context(cafile=source.authority)
        if source.certificate is not None and source.certificate_key is not None:
            context.load_cert_chain(source.certificate, owned(source.certificate_key))
    except (OSError, ssl.SSLError) as error:
        raise ArchiveRefused(f"cannot use authority or certificate for {_name(source)}: {error}") from error
    return context


def _rejection(source: DimseSource | RemoteArchive, association: Association) -> Exception:
    answer = association.acceptor.primitive
    result = getattr(answer, "result", None)
    origin, diagnostic = getattr(answer, "result_source", None), getattr(answer, "diagnostic", None)
    story = f"{_name(source)} rejects the association (result {result}, source {origin}, reason {diagnostic})"
    if result == _TRANSIENT:
        return Temporary(story)
    if (origin, diagnostic) == (1, _CALLING_AE_UNKNOWN):
        return ArchiveRefused(f"{story}: have its administrator add our AE title {source.calling_ae!r}")
    if (origin, diagnostic) == (1, _CALLED_AE_UNKNOWN):
        return ArchiveRefused(f"{story}: its AE title is not {source.called_ae!r}; correct called_ae")
    return ArchiveRefused(f"{story}; ask its administrator whether {source.calling_ae!r} may search and retrieve")


def _why_no_connection(source: DimseSource | RemoteArchive) -> Exception:
    """Connect once more directly: the DICOM library reports only that it failed."""
    try:
        with socket.create_connection((source.host, source.port), source.connect_seconds) as plain:
            if source.tls:
                with _tls(source).wrap_socket(plain, server_hostname=source.host):
                    pass
    except ssl.SSLCertVerificationError as error:
        return ArchiveRefused(
            f"{_name(source)}: its certificate is not trusted ({error.verify_message}); set `authority` to its "
            "certificate authority; verification is never disabled"
        )
    except (ssl.SSLError, ConnectionError) as error:
        return _why_no_tls(source, error)
    except OSError as error:
        return Temporary(f"no connection to {_name(source)}: {error.strerror or type(error).__name__}")
    if source.tls:
        return Temporary(f"{_name(source)} aborts the association; does it require our certificate (`certificate`)?")
    if _first_answer(source) in _TLS_RECORDS:
        return ArchiveRefused(
            f"{_name(source)} requires TLS at this port, and we connect without: set `tls: true` (with --store-to: "
            "--tls), and `authority` to its certificate authority"
        )
    return Temporary(f"{_name(source)} aborts the association; does it require TLS, or not know our AE title "
                     f"{source.calling_ae!r} from this machine's address?")  # fmt: skip


def _why_no_tls(source: DimseSource | RemoteArchive, error: OSError) -> Exception:
    story = getattr(error, "reason", None) or error.strerror or type(error).__name__
    if not source.tls:
        return Temporary(f"no connection to {_name(source)}: {story}")
    if _first_answer(source) in _DICOM_PDUS or "WRONG_VERSION_NUMBER" in str(error):
        return ArchiveRefused(
            f"{_name(source)} does not speak TLS at this port ({story}): set `port` to its TLS port, often 2762; or, "
            "if the network itself is encrypted, `insecure: true` in place of `tls: true`"
        )
    return Temporary(
        f"no TLS connection to {_name(source)}: {story}. Does it speak TLS at this port (often 2762), and TLS 1.2 or "
        "later? Does it require our certificate (`certificate`)?"
    )


_TLS_RECORDS, _DICOM_PDUS = b"\x15\x16", b"\x03\x07"
"""First bytes of an answer to a ClientHello: alert, handshake (RFC 8446 5.1); A-ASSOCIATE-RJ, A-ABORT (PS3.8 9.3)."""


def _first_answer(source: DimseSource | RemoteArchive) -> bytes:
    """The first byte that a port answers to a ClientHello; nothing else is sent, and nothing is trusted."""
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(theirs, ours, server_hostname=source.host)
    with suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    try:
        with socket.create_connection((source.host, source.port), source.connect_seconds) as plain:
            plain.settimeout(min(source.connect_seconds, 5))
            plain.sendall(ours.read())
            return plain.recv(1) or b"-"
    except OSError:
        return b"-"


def unknown_here(source: DimseSource | RemoteArchive) -> str:
    """What silence often means: archives accept an association of anybody, and then answer only whom they know."""
    return (
        f"; if it runs, ask its administrator whether it knows our AE title {source.calling_ae!r} at this machine's "
        "address, and permits it to search and retrieve"
    )


def _name(source: DimseSource | RemoteArchive) -> str:
    return f"{source.called_ae} at {source.host}:{source.port}"
