"""From samples as read to stored values; values that contradict the header are refused.

A stored value is the value of PixelData before any LUT: the lowest BitsStored bits, two's complement if
PixelRepresentation is 1 (PS3.5 section 8.1.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from client.pixels.frames import size_in_bits
from client.pixels.header import PixelElement
from client.pixels.pixel_format import PixelFormat
from client.pixels.refusal import Reason, UnreadableDicom

OVERSHOOT = 0.05
"""Fraction of the range by which lossy coding may exceed it; beyond that values are wrong rather than imprecise."""

StoredValues = NDArray[Any]
"""int32, int64 or floating point of shape (rows, columns) or (rows, columns, 3)."""


def shape_native(data: NDArray[np.uint8], element: PixelElement, form: PixelFormat) -> NDArray[Any]:
    """Native bytes as unsigned samples or floating point values of the form's shape.

    4:2:2 data lie as Y1 Y2 CB CR for two pixels, which share the colour (PS3.3 C.7.6.3.1.2).
    """
    order = "<" if element.little_endian else ">"
    flat = data.view(f"{order}{'f' if form.floating else 'u'}{max(1, form.bits_allocated // 8)}")
    if size_in_bits(form) == flat.size * form.bits_allocated * 3 // 2 or form.samples == 1:
        return flat.reshape(form.shape)
    if flat.size == form.rows * form.columns * 2:
        if form.columns % 2:
            raise UnreadableDicom(
                Reason.IMPLAUSIBLE_HEADER, f"{form.photometric} of {form.columns} columns, an odd number"
            )
        two = flat.reshape(-1, 4)
        return two[:, [0, 2, 3, 1, 2, 3]].reshape(form.shape)
    if form.planar:
        return np.moveaxis(flat.reshape(form.samples, form.rows, form.columns), 0, -1)
    return flat.reshape(form.shape)


def stored_values(
    samples: NDArray[Any], precision: int, lossy: bool, form: PixelFormat, header: Dataset
) -> StoredValues:
    """Stored values of samples that carry ``precision`` bits; their dtype tells whether a sign was decoded.

    Raises:
        UnreadableDicom: VALUES_OUT_OF_RANGE.
    """
    signed = samples.dtype.kind == "i"
    values: StoredValues = samples.astype(np.int64 if form.bits_allocated > 16 else np.int32)
    if form.signed and not signed:
        values = _signed(values, precision)
    elif signed and not form.signed:
        values = values & ((1 << precision) - 1)
    if values.min() >= form.low and values.max() <= form.high:
        return values
    if lossy:
        return _clipped(values, form)
    if _overlays_are_embedded(header, form):
        return _lowest_bits(values, form)
    if form.signed and values.min() >= 0 and values.max() < 1 << form.bits_stored:
        return _signed(values, form.bits_stored)  # the writer left the bits above the sign at 0
    return _without_padding(values, form, header)


def _signed(values: StoredValues, bits: int) -> StoredValues:
    sign = 1 << (bits - 1)
    return ((values & ((1 << bits) - 1)) ^ sign) - sign


def _lowest_bits(values: StoredValues, form: PixelFormat) -> StoredValues:
    return _signed(values, form.bits_stored) if form.signed else values & form.high


def _clipped(values: StoredValues, form: PixelFormat) -> StoredValues:
    """Clipped: dropping the bits above BitsStored, as some readers do, would turn the brightest pixels black."""
    allowed = max(1, int(OVERSHOOT * (form.high - form.low)))
    if values.min() < form.low - allowed or values.max() > form.high + allowed:
        raise _out_of_range(values, form)
    return values.clip(form.low, form.high)


def _overlays_are_embedded(header: Dataset, form: PixelFormat) -> bool:
    """Old files keep overlay planes in the bits above BitsStored (retired; PS3.5 section 8.1.2 and PS3.3 C.9.2)."""
    positions = [header.get((0x6000 + 2 * plane, 0x0102)) for plane in range(16)]
    return any(position is not None and int(position.value or 0) >= form.bits_stored for position in positions)


def _without_padding(values: StoredValues, form: PixelFormat, header: Dataset) -> StoredValues:
    """PixelPaddingValue may be outside the measured range (PS3.3 C.7.5.1.1.2); such pixels get the lowest value."""
    outside = (values < form.low) | (values > form.high)
    limits = [header.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    given = [int(limit) for limit in limits if isinstance(limit, int)]
    if given:
        masks = [given, [_as_allocated(limit, form) for limit in given]]
        if any(((values[outside] >= min(ends)) & (values[outside] <= max(ends))).all() for ends in masks):
            return np.where(outside, form.low, values)
    raise _out_of_range(values, form)


def _as_allocated(value: int, form: PixelFormat) -> int:
    """The padding value in the samples' type: its VR may have the other sign."""
    sign = 1 << (form.bits_allocated - 1)
    low = value & ((1 << form.bits_allocated) - 1)
    return (low ^ sign) - sign if form.signed else low


def _out_of_range(values: StoredValues, form: PixelFormat) -> UnreadableDicom:
    return UnreadableDicom(
        Reason.VALUES_OUT_OF_RANGE,
        f"{values.min()} to {values.max()}; {form.bits_stored} bits stored express {form.low} to {form.high}",
    )
