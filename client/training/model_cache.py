"""The model of the latest order, cached so that the next order need only bring the change.

It is the server's and holds nothing about a patient that has not left already. If it is lost, the order is refused with
NOT_HELD and the server sends the complete model; so it is written without waiting for the disk.

Tested in ``tests/federation/test_lean.py``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load, save

from client.errors import BadOrder, NotHeld
from client.site import SiteSettings
from tasks.machine.disk import write_private
from tasks.protocol import encoding, wire
from tasks.protocol.wire import Arrays, EvaluateOrder, Order, TrainOrder

_OF_THE_STUDY = ("scores", "range")


def whole(order: Order, settings: SiteSettings) -> Order:
    """The order with its complete model, whichever way it was sent.

    Raises:
        NotHeld: the change is of another model than the one that is held here.
        BadOrder: the study's models do not travel as changes, or the change does not fit.
    """
    if order.change is None:
        return order
    if order.study.wire.down == "float32":
        raise BadOrder("the order brings a change of the model, but the study sends complete models")
    held = _read(_file(order, settings))
    if held is None or wire.digest_of_arrays(held) != order.change.base:
        raise NotHeld(f"the order changes the model {order.change.base[:12]}, which is not cached here")
    return replace(order, arrays=_changed(order, held), change=None)


def _changed(order: TrainOrder | EvaluateOrder, held: Arrays) -> Arrays:
    if order.change is None or order.change.base == order.change.result:
        return held
    try:
        change = encoding.restore(order.arrays, order.study.wire.down, held)
    except wire.WireError as error:
        raise BadOrder(f"the model's change: {error}") from error
    arrays = {name: value + change[name] for name, value in held.items()}
    if wire.digest_of_arrays(arrays) != order.change.result:
        raise NotHeld("the change does not lead to the expected model")
    return arrays


def keep(order: TrainOrder | EvaluateOrder, settings: SiteSettings) -> None:
    """Cache the order's complete model, if the study sends models as changes and this is one of them."""
    if order.study.wire.down == "float32" or (isinstance(order, EvaluateOrder) and order.asks not in _OF_THE_STUDY):
        return
    path = _file(order, settings)
    content = save({name: order.arrays[name] for name in sorted(order.arrays)})
    write_private(path, content)


def _read(path: Path) -> Arrays | None:
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError):
        return None


def _file(order: TrainOrder | EvaluateOrder, settings: SiteSettings) -> Path:
    return settings.kept / f"{settings.name}.{order.study.name}.model.safetensors"
