"""Keeps the runs that the SuperLink has given to this server, from the moment that they are given.

The SuperLink takes a run back 30 s after it gave it away, unless it hears of it. A process that plays a study imports
libraries for longer than that on a busy machine, so the claim is renewed from here until the process has begun.
"""

from __future__ import annotations

import threading

from server.runtime.flower_private import ControlRefused, RunAcquirer

EVERY_S = 8.0


class Leases:
    """Renews claims in a thread of its own.

    Args:
        acquirer: through which the runs were acquired.
    """

    def __init__(self, acquirer: RunAcquirer) -> None:
        self._acquirer = acquirer
        self._lock = threading.Lock()
        self._tokens: dict[int, str] = {}
        self._lapsed: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def keep(self, run: int, token: str) -> None:
        """Renew the claim to a run from now on."""
        with self._lock:
            self._tokens[run] = token
            self._lapsed.discard(run)

    def drop(self, run: int) -> None:
        """Renew it no longer."""
        with self._lock:
            self._tokens.pop(run, None)
            self._lapsed.discard(run)

    def lapsed(self) -> set[int]:
        """The runs that are no longer ours. They are told once."""
        with self._lock:
            found, self._lapsed = self._lapsed, set()
            return found

    def renew_all(self) -> None:
        """Renew each claim once."""
        with self._lock:
            tokens = dict(self._tokens)
        for run, token in tokens.items():
            try:
                ours = self._acquirer.keep(token)
            except ControlRefused:  # the SuperLink is away; when it is back it says whose the run is
                return
            with self._lock:
                if not ours and self._tokens.get(run) == token:
                    del self._tokens[run]
                    self._lapsed.add(run)

    def _renew(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.renew_all()
