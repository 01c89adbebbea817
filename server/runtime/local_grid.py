"""The embedded runtime: hospitals run in this process, or in a few worker processes, behind Flower's ``Grid``.

Every message goes through Flower's real wire format both ways and is answered by the real ``ClientApp``, so what works
here works between machines. The app is passed in: this package does not know the hospitals' code.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from server.runtime.flower_private import Deflated, Run, claim_identity, deflate, deflate_all, inflate
from server.runtime.workers import LoadApp, Workers, answer

_WAIT_S = 0.05


class LocalGrid(Grid):
    """A grid whose nodes are hospitals on this machine.

    Args:
        hospitals: for each hospital's name the path of its ``site.yaml``.
        load_app: gives the hospitals' app; called once in each process that runs hospitals.
        workers: number of processes; 0 runs all hospitals in this one, one after the other, and then nothing can
            interrupt a hospital that hangs.
    """

    def __init__(self, hospitals: dict[str, Path], load_app: LoadApp, workers: int = 0) -> None:
        claim_identity()
        self.nodes = {name: number for number, name in enumerate(hospitals, start=1)}
        self._contexts = {self.nodes[name]: _context(self.nodes[name], path) for name, path in hospitals.items()}
        self._load_app = load_app
        self._app: ClientApp | None = None
        self._waiting: dict[str, Message] = {}
        self._replies: dict[str, Message] = {}
        self._forgotten: set[str] = set()
        self._workers = Workers(load_app, min(workers, len(hospitals))) if workers else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._workers is not None:
            self._workers.close(wait=error is None)

    @property
    def run(self) -> Run:
        raise NotImplementedError("the embedded runtime has no SuperLink and so no run")

    def set_run(self, run: Run) -> None:
        """Nothing to set: there is no SuperLink."""

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        orders = list(messages)
        return [self._push(m, d) for m, d in zip(orders, deflate_all(orders), strict=True)]

    def _push(self, message: Message, deflated: Deflated) -> str:
        name = deflated[0]
        if self._workers is None:
            self._waiting[name] = inflate(deflated)
        else:
            self._workers.submit(name, deflated, self._contexts[message.metadata.dst_node_id])
        return name

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have arrived. In one process this runs the next hospital and gives its reply."""
        wanted = set(message_ids)
        if self._workers is None:
            name = next((name for name in self._waiting if name in wanted), None)
            return [] if name is None else [self._play(self._waiting.pop(name))]
        finished = self._workers.finished(_WAIT_S)
        for name, reply in finished:
            if name in self._forgotten:
                self._forgotten.discard(name)
            else:
                self._replies[name] = reply
        return [self._replies.pop(name) for name in wanted & self._replies.keys()]

    def withdraw(self, message_ids: Iterable[str]) -> set[str]:
        """Drop orders that no hospital has started. Returns the others, whose replies have arrived or will arrive."""
        names = set(message_ids)
        unbegun = {name for name in names if self._waiting.pop(name, None) is not None}
        if self._workers is not None:
            unbegun |= self._workers.withdraw(names)
        return names - unbegun

    def forget(self, message_ids: Iterable[str]) -> None:
        """The replies to these orders, which are being answered, are not needed: they are dropped when they arrive."""
        self._forgotten |= {name for name in message_ids if self._replies.pop(name, None) is None}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        waiting = set(self.push_messages(messages))
        ends = time.monotonic() + (float("inf") if timeout is None else timeout)
        replies: list[Message] = []
        while waiting and time.monotonic() < ends:
            replies += (arrived := list(self.pull_messages(waiting)))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
        return replies

    def _play(self, message: Message) -> Message:
        if self._app is None:
            self._app = self._load_app()
        reply = answer(self._app, message, self._contexts[message.metadata.dst_node_id])
        return inflate(deflate(reply))


def _context(node: int, settings: Path) -> Context:
    return Context(run_id=1, node_id=node, node_config={"site": str(settings)}, state=RecordDict(), run_config={})
