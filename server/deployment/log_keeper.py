"""The logs that the supervisor does not write itself: nginx's are set aside when they have grown, and of the runs' logs
the newest are kept, and all of those studies that go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from server.deployment import study_logs
from server.deployment.nginx import ACCESS_LOG, ERROR_LOG
from server.deployment.server_dir import ServerDir
from server.deployment.unfinished import UnfinishedStudies
from tasks.machine.logs import keep_newest, outgrown, set_aside

MOST_RUNS = 200
_EVERY_S = 5.0


class LogKeeper:
    """Call it as often as you like; every few seconds it looks.

    nginx goes on writing to a log that was set aside until it opens the new one, so no line is lost.

    Args:
        reopen: makes nginx open its logs again. Returns whether it could be asked; otherwise it is asked again.
    """

    def __init__(self, server_dir: ServerDir, reopen: Callable[[], bool]) -> None:
        self._home, self._reopen, self._unfinished = server_dir, reopen, UnfinishedStudies(server_dir)
        self._due, self._owed = 0.0, False

    def __call__(self) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _EVERY_S
        try:
            self._look()
        except OSError:  # a full disk must not end what runs; it is tried again
            return

    def _look(self) -> None:
        for log in (ACCESS_LOG, ERROR_LOG):
            if outgrown(self._home.logs / log, self._home.log_bytes):
                self._owed = True  # also if it is only half done: nginx makes what is missing
                set_aside(self._home.logs / log)
        if self._owed:
            self._owed = not self._reopen()
        self._drop_old_runs()

    def _drop_old_runs(self) -> None:
        if sum(1 for _ in self._home.logs.glob("run-*.log")) <= MOST_RUNS:
            return
        runs = {run for facts in self._unfinished().values() for run in study_logs.runs_of(facts)}
        dropped = keep_newest(self._home.logs, "run-*.log", MOST_RUNS, {study_logs.file_of(run) for run in runs})
        for link in self._home.shown.glob("logs/*/*/*.log"):
            if link.name in dropped:
                link.unlink(missing_ok=True)
