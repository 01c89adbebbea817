"""The trainer: answers the gateway's orders one at a time, each in a separate process.

Slow imports happen once, here, and every order is answered by a fork: as separate as a new program, without its seven
seconds of start-up. This process itself never reads an order. It connects only to the gateway, and answers with the app
installed here, whatever the run's bundle holds.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from flwr.clientapp import ClientApp

from client.link.flower_trainer import GatewayAway, OrderAcquirer, OrderHead, answer, answer_for_the_dead
from tasks.machine.disk import keep_to_owner
from tasks.machine.pulse import ALIVE, SILENT, Pulse

POLL_S = 0.1
_AWAY_S = 1.0
_UNREAD_S = 60.0
"""How long a process may take to read its order."""
_HEAD = 16
_TRIES = 2
"""How often an order is retried if its process dies before reading it."""


@dataclass(frozen=True)
class Gateway:
    """The gateway's address, and the secret it shares with the trainer."""

    address: str
    secret: bytes


class Trainer:
    """Polls the gateway for orders until stopped.

    Args:
        alive: beats while it does that, or waits for a process that answers an order.
    """

    def __init__(self, gateway: Gateway, app: ClientApp, alive: Pulse = SILENT) -> None:
        self._gateway, self._app, self._alive = gateway, app, alive
        self._acquirer = OrderAcquirer(gateway.address, gateway.secret)
        self._stop = threading.Event()
        self._told = ""

    def run(self) -> None:
        """Run until SIGTERM; an order in progress is then dropped, and the server sends it again."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        while not self._stop.is_set():
            self._alive.beat()
            try:
                token = self._acquirer.next()
                self._tell("answering orders")
            except GatewayAway as error:
                self._tell(f"the gateway does not answer: {error}")
                self._stop.wait(_AWAY_S)
                continue
            if token is None:
                self._stop.wait(POLL_S)
            else:
                self._answer(token)

    def _tell(self, text: str) -> None:
        if text != self._told:
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
        self._told = text

    def _answer(self, token: str) -> None:
        for _ in range(_TRIES):
            child, heard, held = self._fork(token)
            try:
                receipt, how = self._wait(child, heard)
            finally:
                os.close(heard)
                os.close(held)
            if how == 0 or self._stop.is_set():
                return
            self._tell(f"process {child}, which had the order, ended with {how}")
            if receipt is not None:
                self._say_so(token, receipt)
                return

    def _fork(self, token: str) -> tuple[int, int, int]:
        """A child that answers: its id, a pipe on which it tells what it has, and one that ends it with us."""
        read_end, write_end = os.pipe()
        alive, held = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            os.close(held)
            _be_child(self._gateway.address, token, self._app, write_end, alive)
        os.close(write_end)
        os.close(alive)
        return child, read_end, held

    def _wait(self, child: int, read_end: int) -> tuple[OrderHead | None, int]:
        """Wait for the child; kill it once nobody waits for its answer any more, or when we are stopped."""
        message, complete = b"", False
        ends = time.monotonic() + _UNREAD_S
        while True:
            self._alive.beat()
            if complete:
                time.sleep(0.02)
            elif select.select([read_end], [], [], 0.05)[0]:
                piece = os.read(read_end, 65536)
                message, complete = message + piece, not piece
                if complete and (receipt := _received(message)):
                    ends = time.monotonic() + receipt.ttl_s
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                while piece := os.read(read_end, 65536):  # what it told just before it died
                    message += piece
                return _received(message), os.waitstatus_to_exitcode(status)
            if time.monotonic() > ends or self._stop.is_set():
                os.kill(child, signal.SIGKILL)

    def _say_so(self, token: str, receipt: OrderHead) -> None:
        try:
            answer_for_the_dead(self._gateway.address, token, receipt)
        except GatewayAway as error:
            self._tell(f"the gateway does not answer: {error}")


def _be_child(address: str, token: str, app: ClientApp, pipe: int, alive: int) -> None:
    """Answer the order and end. Never returns."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, lambda *_: os._exit(4))  # Flower: the gateway has given the order up
        threading.Thread(target=_leave_with_the_parent, args=(alive,), daemon=True).start()

        def received(receipt: OrderHead) -> None:
            os.write(pipe, receipt.node.to_bytes(8) + int(receipt.ttl_s * 1000).to_bytes(8) + receipt.head)
            os.close(pipe)

        answer(address, token, app, received)
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _leave_with_the_parent(alive: int) -> None:
    """A parent that was killed cannot say so, and its orphan would go on spending the hospital's budget."""
    os.read(alive, 1)
    os._exit(3)


def _received(message: bytes) -> OrderHead | None:
    """What the child has told, ``None`` when it died before it had an order."""
    if len(message) <= _HEAD:
        return None
    return OrderHead(message[_HEAD:], int.from_bytes(message[:8]), int.from_bytes(message[8:_HEAD]) / 1000)


def main() -> None:
    """Train for the gateway at the address that is the first argument; the second names the shared secret's file."""
    from torch import _dynamo as _dynamo  # what the first step of an optimiser would load, for every order anew

    from client.app import app
    from tasks import task as tasks

    keep_to_owner()
    for name in tasks.names():
        tasks.get(name)
    alive = Pulse(Path(os.environ[ALIVE])) if ALIVE in os.environ else SILENT
    Trainer(Gateway(sys.argv[1], Path(sys.argv[2]).read_bytes()), app, alive).run()


if __name__ == "__main__":
    main()
