"""Heartbeats over HTTP, of a run at the server and of an order at a hospital.

Tested in ``tests/server/runtime/test_flower_private.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx


def steady(beat: Callable[[], bool]) -> Callable[[], bool]:
    """A heartbeat whose thread survives an error of the other side: Flower's ends at the first HTTP 500."""

    def fn() -> bool:
        try:
            return beat()
        except httpx.HTTPStatusError as error:
            if error.response.is_server_error:
                return False
            raise

    return fn
