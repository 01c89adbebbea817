"""An HTTP CONNECT proxy as hospitals have one. Cut, its connections stand still, and new ones are refused."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Proxy:
    """Tunnels to loopback, counted."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.tunnels = 0
        self._cut = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Let nothing pass any more."""
        self._cut.set()

    def mend(self) -> None:
        """Let new connections pass; the old ones are gone, as after a firewall has forgotten them."""
        self._cut.clear()
        for one in self._open:
            with suppress(OSError):
                one.close()
        self._open.clear()

    def close(self) -> None:
        self._server.close()
        self.mend()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(inner,), daemon=True).start()

    def _serve(self, inner: socket.socket) -> None:
        with suppress(OSError, IndexError):
            asked = inner.recv(4096).split()
            if self._cut.is_set() or asked[0] != b"CONNECT":
                inner.close()
                return
            host, _, port = asked[1].decode().rpartition(":")
            outer = socket.create_connection((host, int(port)), 10)
            outer.settimeout(None)
            self.tunnels += 1
            self._open += [inner, outer]
            inner.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=self._pump, args=(inner, outer), daemon=True).start()
            self._pump(outer, inner)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                while self._cut.is_set():
                    threading.Event().wait(0.1)
                target.sendall(piece)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
