"""Children that a test may kill: forks of a process that has imported what they need, and done nothing with it.

A fork of pytest itself would take with it whatever other modules have left there. After ``tests.second_device`` is
imported torch refuses to train in a fork, and hospitals would send noise alone, as they must when training fails.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess

FORKS = multiprocessing.get_context("forkserver")
# There is one such process for each of pytest's, and whoever comes first decides what it has imported.
FORKS.set_forkserver_preload(["tests.federation.embedded", "tests.client.ledger.test_ledger_crash"])


def started(work: Callable[..., object], *given: object) -> BaseProcess:
    """A child that calls a function of a test module; what is given must be picklable."""
    child = FORKS.Process(target=work, args=given)
    child.start()
    return child


def exit_code(child: BaseProcess) -> int | None:
    """Wait for its end: its exit code, or minus the signal that ended it."""
    child.join()
    return child.exitcode
