"""Flower's own store of messages, the one that its simulation uses, with scripted hospitals that fetch and answer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from flwr.app import Context, Message, RecordDict
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from server.runtime.flower_private import claim_identity, deflate, inflate
from server.runtime.workers import answer
from tests.server import scripted

_RUN = 1


class LinkStateGrid(InMemoryGrid):
    """Flower's grid on its own store. Hospital ``slow`` fetches and answers its orders once round ``until`` is ordered,
    all others whenever the server asks for replies."""

    def __init__(self, sites: dict[str, Path], slow: str, until: int) -> None:
        claim_identity()
        factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        super().__init__(factory)
        self.store = cast(InMemoryLinkState, self.state)
        run = Run.create_empty(_RUN)
        run.federation_id, run.primary_task_id = NOOP_FEDERATION_ID, _RUN
        self.store.run_ids[_RUN] = RunRecord(run=run)
        self.store.task_store[_RUN] = Task(task_id=_RUN, run_id=_RUN)
        self.set_run(run)
        self.nodes = {name: self._node(name) for name in sites}
        self._contexts = {
            name: Context(_RUN, node, {"site": str(sites[name])}, RecordDict(), {}) for name, node in self.nodes.items()
        }
        self._app, self._slow, self._until, self._newest = scripted.load_app(), slow, until, 0

    def _node(self, name: str) -> int:
        node = self.store.create_node(name, name, name.encode(), 1e6)
        assert self.store.activate_node(node, 1e6)
        return node

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        together = [inflate(deflate(message)) for message in messages]  # a SuperLink holds bytes, this store objects
        self._newest = max(int(message.metadata.group_id) for message in together)
        return super().push_messages(together)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for name, node in self.nodes.items():
            if name != self._slow or self._newest >= self._until:
                self._play(name, node)
        return super().pull_messages(message_ids)

    def _play(self, name: str, node: int) -> None:
        for order in self.store.get_message_ins(node, limit=None):
            reply: Any = answer(self._app, order, self._contexts[name])
            reply.metadata.__dict__["_message_id"] = f"reply to {order.metadata.message_id}"
            reply.metadata._src_node_id = node
            assert self.store.store_message_res(reply) is not None
