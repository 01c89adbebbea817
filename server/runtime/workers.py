"""Processes that run hospitals for the embedded runtime, one order at a time each.

Every worker is an executor of its own: in a pool of several, a process that dies takes the others' work with it, and it
is not known whose order it was. Here exactly one order fails, and the worker is restarted.

Tested in ``tests/server/runtime/test_local_grid.py``.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Container, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from server.runtime.flower_private import Deflated, claim_identity, deflate, inflate

LoadApp = Callable[[], ClientApp]
_CLIENT_FAILED = 2  # Flower's own code for a ClientApp that raised
_app: ClientApp | None = None  # of this worker process


def answer(app: ClientApp, message: Message, context: Context) -> Message:
    """The app's reply; if it raises, whatever it raises, the error that Flower would send, without the text."""
    try:
        return app(message, context)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic in a Rust decoder is no Exception
        return failure(message, type(error).__name__)


def failure(message: Message, reason: str) -> Message:
    """The reply of a hospital whose client failed."""
    return Message(Error(_CLIENT_FAILED, reason), reply_to=message)


class Workers:
    """A few processes, and a queue of orders for them.

    Args:
        load_app: gives the hospitals' app; called once in each process.
        number: how many processes.
    """

    def __init__(self, load_app: LoadApp, number: int) -> None:
        self._load_app, self._number = load_app, number
        self._idle = [self._new() for _ in range(number)]
        self._queue: deque[tuple[str, Deflated, Context]] = deque()
        self._busy: dict[Future[Deflated], tuple[str, Deflated, ProcessPoolExecutor]] = {}

    def submit(self, name: str, order: Deflated, context: Context) -> None:
        """Have an order answered as soon as a worker is free."""
        self._queue.append((name, order, context))
        self._dispatch()

    def withdraw(self, names: Container[str]) -> set[str]:
        """Drop those of these orders that no worker has started. Returns them."""
        unbegun = {name for name, _, _ in self._queue if name in names}
        self._queue = deque(order for order in self._queue if order[0] not in unbegun)
        return unbegun

    def finished(self, timeout: float) -> Iterator[tuple[str, Message]]:
        """Replies that arrive within so many seconds, by the name of the order; there may be none."""
        done, _ = wait(self._busy, timeout, FIRST_COMPLETED)
        for future in done:
            name, order, worker = self._busy.pop(future)
            error = future.exception()
            if error is None:
                self._idle.append(worker)
                yield name, inflate(future.result())
            else:
                worker.shutdown(wait=False)
                self._idle.append(self._new())
                yield name, failure(inflate(order), type(error).__name__)
        self._dispatch()

    def close(self, wait: bool) -> None:
        """Release the processes; queued orders are dropped, orders that are being answered are finished."""
        self._queue.clear()
        for worker in [*self._idle, *(worker for _, _, worker in self._busy.values())]:
            worker.shutdown(wait=wait, cancel_futures=True)

    def _dispatch(self) -> None:
        while self._queue and self._idle:
            worker, (name, order, context) = self._idle.pop(), self._queue.popleft()
            try:
                future = worker.submit(_answer, order, context)
            except BrokenProcessPool:  # it died while it had nothing to do
                worker = self._new()
                future = worker.submit(_answer, order, context)
            self._busy[future] = (name, order, worker)

    def _new(self) -> ProcessPoolExecutor:
        # spawn: a forked child would inherit the locks of torch's threads
        return ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_start, initargs=(self._load_app, self._number)
        )


def _start(load_app: LoadApp, workers: int) -> None:
    global _app
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which decides what to do
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    claim_identity()
    _app = load_app()
    if torch := sys.modules.get("torch"):  # an app without it has no threads to share
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def _leave_with_the_parent() -> None:
    """A killed parent cannot stop its worker, and the orphan would go on spending a hospital's budget."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _answer(order: Deflated, context: Context) -> Deflated:
    if _app is None:
        raise RuntimeError("the worker was not started")
    return deflate(answer(_app, inflate(order), context))
