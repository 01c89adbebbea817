"""Which bits are the value, and what of the others is forgiven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset

from client.pixels.pixel_format import PixelFormat
from client.pixels.refusal import Reason, UnreadableDicom
from client.pixels.stored import OVERSHOOT, stored_values
from client.reading.dicom import DicomImage
from tests.client.dicom_files import refused, write


def _form(bits_stored: int, signed: bool) -> PixelFormat:
    return PixelFormat(1, 3, 1, "MONOCHROME2", 16, bits_stored, signed, False, False, 1)


def _values(
    samples: list[int], kind: str, form: PixelFormat, precision: int, lossy: bool = False, **header: Any
) -> list[int]:
    dataset = Dataset()
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    array: NDArray[Any] = np.array([samples], dtype=kind)
    values: list[int] = stored_values(array, precision, lossy, form, dataset)[0].tolist()
    return values


@given(st.integers(2, 16), st.booleans(), st.data())
def test_values_survive_however_their_upper_bits_are_filled(bits: int, signed: bool, data: st.DataObject) -> None:
    form = _form(bits, signed)
    values = data.draw(st.lists(st.integers(form.low, form.high), min_size=3, max_size=3))
    extended = [value & 0xFFFF for value in values]
    assert _values(extended, "u2", form, 16) == values
    bare = [value & ((1 << bits) - 1) for value in values]
    assert _values(bare, "u2", form, bits) == values  # a codestream of that precision, which knows no sign
    assert _values(bare, "u2", form, 16) == values  # a writer that left the bits above the sign at 0


def test_a_sign_that_codestream_and_header_disagree_on_is_the_headers() -> None:
    assert _values([-1, 5, -2000], "i2", _form(13, False), 13) == [8191, 5, 6192]
    assert _values([8191, 5, 6192], "u2", _form(13, True), 13) == [-1, 5, -2000]


def test_lossy_overshoot_is_clipped_and_not_wrapped() -> None:
    form = _form(10, False)
    assert _values([1024, 0, 1023], "u2", form, 12, lossy=True) == [1023, 0, 1023]
    far = int(form.high * (1 + OVERSHOOT)) + 2
    with pytest.raises(UnreadableDicom, match="VALUES_OUT_OF_RANGE"):
        _values([far, 0, 5], "u2", form, 12, lossy=True)


def test_overlays_in_the_upper_bits_are_masked() -> None:
    samples, form = [0x8001, 0x0FFF, 0x4000], _form(12, False)
    with pytest.raises(UnreadableDicom, match="VALUES_OUT_OF_RANGE"):
        _values(samples, "u2", form, 16)
    header = Dataset()
    header.add_new(0x60000102, "US", 15)
    values = stored_values(np.array([samples], dtype="u2"), 16, False, form, header)
    np.testing.assert_array_equal(values, [[1, 0xFFF, 0]])


def test_padding_outside_the_range_becomes_the_lowest_value() -> None:
    form = _form(12, False)
    assert _values([0xF830, 7, 9], "u2", form, 16, PixelPaddingValue=0xF830) == [0, 7, 9]
    assert _values([0xF830, 7, 9], "u2", form, 16, PixelPaddingValue=-2000) == [0, 7, 9]
    both = {"PixelPaddingValue": 0xF000, "PixelPaddingRangeLimit": 0xFF00}
    assert _values([0xF830, 7, 9], "u2", form, 16, **both) == [0, 7, 9]
    with pytest.raises(UnreadableDicom, match="VALUES_OUT_OF_RANGE"):
        _values([0xF830, 0x8000, 9], "u2", form, 16, PixelPaddingValue=0xF830)


def test_a_damaged_value_of_a_real_file_is_noticed(tmp_path: Path) -> None:
    stored = np.arange(12, dtype=np.uint16).reshape(3, 4)
    stored[1, 1] |= 0x4000
    assert refused(write(tmp_path / "a.dcm", stored, BitsStored=12)) is Reason.VALUES_OUT_OF_RANGE
    with DicomImage(write(tmp_path / "b.dcm", stored, BitsStored=15)) as image:
        np.testing.assert_array_equal(image.stored(0), stored)
