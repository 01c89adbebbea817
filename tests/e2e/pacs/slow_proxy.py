"""A TCP proxy on loopback that makes an archive slow: every block waits before it is passed on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def delaying(target: int, seconds: float) -> Iterator[int]:
    """The port of a proxy to ``target`` that holds back every block of the answer for so long."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, target, seconds), daemon=True).start()
        yield int(server.getsockname()[1])


def _accept(server: socket.socket, target: int, seconds: float) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        archive = socket.create_connection(("127.0.0.1", target))
        for pair, wait in (((client, archive), 0.0), ((archive, client), seconds)):
            threading.Thread(target=_pass_on, args=(*pair, wait), daemon=True).start()


def _pass_on(giver: socket.socket, taker: socket.socket, wait: float) -> None:
    try:
        while block := giver.recv(1 << 16):
            time.sleep(wait)
            taker.sendall(block)
        taker.shutdown(socket.SHUT_WR)
    except OSError:
        taker.close()
