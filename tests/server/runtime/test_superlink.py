"""A process that has grown gives back what nothing refers to any more, and otherwise looks at nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from server.runtime import superlink
from server.runtime.superlink import GROWN_BYTES, Tidier, resident


class Refused(Exception):
    """As Flower's: it is in a frame to which it refers itself."""


class Body:
    """Something large."""


def refuse() -> weakref.ref[Body]:
    body = Body()
    try:
        raise Refused
    except Refused as error:
        kept = error
        assert kept.__traceback__ is not None
    return weakref.ref(body)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Python's own would look at some moment."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_what_was_refused_is_freed_once_the_process_has_grown() -> None:
    sizes = [100, 100 + GROWN_BYTES - 1, 100 + GROWN_BYTES, 90, 100, 90 + GROWN_BYTES, 95]
    tidy = Tidier(lambda: sizes.pop(0))
    body = refuse()
    assert not tidy()
    assert body() is not None, "the wrong version of this test would free it by itself"
    assert tidy()
    assert body() is None
    assert not tidy()
    assert tidy(), "it counts from the smallest since"
    assert sizes == []


def test_the_size_is_that_of_this_process() -> None:
    before = resident()
    block = bytearray(64 * 2**20)
    assert resident() - before > 48 * 2**20
    del block


def test_large_blocks_go_back_at_once() -> None:
    assert int(superlink.MALLOC["MALLOC_MMAP_THRESHOLD_"]) < 2**18
