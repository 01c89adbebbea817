"""An embedded grid on which one hospital's answer comes late: real messages, and no clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Message

from server.runtime.local_grid import LocalGrid


class Delaying(LocalGrid):
    """The answer of hospital ``slow`` to the order to train of round ``of`` is there once round ``until`` has been
    ordered; all others at once."""

    slow, of, until = "elm", 1, 2

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.held: dict[str, Message] = {}
        self.newest = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        together = list(messages)
        self.newest = max(int(message.metadata.group_id) for message in together)
        names = super().push_messages(together)
        for name in [name for name, order in self._waiting.items() if self._delays(order)]:
            self.held[name] = self._play(self._waiting.pop(name))
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = set(message_ids)
        if self.newest >= self.until and (there := wanted & self.held.keys()):
            return [self.held.pop(name) for name in there]
        return super().pull_messages(wanted)

    def _delays(self, order: Message) -> bool:
        about = order.metadata
        return (about.dst_node_id, about.message_type, about.group_id) == (
            self.nodes[self.slow],
            "train",
            str(self.of),
        )
