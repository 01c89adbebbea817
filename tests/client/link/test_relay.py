"""The relay: bytes as they are, to one address only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.client.sources.pacs.test_move import free_port


def _whole(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it got, when the other side has ended."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(_whole(connection)[::-1])

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])


def _running(target: int) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    words = [sys.executable, "-m", "client.link.relay", f"127.0.0.1:{port}", f"127.0.0.1:{target}"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return process, port
        time.sleep(0.05)
    raise AssertionError("it does not listen")


def test_bytes_are_passed_on_as_they_are_and_the_end_as_well(echo: int) -> None:
    process, port = _running(echo)
    try:
        content = os.urandom(3_000_001)
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                threading.Thread(
                    target=lambda c=connection: (c.sendall(content), c.shutdown(socket.SHUT_WR)), daemon=True
                ).start()
                assert _whole(connection) == content[::-1]
    finally:
        process.kill()
        process.wait(10)


def test_an_archive_that_is_not_there_ends_the_connection_and_not_the_relay(echo: int) -> None:
    process, port = _running(free_port())
    try:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, suppress(ConnectionError):
                assert connection.recv(1) == b""
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(10)


def test_wrong_words_are_told() -> None:
    for words in (["a"], ["a", "b:1"], ["127.0.0.1:1", "b:x"]):
        ended = subprocess.run(
            [sys.executable, "-m", "client.link.relay", *words], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 1
        assert "HOST:PORT" in ended.stderr
