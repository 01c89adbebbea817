"""A gateway that stops in the middle of each reply: python -m tests.e2e.drills.bad_gateway OPTIONS, as any gateway."""

from __future__ import annotations

import runpy
import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.supernode import start_client_internal as loop


def first_object_only(
    contents: Iterable[tuple[str, bytes]], push_object_fn: Callable[[str, bytes], None], **_: Any
) -> None:
    """Push one object of a reply, and never the others."""
    for name, content in contents:
        push_object_fn(name, content)
        time.sleep(10_000)


if __name__ == "__main__":
    loop.push_object_contents_from_iterable = first_object_only
    runpy.run_module("client.link.supernode", run_name="__main__")
