"""Fewer bytes for the same tensors: float16, or 8 bits with one scale for each block of values.

All tensors, in order of their names, form one row of values; each block of it is divided by its largest magnitude.

    float16   the quotient, rounded to the nearest: an error of at most 1/2048 of itself, or 3e-8 of the largest
    int8      127 times the quotient, rounded; the codes are then Huffman-coded, because large ones are rare

Rounding to 8 bits may be stochastic, which makes the error zero in expectation (QSGD, Alistarh et al., NeurIPS 2017).
The sender keeps the rounding error and adds it to what it sends next (error feedback: Seide et al., Interspeech 2014;
Karimireddy et al., ICML 2019); then errors do not add up.

Privacy: everything here is computed from values that already have their noise. Post-processing spends nothing (Dwork
and Roth, 2014, proposition 2.1), and refunds nothing: the noise is planned as without rounding.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.protocol.study import Encoding
from tasks.protocol.wire import Arrays, WireError

Flat = NDArray[np.float32]
Uniform = Callable[[int], Flat]
"""From a count to as many numbers in [0, 1), which are added before rounding down."""

_BLOCK = 1024
_LEVELS = np.float32(127)
_CODES, _SCALES = "codes", "scales"


def nearest(count: int) -> Flat:
    """Rounds to the nearest: the error is smallest, and the same every time."""
    return np.full(count, 0.5, np.float32)


def stochastic(generator: np.random.Generator) -> Uniform:
    """Rounds up or down at random, in proportion: the error is zero in expectation."""
    return lambda count: generator.random(count, np.float32)


def shrink(arrays: Arrays, form: Encoding, uniform: Uniform = nearest) -> Arrays:
    """The arrays as they are sent: unchanged for ``float32``, otherwise codes and scales, under names of the form.

    Args:
        arrays: float32, finite.
        uniform: how 8 bits are rounded; float16 is rounded to the nearest in any case.

    >>> arrays = {"weight": np.array([0.5, -1.0, 0.25], np.float32)}
    >>> coded = shrink(arrays, "int8")
    >>> sorted(coded)
    ['int8.codes', 'int8.scales']
    >>> restore(coded, "int8", like=arrays)["weight"].round(3)
    array([ 0.504, -1.   ,  0.252], dtype=float32)
    """
    if form == "float32":
        return arrays
    values = _row(arrays)
    blocks = np.zeros((math.ceil(len(values) / _BLOCK), _BLOCK), np.float32)
    blocks.reshape(-1)[: len(values)] = values
    scales = np.abs(blocks).max(axis=1)
    blocks /= np.where(scales > 0, scales, np.float32(1))[:, None]
    quotients = blocks.reshape(-1)[: len(values)]
    codes = quotients.astype(np.float16) if form == "float16" else _huffman(_rounded(quotients, uniform))
    return {f"{form}.{_CODES}": codes, f"{form}.{_SCALES}": scales}


def restore(coded: Arrays, form: Encoding, like: Mapping[str, NDArray[Any]]) -> Arrays:
    """The inverse of ``shrink``: float32 arrays with the names and shapes of ``like``; ``float32`` is given as it came.

    Raises:
        WireError: the codes are not of this encoding, or their number does not match the shapes.
    """
    if form == "float32":
        return coded
    shapes = {name: like[name].shape for name in sorted(like)}
    sizes = [math.prod(shape) for shape in shapes.values()]
    row = _values(coded, form, sum(sizes))
    pieces = np.split(row, np.cumsum(sizes)[:-1])
    return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def form_of(arrays: Mapping[str, NDArray[Any]]) -> Encoding:
    """The encoding of arrays, from their names."""
    forms: tuple[Encoding, ...] = ("float16", "int8")
    return next((form for form in forms if arrays.keys() == {f"{form}.{_CODES}", f"{form}.{_SCALES}"}), "float32")


def norm_of(arrays: Arrays) -> float:
    """The L2 norm of what was sent, whatever its encoding."""
    form = form_of(arrays)
    if form != "float32":
        scales = len(arrays[f"{form}.{_SCALES}"])
        count = len(arrays[f"{form}.{_CODES}"]) if form == "float16" else _count(arrays[f"{form}.{_CODES}"], scales)
        arrays = {"": _values(arrays, form, count)}
    return math.sqrt(sum(float(np.sum(np.square(value, dtype=np.float64))) for value in arrays.values()))


def largest_size(form: Encoding, values: int) -> int:
    """The largest number of bytes that this many values can take."""
    if form == "float32":
        return 4 * values
    blocks = math.ceil(values / _BLOCK)
    # Deflate stores what it cannot shorten, with 5 bytes per 16 kB.
    return 4 * blocks + (2 * values if form == "float16" else values + values // 1000 + 64)


def lost(arrays: Arrays, coded: Arrays, form: Encoding) -> Arrays:
    """The rounding error, to be added to what is sent next."""
    restored = restore(coded, form, arrays)
    return {name: value - restored[name] for name, value in arrays.items()}


def _row(arrays: Arrays) -> Flat:
    return np.concatenate([arrays[name].reshape(-1) for name in sorted(arrays)], dtype=np.float32)


def _rounded(quotients: Flat, uniform: Uniform) -> NDArray[np.int8]:
    levels = np.floor(quotients * _LEVELS + uniform(len(quotients)))
    # 127 and a number next to 1 add up to 128 in float32, which 8 bits would turn into -128.
    capped: NDArray[np.int8] = np.minimum(levels, np.float32(_LEVELS)).astype(np.int8)
    return capped


def _values(coded: Arrays, form: Encoding, count: int) -> Flat:
    if form_of(coded) != form:
        raise WireError(f"expected tensors in the encoding {form}, not {', '.join(sorted(coded)[:3]) or 'none'}")
    codes, scales = coded[f"{form}.{_CODES}"], coded[f"{form}.{_SCALES}"]
    kind = np.float16 if form == "float16" else np.uint8
    if codes.dtype != kind or codes.ndim != 1 or scales.dtype != np.float32:
        raise WireError(f"codes are {codes.dtype} {codes.shape} and scales {scales.dtype}: not the encoding {form}")
    if scales.shape != (math.ceil(count / _BLOCK),):
        raise WireError(f"{scales.shape} scales for {count} values in blocks of {_BLOCK}")
    if form == "float16":
        factors, row = scales, codes.astype(np.float32)
    else:
        factors, row = scales / _LEVELS, _unpacked(codes, count).astype(np.float32)
    if row.shape != (count,):
        raise WireError(f"{len(row)} codes for {count} values")
    whole = np.zeros(len(scales) * _BLOCK, np.float32)
    whole[:count] = row
    with np.errstate(over="ignore", invalid="ignore"):
        return (whole.reshape(-1, _BLOCK) * factors[:, None]).reshape(-1)[:count]


def _huffman(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Deflate without a search for repetitions, since noise has none."""
    packer = zlib.compressobj(level=1, strategy=zlib.Z_HUFFMAN_ONLY)
    return np.frombuffer(packer.compress(codes.tobytes()) + packer.flush(), np.uint8)


def _unpacked(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """The codes. Unpacking stops once there are more than ``count``."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed.tobytes(), count + 1)
    except zlib.error as error:
        raise WireError(f"8-bit codes that cannot be unpacked ({error})") from error
    if len(content) != count or not unpacker.eof:
        raise WireError(f"8-bit codes for a number of values other than {count}")
    return np.frombuffer(content, np.int8)


def _count(packed: NDArray[np.uint8], scales: int) -> int:
    """How many values there are, if only the number of blocks is known."""
    return len(zlib.decompressobj().decompress(packed.tobytes(), scales * _BLOCK))
