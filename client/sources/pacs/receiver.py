"""A port of our own, to which an archive sends: images of a C-MOVE, and reports of Storage Commitment.

It is bound to the one address that ``receive_at`` of the source names, open only while something is awaited, and
accepts only the AE titles and addresses of the source's ``senders``. A stranger's connection is closed before anything
is read. With TLS both sides must prove who they are.

Tested in ``tests/client/sources/pacs/test_move.py``.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import ThreadedAssociationServer

from client.errors import ArchiveRefused, SiteMisconfigured
from client.sources.pacs.association import IMPLEMENTATION
from client.sources.secrets import owned
from client.sources.settings import DimseSource

_HANDSHAKE_S = 10.0
_MOST_ASSOCIATIONS = 10


class Receiver:
    """Who has connected to the open port.

    Attributes:
        associations: how many were accepted.
        strangers: how many connections came from another address, or under another AE title.
    """

    def __init__(self, source: DimseSource) -> None:
        self._source = source
        self._known = {address for _, host in source.accepted() for address in _addresses(host)}
        self._count = threading.Lock()
        self.associations = self.strangers = 0

    def admits(self, address: str) -> bool:
        """Whether a connection may be read; one that may not is counted."""
        known = address.split("%")[0].removeprefix("::ffff:") in self._known
        with self._count:
            self.strangers += not known
        return known

    def accepted(self, event: Event) -> None:
        """Count an association."""
        with self._count:
            self.associations += 1

    def rejected(self, event: Event) -> None:
        """Count an association under another AE title."""
        with self._count:
            self.strangers += 1

    def remarks(self) -> list[str]:
        """A warning if there were strangers."""
        if not self.strangers:
            return []
        named = ", ".join(f"{title}@{host}" for title, host in self._source.accepted())
        return [
            f"STRANGERS: {self.strangers} connection(s) to {self._source.receive_at} were refused, since they did not "
            f"come from {named}. If the archive sends under another AE title or address, add it to `senders`; if not, "
            "somebody else has found the port"
        ]


class _Port(ThreadedAssociationServer):
    """Asks who connects before anything is read: the library would wait for a stranger's TLS handshake, and all others
    with it."""

    receiver: Receiver

    def __init__(self, *given: Any, receiver: Receiver, **named: Any) -> None:
        self.receiver = receiver
        super().__init__(*given, **named)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        assert self.socket is not None
        connection, address = self.socket.accept()
        try:
            if not self.receiver.admits(str(address[0])):
                raise ConnectionRefusedError(f"{address[0]} may not connect")
            if self.ssl_context:
                connection.settimeout(_HANDSHAKE_S)
                connection = self.ssl_context.wrap_socket(connection, server_side=True)
                connection.settimeout(None)
        except OSError:
            connection.close()
            raise
        return connection, address


@contextmanager
def receiving(
    source: DimseSource, contexts: Sequence[PresentationContext], handlers: Sequence[EventHandlerType]
) -> Iterator[Receiver]:
    """Listen at ``receive_at`` until the block ends.

    Args:
        contexts: what is accepted.
        handlers: called for what comes.

    Raises:
        SiteMisconfigured: the address is not this machine's, or the port is in use.
        ArchiveRefused: certificate or authority cannot be used.
    """
    receiver = Receiver(source)
    entity = AE(source.calling_ae)
    entity.implementation_version_name = IMPLEMENTATION
    entity.require_called_aet = True
    entity.require_calling_aet = sorted({title for title, _ in source.accepted()})
    entity.maximum_associations = _MOST_ASSOCIATIONS
    entity.acse_timeout = source.connect_seconds
    entity.dimse_timeout = source.request_seconds
    entity.network_timeout = source.silence_seconds
    entity.maximum_pdu_size = 0
    server = entity.make_server(
        source.endpoint(),
        contexts=list(contexts),
        ssl_context=_tls(source) if source.tls else None,
        evt_handlers=[*handlers, (evt.EVT_REJECTED, receiver.rejected), (evt.EVT_ACCEPTED, receiver.accepted)],
        server_class=_opened(source),
        receiver=receiver,
    )
    entity._servers.append(server)  # as the library's own start_server does, and its shutdown expects
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        for association in server.active_associations:
            association.abort()


def _opened(source: DimseSource) -> Any:
    """The server's class; what goes wrong when it binds gets a remedy."""

    def bound(*given: Any, **named: Any) -> _Port:
        try:
            return _Port(*given, **named)
        except OSError as error:
            raise SiteMisconfigured(
                f"cannot listen at receive_at {source.receive_at}: {error.strerror}. It must be an address of this "
                "machine, and no other program or ingest may use the port"
            ) from error

    return bound


def _addresses(host: str) -> set[str]:
    """The addresses of a sender.

    Raises:
        SiteMisconfigured: the name has none.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SiteMisconfigured(f"who may connect to receive_at: {host!r} has no address ({error.strerror})") from error
    return {str(entry[4][0]) for entry in found}


def _tls(source: DimseSource) -> ssl.SSLContext:
    """Ours as the one who is connected to: TLS 1.2 or later, with a certificate of the archive's authority required."""
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=source.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        assert source.certificate is not None  # the settings require both
        assert source.certificate_key is not None
        context.load_cert_chain(source.certificate, owned(source.certificate_key))
    except (OSError, ssl.SSLError) as error:
        raise ArchiveRefused(f"cannot use authority or certificate for {source.receive_at}: {error}") from error
    return context
