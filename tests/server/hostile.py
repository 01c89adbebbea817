"""Replies that are almost right: every part of a report's records changed as an enemy would change it."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import strategies as st

from server.runtime.flower_private import claim_identity
from tasks.protocol import wire
from tests.spread import spread

_NUMBERS = st.sampled_from(
    [0, -1, 1, 2, 10**7, 10**400, 0.0, -0.0, 5e-324, 1e-300, 0.29, 0.31, 9e4, 1e5, 1e6, 1e308, -1e308, 1.0000001]
)
_ODD = _NUMBERS | st.none() | st.booleans() | st.text(max_size=8) | st.just([]) | st.just({}) | st.just([[[]]] * 3)
_RAW = st.sampled_from(
    ['{"a":', "[" * 3000, "NaN", '{"epsilon":NaN}', '{"epsilon":Infinity}', '"\\ud800"', "null", "{}"]
)
_DTYPES = st.sampled_from(["<f4", "<f8", "<f2", ">f4", "<i8", "|b1", "<c8", "<U3", "|O", "<M8[s]", "|V8", "<f16"])
_NAMES = st.sampled_from(
    ["weight", "bias", "histogram", "paired", "finding-x", "int8.codes", "int8.scales", "float16.codes", "../x", "",
     "a" * 300, "[/red]", "<script>", "control-variate.weight", "\x1b[31m"]
)  # fmt: skip
_SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 6, 8, 2**31, 2**62]), max_size=4).map(tuple)


@st.composite
def arrays(draw: st.DrawFn, good: np.ndarray[Any, Any]) -> Array:
    """An array as Flower carries it, whatever its bytes hold."""
    kind = draw(st.sampled_from(["values", "dtype", "header", "bytes", "npz", "pickle", "declared", "shape"]))
    stored = _npy(good)
    if kind == "values":
        value = good.astype(np.float64)
        spots = draw(st.lists(st.tuples(st.integers(0, 10**6), _VALUES), max_size=4))
        for at, put in spots:
            if value.size:
                value.reshape(-1)[at % value.size] = put
        with np.errstate(all="ignore"):
            return Array(value.astype(good.dtype))
    if kind == "dtype":
        with np.errstate(all="ignore"):
            changed = np.zeros(good.shape, np.dtype(draw(_DTYPES)))
        return _array(changed, _npy(changed, pickle=True))
    if kind == "header":
        shape, fortran = draw(_SHAPES), draw(st.booleans())
        head = {"descr": draw(_DTYPES), "fortran_order": fortran, "shape": shape}
        text = repr(head).ljust(118).encode() + b"\n"
        return _array(good, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + stored[128:])
    if kind == "bytes":
        return _array(good, _spoilt(draw, stored))
    if kind == "npz":
        file = io.BytesIO()
        np.savez(file, good)
        return _array(good, file.getvalue() if draw(st.booleans()) else b"PK\x03\x04" + stored)
    if kind == "pickle":
        return _array(np.array([None]), _npy(np.array([print], dtype=object), pickle=True))
    if kind == "declared":
        return Array("float32", draw(_SHAPES), draw(st.sampled_from(["numpy.ndarray", "torch", ""])), stored)
    return Array(np.zeros([min(side, 8) for side in draw(_SHAPES)], good.dtype))


_VALUES = st.sampled_from([np.nan, np.inf, -np.inf, 1e9, -1e9, 1.1e9, 3e38, 1e4, -8999, 5e-324, 0.0, 0.5])


@st.composite
def replies(draw: st.DrawFn, good: wire.Message) -> RecordDict:
    """The records of a report, spoilt in up to three ways, or in none."""
    records = spread(wire.encode(good))
    head = dict(records.config_records["head"])
    kept = {name: Array(value) for name, value in good.arrays.items()}
    for _ in range(draw(st.integers(0, 3))):
        way = draw(st.sampled_from(["field", "text", "head", "array", "array", "name", "lost", "added", "form"]))
        if way == "field":
            values = json.loads(json.dumps(json.loads(wire.encode(good).config_records["head"]["json"])))
            key = draw(st.sampled_from([*values, "arrays", "public_size", "__class__"]))
            values[key] = draw(_ODD)
            head["json"] = json.dumps(values)
        elif way == "text":
            head["json"] = draw(_RAW)
        elif way == "head":
            head[draw(st.sampled_from(["version", "kind", "json", "ledger_head", "arrays", "more"]))] = draw(
                st.sampled_from([0, 4, 5, "", "Refusal", "TrainReport", "EvaluateReport", 1.5, b"x", True])
            )
        elif way == "array" and kept:
            name = draw(st.sampled_from(sorted(kept)))
            kept[name] = draw(arrays(good.arrays.get(name, np.zeros(1, np.float32))))
        elif way == "name" and kept:
            kept[draw(_NAMES)] = kept.pop(draw(st.sampled_from(sorted(kept))))
        elif way == "lost" and kept:
            del kept[draw(st.sampled_from(sorted(kept)))]
        elif way == "added":
            kept[draw(_NAMES)] = draw(arrays(np.zeros(2, np.float32)))
        elif way == "form":
            return draw(st.sampled_from([RecordDict(), RecordDict({"head": ConfigRecord()}),
                                         RecordDict({"head": ArrayRecord(), "arrays": ConfigRecord()})]))  # fmt: skip
    return RecordDict({"head": ConfigRecord(head), "arrays": ArrayRecord(kept)})


def message(content: RecordDict) -> Message:
    """A reply with this content, as it comes out of a grid."""
    claim_identity()
    order = Message(RecordDict(), 1, "train")
    return Message(content, reply_to=order)


def _npy(value: np.ndarray[Any, Any], pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=pickle)
    return file.getvalue()


def _array(value: np.ndarray[Any, Any], data: bytes) -> Array:
    return Array(str(value.dtype), value.shape, "numpy.ndarray", data)


def _spoilt(draw: st.DrawFn, content: bytes) -> bytes:
    spoilt = bytearray(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)
    for at, bit in draw(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6)):
        if spoilt:
            spoilt[at % len(spoilt)] = bit
    return bytes(spoilt)
