"""How fast an archive is asked, and when it may be asked for images."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

T = TypeVar("T")


class Pace:
    """Holds back requests so that there are at most so many per second."""

    def __init__(
        self,
        per_second: float | None,
        hours: str = "",
        clock: Callable[[], datetime] = datetime.now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Set it.

        Args:
            per_second: most requests per second; ``None`` for any number.
            hours: when images may be retrieved, ``HH:MM-HH:MM`` in local time, also over midnight; "" for always.
            clock, sleep: of this machine.
        """
        self._between = 0.0 if per_second is None else 1 / per_second
        self._hours = tuple(hours.split("-")) if hours else ()
        self._clock, self._sleep = clock, sleep
        self._next = time.monotonic()

    def wait(self) -> None:
        """Return when the next request may be sent."""
        if self._between:
            now = time.monotonic()
            if self._next > now:
                self._sleep(self._next - now)
            self._next = max(now, self._next) + self._between

    def before(self, work: Callable[[], T]) -> Callable[[], T]:
        """The same work, each time after a wait."""

        def paced() -> T:
            self.wait()
            return work()

        return paced

    def may_retrieve(self) -> bool:
        """Whether it is a time for images."""
        if not self._hours:
            return True
        first, last = self._hours
        now = f"{self._clock():%H:%M}"
        return first <= now < last if first < last else now >= first or now < last
