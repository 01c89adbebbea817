"""A small HTTP server for pages of this machine: a few callers at a time, in threads of its own.

Tested in ``tests/tasks/machine/test_exposition.py``.
"""

from __future__ import annotations

import socket
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

_AT_ONCE = 8


class _Quick(WSGIRequestHandler):
    """Who has said nothing for so many seconds is hung up on."""

    timeout = 5

    def log_message(self, format: str, *arguments: object) -> None: ...


class _Bounded(ThreadingMixIn, WSGIServer):
    """A few callers at a time; more are hung up on. Threads count against the limit of the whole service, and whoever
    opens connections and is silent must not take those of the trainer or the SuperLink."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class _Bounded6(_Bounded):
    address_family = socket.AF_INET6


class SmallServer:
    """Serves an application in a thread of its own, until it is closed.

    Args:
        port: 0 for any that is free.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, host: str, port: int, application: WSGIApplication, name: str) -> None:
        self._server = make_server(host, port, application, _Bounded6 if ":" in host else _Bounded, _Quick)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name=name)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
