"""A network of our own: Debian's Orthanc and dcmqrscp listen on all addresses, so all addresses must be loopback."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of linux/sched.h


@contextmanager
def private() -> Iterator[None]:
    """Put this thread and what it starts into a network namespace that has nothing but loopback.

    Raises:
        PermissionError: the process may not do so; it takes root (CAP_SYS_ADMIN).
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK):
        os.close(before)
        raise PermissionError(ctypes.get_errno(), "no network namespace of our own")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        libc.setns(before, _NEW_NETWORK)
        os.close(before)


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
