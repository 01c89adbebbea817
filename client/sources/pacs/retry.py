"""Retries for an archive that fails: exponential back-off with jitter, and a limit."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

_LONGEST_WAIT = 60.0
log = logging.getLogger(__name__)

T = TypeVar("T")


class Temporary(Exception):
    """The archive failed temporarily.

    Attributes:
        wait: seconds that the archive itself asked us to wait (RFC 9110 section 10.2.3), or 0.
    """

    def __init__(self, what: str, wait: float = 0) -> None:
        super().__init__(what)
        self.wait = wait


def persistently(work: Callable[[], T], attempts: int, first_wait: float) -> T:
    """Do the work, and retry after every ``Temporary``, up to ``attempts`` times in total.

    The waits double from ``first_wait`` seconds up to a minute. Each is shortened by up to half at random, lest many
    clients that an archive has dropped at once all come back at once.

    Raises:
        Temporary: the last attempt failed too.
    """
    for attempt in range(attempts):
        try:
            return work()
        except Temporary as failure:
            if attempt + 1 == attempts:
                raise
            pause = max(min(first_wait * 2**attempt, _LONGEST_WAIT) * random.uniform(0.5, 1), failure.wait)
            log.info("attempt %d of %d failed (%s); next in %.1f s", attempt + 1, attempts, failure, pause)
            time.sleep(pause)
    raise AssertionError("attempts must be at least 1")
