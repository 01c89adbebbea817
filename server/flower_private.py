"""The only file that touches private names of Flower (1.41). ``test_flower_private.py`` is its contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["Deflated", "Run", "claim_identity", "deflate", "deflate_all", "inflate"]

Deflated = tuple[str, dict[str, bytes]]
"""A message as it travels: its object id, and the content of every object in it by object id."""


def claim_identity() -> None:
    """Give this process the identity without which Flower refuses to make messages."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


def deflate(message: Message) -> Deflated:
    """Serialise with Flower's own wire format, as SuperLink and SuperNode do."""
    return deflate_all([message])[0]


def deflate_all(messages: Iterable[Message]) -> list[Deflated]:
    """Serialise several; content that they share is hashed once."""
    with no_object_id_recompute():
        return [
            (message.object_id, {name: part.deflate() for name, part in get_all_nested_objects(message).items()})
            for message in messages
        ]


def inflate(deflated: Deflated) -> Message:
    """The inverse of ``deflate``; the message bears the id under which it travelled."""
    object_id, contents = deflated
    message = cast(Message, inflate_object_from_contents(object_id, dict(contents)))
    message.metadata.__dict__["_message_id"] = object_id
    return message
