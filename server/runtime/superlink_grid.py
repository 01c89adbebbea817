"""The deployed runtime's grid: what a SuperLink does not do for a study that must survive absent hospitals.

Flower accepts no message for a hospital that was never seen, answers at once for one that is offline, and its own
example polls every three seconds. Here an order first waits a while for hospitals that are offline. One that did not
come back in that time is not waited for again until it is seen.

A SuperLink cannot withdraw an order (Flower 1.42's Runtime API has no call for it), so an order expires after its time
to live. The reply to a forgotten order is fetched and discarded, because only then does the SuperLink release it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.runtime.flower_private import Run
from server.runtime.flower_replies import unavailable
from tasks.protocol import wire

_POLL_S, _SLOWEST_POLL_S, _POLL_SHARE = 0.2, 1.0, 0.05
"""A reply is looked for after this share of the time that it has been waited for, within these limits: who trains for a
minute loses a second by it, and the SuperLink is not asked five times a second by every study that waits."""
_LOOK_S = 1.0
_GRACE_S = 5.0


class SuperlinkGrid(Grid):
    """Hospitals behind a SuperLink.

    Args:
        inner: Flower's own grid of the run.
        wait_for_nodes_s: how long an order waits for hospitals that are offline.
        deadline_s: for how long an answer to an order counts.
        admitted: who may take part now; nobody else is waited for.
    """

    def __init__(
        self,
        inner: Grid,
        wait_for_nodes_s: float,
        deadline_s: float,
        admitted: Callable[[], set[int]] | None = None,
    ) -> None:
        self._inner, self._wait_for_nodes_s, self._deadline_s = inner, wait_for_nodes_s, deadline_s
        self._admitted = admitted
        self._given_up: set[int] = set()
        self._refused: dict[str, Message] = {}
        self._forgotten: set[str] = set()
        self._polled = self._quiet_since = 0.0

    @property
    def run(self) -> Run:
        return self._inner.run

    def set_run(self, run: Run) -> None:
        self._inner.set_run(run)

    def get_node_ids(self) -> Iterable[int]:
        return self._inner.get_node_ids()

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message that expires soon after the deadline, or after ``ttl`` seconds where they are given."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=(ttl or self._deadline_s) + _GRACE_S)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, after waiting for hospitals that are offline. Every message gets an id, also if it is not accepted;
        its arrays are given up."""
        orders = list(messages)
        self._await({order.metadata.dst_node_id for order in orders})
        names: list[str | None] = list(self._inner.push_messages(orders))
        for order in orders:
            if order.has_content():
                wire.give_up(order.content)
        self._quiet_since = time.monotonic()
        return [name or self._refuse(order) for name, order in zip(names, orders, strict=True)]

    def _await(self, wanted: set[int]) -> None:
        ends = time.monotonic() + self._wait_for_nodes_s
        while True:
            there = set(self.get_node_ids())
            self._given_up -= there
            missing = wanted - there - self._given_up
            if missing and self._admitted is not None:
                missing &= self._admitted()
            if not missing or time.monotonic() >= ends:
                self._given_up |= missing
                return
            time.sleep(_LOOK_S)

    def _refuse(self, order: Message) -> str:
        name = f"not sent to {order.metadata.dst_node_id}"
        self._refused[name] = unavailable(order.metadata.dst_node_id, name)
        return name

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """One of the replies that have arrived, in the order in which they are asked for. Polls the SuperLink a few
        times a second at most while there is none, and less often the longer it waits."""
        asked = list(message_ids)
        wanted = set(asked)
        if refused := wanted & self._refused.keys():
            return [self._refused.pop(name) for name in refused]
        self._pause()
        replies = list(self._inner.pull_messages([*asked, *(self._forgotten - wanted)]))
        if replies:
            self._polled, self._quiet_since = 0.0, time.monotonic()  # others may wait behind them
        self._forgotten -= {reply.metadata.reply_to_message_id for reply in replies}
        return [reply for reply in replies if reply.metadata.reply_to_message_id in wanted]

    def _pause(self) -> None:
        now = time.monotonic()
        every = min(max(_POLL_S, _POLL_SHARE * (now - self._quiet_since)), _SLOWEST_POLL_S)
        time.sleep(max(0.0, self._polled + every - now))
        self._polled = time.monotonic()

    def withdraw(self, message_ids: Iterable[str]) -> set[str]:
        """Drop those that were not accepted. Returns the others, which a hospital may have or may still get."""
        names = set(message_ids)
        untaken = {name for name in names if self._refused.pop(name, None) is not None}
        return names - untaken

    def forget(self, message_ids: Iterable[str]) -> None:
        """The replies to these are no longer needed: they are discarded when they arrive, or when they expire."""
        self._forgotten |= set(message_ids) - self._refused.keys()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        waiting = set(self.push_messages(messages))
        ends = time.monotonic() + (self._deadline_s if timeout is None else timeout)
        replies: list[Message] = []
        while waiting and time.monotonic() < ends:
            replies += (arrived := list(self.pull_messages(waiting)))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
        return replies
