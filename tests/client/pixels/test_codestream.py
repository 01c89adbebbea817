"""A compressed image's own header: read rightly, and compared with the data set's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLossless, JPEGLSLossless, RLELossless

from client.pixels.codestream import read_codestream
from client.pixels.pixel_format import PixelFormat
from client.pixels.refusal import Reason
from client.reading.dicom import read_frame
from tests.client.dicom_files import ENCODERS, jpeg, refused, write, write_compressed

GREY = np.arange(40 * 33, dtype=np.uint8).reshape(40, 33)
SYNTAXES = (JPEG2000Lossless, JPEGLSLossless, RLELossless, JPEGBaseline8Bit)


def _form(**changes: Any) -> PixelFormat:
    form: dict[str, Any] = {
        "rows": 40,
        "columns": 33,
        "samples": 1,
        "photometric": "MONOCHROME2",
        "bits_allocated": 8,
        "bits_stored": 8,
        "signed": False,
        "floating": False,
        "planar": False,
        "frames": 1,
    }
    return PixelFormat(**(form | changes))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_size_and_depth_are_read(syntax: UID) -> None:
    stream = read_codestream(ENCODERS[syntax](GREY), syntax, _form())
    assert (stream.rows, stream.columns, stream.components, stream.precision) == (40, 33, 1, 8)
    assert (stream.lossless is False) == (syntax == JPEGBaseline8Bit)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGBaseline8Bit])
@pytest.mark.parametrize("attributes", [{"Rows": 41}, {"Columns": 40, "Rows": 33}, {"Rows": 20}])
def test_another_size_than_the_headers_is_refused(tmp_path: Path, syntax: UID, attributes: dict[str, int]) -> None:
    path = write_compressed(tmp_path / "a.dcm", [GREY], syntax, **attributes)
    assert refused(path) is Reason.CODESTREAM_MISMATCH


def test_another_depth_or_number_of_components_is_refused(tmp_path: Path) -> None:
    deep = ENCODERS[JPEG2000Lossless](GREY.astype(np.uint16) * 200)
    path = write(tmp_path / "a.dcm", GREY, encapsulate([deep]), JPEG2000Lossless)
    assert refused(path) is Reason.CODESTREAM_MISMATCH
    grey = encapsulate([jpeg(GREY)])
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    assert refused(write(tmp_path / "b.dcm", GREY, grey, JPEGBaseline8Bit, **colour)) is Reason.CODESTREAM_MISMATCH
    scaled = {"BitsAllocated": 16, "BitsStored": 12}  # 8 lossy bits cannot be 12 measured ones
    assert refused(write(tmp_path / "c.dcm", GREY, grey, JPEGBaseline8Bit, **scaled)) is Reason.CODESTREAM_MISMATCH


def test_lossy_coding_under_a_lossless_name_is_refused(tmp_path: Path) -> None:
    import jpeg_ls

    near = bytes(jpeg_ls.encode_array(GREY, lossy_error=3))
    assert refused(write(tmp_path / "a.dcm", GREY, encapsulate([near]), JPEGLSLossless)) is Reason.CODESTREAM_MISMATCH
    data = encapsulate([jpeg(GREY)])
    assert refused(write(tmp_path / "b.dcm", GREY, data, JPEGLossless)) is Reason.CODESTREAM_MISMATCH
    assert refused(write(tmp_path / "c.dcm", GREY, data, JPEG2000Lossless)) is Reason.CODESTREAM_MISMATCH


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.97])
def test_a_codestream_that_was_cut_is_refused(tmp_path: Path, syntax: UID, part: float) -> None:
    whole = ENCODERS[syntax](np.random.default_rng(4).integers(0, 256, GREY.shape, dtype=np.uint8))
    path = write(tmp_path / "a.dcm", GREY, encapsulate([whole[: int(part * len(whole))]]), syntax)
    assert refused(path) in (Reason.TRUNCATED, Reason.DECODE_FAILED)


def test_padding_after_and_before_the_end_is_forgiven(tmp_path: Path) -> None:
    whole = ENCODERS[JPEGLSLossless](GREY)
    for number, data in enumerate((whole + b"\0", whole + b"\0\0\0", whole[:-2] + b"\0" + whole[-2:])):
        path = write(tmp_path / f"{number}.dcm", GREY, encapsulate([data]), JPEGLSLossless)
        np.testing.assert_allclose(read_frame(path).pixels * 255, GREY, atol=1e-4)


def _rle_header(change: Callable[[bytearray], None]) -> bytes:
    data = bytearray(ENCODERS[RLELossless](GREY))
    change(data)
    return bytes(data)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, 2, Reason.CODESTREAM_MISMATCH),
        (4, 65, Reason.CODESTREAM_MISMATCH),
        (0, 0, Reason.CODESTREAM_MISMATCH),
    ],
)
def test_rle_segments_are_where_they_must_be(tmp_path: Path, offset: int, value: int, reason: Reason) -> None:
    data = _rle_header(lambda content: content.__setitem__(offset, value))
    assert refused(write(tmp_path / "a.dcm", GREY, encapsulate([data]), RLELossless)) is reason
