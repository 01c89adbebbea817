"""A trainer that answers as no honest one does: python -m tests.e2e.drills.bad_trainer HOW GATEWAY SECRET."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.app import app as honest
from client.link.trainer import Gateway, Trainer
from tasks.protocol.wire import Arrays, TrainReport, decode, encode

_NOISE = np.random.default_rng(1)


def spoiled(how: str, arrays: Arrays) -> Arrays:
    """Arrays of an update, made bad."""
    name = next(iter(arrays))
    if how == "nan":
        return arrays | {name: np.full_like(arrays[name], np.nan)}
    if how == "shape":
        return arrays | {name: np.zeros((3, 5), arrays[name].dtype)}
    if how == "missing":
        return {other: value for other, value in arrays.items() if other != name}
    if how == "huge":
        return arrays | {name: _NOISE.standard_normal((32, 1024, 1024), np.float32)}  # 128 MB
    raise ValueError(how)


def app(how: str) -> ClientApp:
    """The honest app, spoiled after the fact."""
    bad = ClientApp()

    @bad.train()
    def train(message: Message, context: Context) -> Message:
        if how == "silent":
            time.sleep(10_000)
        reply = honest(message, context)
        report = decode(reply.content, TrainReport)
        made = TrainReport(**(vars(report) | {"arrays": spoiled(how, report.arrays)}))
        return Message(encode(made), reply_to=message)

    @bad.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return honest(message, context)

    return bad


if __name__ == "__main__":
    Trainer(Gateway(sys.argv[2], Path(sys.argv[3]).read_bytes()), app(sys.argv[1])).run()
