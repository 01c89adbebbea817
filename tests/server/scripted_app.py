"""A hospitals' app that answers as its settings file says: well, badly, or not at all.

The file is JSON: for ``train`` and ``evaluate`` a behaviour, or behaviours by round number. It runs in this process or
in a worker, through the same grid and codec as the real app. Workers are started by the dozen and import this module
anew, so it imports little: with torch and Hydra a start takes six times as long.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from tasks.protocol import wire
from tasks.protocol.wire import ErrorCode, EvaluateOrder, EvaluateReport, Refusal, TrainOrder, TrainReport

WEIGHTS = {"weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(1, np.float32)}
SIZE, NOISE = 2000, 1.5
BOOKS = "b" * 64
"""The head of everybody's ledger, which no row ever follows."""


def load_app() -> ClientApp:
    """The app; a function of a module, so that a new process can find it."""
    app = ClientApp()
    app.train()(_train)
    app.evaluate()(_evaluate)
    return app


def load_nothing() -> ClientApp:
    """An app that cannot be had."""
    raise ImportError("this hospital's software is broken")


def honest_update(name: str, order: TrainOrder) -> wire.Arrays:
    """What a hospital that behaves reports: it depends on its name, the round and the weights."""
    rng = np.random.default_rng([*name.encode(), order.round])
    return {
        key: (0.1 * rng.standard_normal(value.shape) - 0.1 * value).astype(np.float32)
        for key, value in sorted(order.arrays.items())
        if key in WEIGHTS
    }


def honest_histogram(name: str, bins: int) -> wire.Arrays:
    rng = np.random.default_rng([*name.encode(), bins])
    return {"histogram": rng.integers(1, 9, size=(2, bins)).astype(np.float64)}


def honest_range(name: str) -> wire.Arrays:
    """All its patients in four of the cells."""
    counts = np.zeros(wire.RANGE_CELLS)
    counts[12:16] = np.random.default_rng([*name.encode(), 1]).integers(5, 20, size=4)
    return {wire.RANGE: counts}


def honest_joint(name: str, order: EvaluateOrder) -> wire.Arrays:
    """The order's own model, the first one, puts nearly all positives on top; the other model does not."""
    bins = order.arrays[wire.EDGES].shape[1] + 1
    counts = np.random.default_rng([*name.encode(), bins]).integers(1, 3, size=(2, bins, bins)).astype(np.float64)
    counts[1, -1], counts[0, 0] = counts[1, -1] + 40, counts[0, 0] + 40
    return {"paired": counts}


def _train(message: Message, context: Context) -> Message:
    settings = _settings(context)
    order = wire.decode(message.content, TrainOrder)
    behaviour = _behaviour(settings, "train", order.round)
    honest = TrainReport(order.study.name, order.round, 1.0, 1e-4, NOISE, BOOKS, honest_update(settings["name"], order))
    if behaviour == "wrong tensor dtype":
        return _reply(message, replace(honest, arrays={k: v.astype(np.float64) for k, v in honest.arrays.items()}))
    if behaviour == "missing tensor":
        return _reply(message, replace(honest, arrays={"bias": honest.arrays["bias"]}))
    if behaviour == "another tensor":
        return _reply(message, replace(honest, arrays={**honest.arrays, "hook": np.zeros(1, np.float32)}))
    if behaviour == "wrong tensor shape":
        return _reply(message, replace(honest, arrays={**honest.arrays, "weight": np.zeros((3, 2), np.float32)}))
    if behaviour == "broadcast":
        return _reply(message, replace(honest, arrays={**honest.arrays, "weight": np.zeros((1, 3), np.float32)}))
    if behaviour == "no noise":
        return _reply(message, replace(honest, noise_multiplier=0.0))
    if behaviour == "twice the noise":
        return _reply(message, replace(honest, noise_multiplier=2 * NOISE))
    spoilt = {"nan": np.nan, "infinite": np.inf, "minus infinite": -np.inf, "gigantic": np.float32(3e38)}
    if behaviour in spoilt:
        honest.arrays["weight"][1, 1] = spoilt[behaviour]
    return _reply(message, honest) if behaviour in ("well", *spoilt) else _misbehave(behaviour, message, honest)


def _evaluate(message: Message, context: Context) -> Message:
    settings = _settings(context)
    order = wire.decode(message.content, EvaluateOrder)
    behaviour = _behaviour(settings, "evaluate" if order.asks == "scores" else order.asks, order.round)
    arrays = honest_histogram(settings["name"], order.study.evaluation.bins)
    if order.asks == "paired":
        arrays = honest_joint(settings["name"], order)
    if order.asks == "range":
        arrays = honest_range(settings["name"])
    honest = EvaluateReport(order.study.name, order.round, None, 1e-4, 0.0, BOOKS, arrays)
    if order.asks in ("paired", "range"):
        return _reply(message, honest) if behaviour == "well" else _misbehave(behaviour, message, honest)
    spoilt: dict[str, wire.Arrays] = {
        "nan": {"histogram": arrays["histogram"] * np.nan},
        "gigantic": {"histogram": arrays["histogram"] * 1e300},
        "whole numbers": {"histogram": arrays["histogram"].astype(np.int64)},
        "too few bins": {"histogram": arrays["histogram"][:, 1:]},
        "one row": {"histogram": arrays["histogram"][:1]},
        "no histogram": {},
        "another array": {**arrays, "raw_scores": np.zeros(3)},
        "one class": {"histogram": arrays["histogram"] * np.array([[0.0], [1.0]])},
        "perfect": {"histogram": np.pad([[5.0], [7.0]], [(0, 0), (0, len(arrays["histogram"][0]) - 1)])},
    }
    if behaviour == "perfect":
        spoilt["perfect"]["histogram"][1] = spoilt["perfect"]["histogram"][1][::-1]
    if behaviour in spoilt:
        return _reply(message, replace(honest, arrays=spoilt[behaviour]))
    return _reply(message, honest) if behaviour == "well" else _misbehave(behaviour, message, honest)


def _reply_after(seconds: float, message: Message, honest: TrainReport | EvaluateReport) -> Message:
    time.sleep(seconds)
    return _reply(message, honest)


def _misbehave(behaviour: str, message: Message, honest: TrainReport | EvaluateReport) -> Message:
    faults: dict[str, Callable[[], Message]] = {
        "another study": lambda: _reply(message, replace(honest, study="other-1")),
        "another round": lambda: _reply(message, replace(honest, round=honest.round + 1)),
        "refuse": lambda: _reply(message, Refusal(honest.study, honest.round, ErrorCode.BUDGET_EXHAUSTED)),
        "not held": lambda: _reply(message, Refusal(honest.study, honest.round, ErrorCode.NOT_HELD)),
        "books behind": lambda: _reply(message, Refusal(honest.study, honest.round, ErrorCode.LEDGER_BEHIND)),
        "npz": lambda: _forged(message, arrays={"weight": _npz(), "histogram": _npz()}),
        "another kind": lambda: _reply(message, EvaluateReport(honest.study, honest.round, None, 1e-4, 0.0, BOOKS)),
        "no records": lambda: Message(RecordDict(), reply_to=message),
        "markup": lambda: _forged(message, kind="[/][red]" * 50),
        "text for numbers": lambda: _forged(message, arrays={"weight": np.array(["a"]), "histogram": np.array(["a"])}),
        "raise": lambda: _raise(ValueError("PatientID 4711 at /data/secret")),
        "panic": lambda: _raise(BaseException("a panic is no Exception")),
        "leave": lambda: sys.exit(3),
        "die": lambda: os._exit(9),
        "sleep": lambda: _reply_after(4, message, honest),
        "nap": lambda: _reply_after(1.2, message, honest),
    }
    return faults[behaviour]()


def _settings(context: Context) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(Path(str(context.node_config["site"])).read_text())
    return settings


def _behaviour(settings: dict[str, Any], part: str, round: int) -> str:
    told = settings.get(part, "well")
    return str(told.get(str(round), "well") if isinstance(told, dict) else told)


def _reply(message: Message, report: wire.Message) -> Message:
    return Message(wire.encode(report), reply_to=message)


def _forged(message: Message, kind: str = "TrainReport", arrays: dict[str, Any] | None = None) -> Message:
    head = ConfigRecord({"version": wire.VERSION, "kind": kind, "json": "{}"})
    record = ArrayRecord(
        {name: value if isinstance(value, Array) else Array(value) for name, value in (arrays or {}).items()}
    )
    return Message(RecordDict({"head": head, "arrays": record}), reply_to=message)


def _npz() -> Array:
    """An archive where an array is due."""
    file = io.BytesIO()
    np.savez(file, WEIGHTS["weight"])
    return Array("float32", (2, 3), "numpy.ndarray", file.getvalue())


def _raise(error: BaseException) -> Message:
    raise error
