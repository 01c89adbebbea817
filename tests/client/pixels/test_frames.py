"""Where frames lie: offset tables that are there, missing, wrong or lying."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from client.pixels.codecs import DEFLATED_FRAMES, ENCAPSULATED_UNCOMPRESSED
from client.pixels.refusal import Reason
from client.reading.dicom import DicomImage
from tests.client.dicom_files import ENCODERS, refused, write

FRAMES = [np.arange(33 * 34, dtype=np.uint16).reshape(33, 34) + 500 * n for n in range(4)]
STREAMS = [ENCODERS[JPEGLSLossless](frame) for frame in FRAMES]


def _written(path: Path, data: bytes, **attributes: object) -> Path:
    return write(path, FRAMES[0], data, JPEGLSLossless, **({"NumberOfFrames": 4} | attributes))


def _native_framed(path: Path, frames: list[bytes], syntax: str, **attributes: object) -> Path:
    """pydicom 3.0 does not know Deflated Image Frame Compression, so its UID is put in afterwards."""
    write(path, FRAMES[0], encapsulate(frames), JPEGLSLossless, **attributes)
    path.write_bytes(path.read_bytes().replace(JPEGLSLossless.encode(), syntax.encode().ljust(22, b"\0")))
    return path


def _assert_all_there(path: Path) -> None:
    with DicomImage(path) as image:
        for index in (2, 0, 3, 1):
            np.testing.assert_array_equal(image.stored(index), FRAMES[index])


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("fragments", [1, 3])
def test_frames_of_one_and_of_many_fragments(tmp_path: Path, table: bool, fragments: int) -> None:
    data = encapsulate(STREAMS, fragments_per_frame=fragments, has_bot=table)
    _assert_all_there(_written(tmp_path / "a.dcm", data))


def test_a_wrong_basic_table_yields_to_the_codestreams(tmp_path: Path) -> None:
    good = bytearray(encapsulate(STREAMS, fragments_per_frame=3))
    good[12:16] = (7).to_bytes(4, "little")
    _assert_all_there(_written(tmp_path / "a.dcm", bytes(good)))


def test_the_extended_table_is_believed_or_refused(tmp_path: Path) -> None:
    data, offsets, lengths = encapsulate_extended(STREAMS)
    tables = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    _assert_all_there(_written(tmp_path / "a.dcm", data, **tables))
    lying = offsets[:8] + struct.pack("<Q", 1 << 40) + offsets[16:]
    path = _written(tmp_path / "b.dcm", data, **(tables | {"ExtendedOffsetTable": lying}))
    assert refused(path) is Reason.FRAGMENTS_MISMATCH
    path = _written(tmp_path / "c.dcm", data, **(tables | {"ExtendedOffsetTableLengths": lengths[:-8]}))
    assert refused(path) is Reason.FRAGMENTS_MISMATCH


@pytest.mark.parametrize("frames", [2, 3, 5, 1000])
def test_another_number_of_frames_is_refused(tmp_path: Path, frames: int) -> None:
    data = encapsulate(STREAMS, has_bot=False)
    assert refused(_written(tmp_path / "a.dcm", data, NumberOfFrames=frames)) is Reason.FRAGMENTS_MISMATCH


def test_fragments_that_end_early_or_are_none(tmp_path: Path) -> None:
    data = encapsulate(STREAMS)
    path = _written(tmp_path / "a.dcm", data)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])  # without the delimiter all frames are still there
    _assert_all_there(path)
    path.write_bytes(whole[:-100])
    assert refused(path) is Reason.TRUNCATED
    path.write_bytes(whole.replace(b"\xfe\xff\x00\xe0", b"\xfe\xff\x07\xe0"))
    assert refused(path) is Reason.FRAGMENTS_MISMATCH
    table_only = data[: 8 + 4 * len(STREAMS)]
    assert refused(_written(tmp_path / "b.dcm", table_only)) is Reason.TRUNCATED


def test_compressed_data_of_a_defined_length_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.dcm", encapsulate(STREAMS))
    dataset = dcmread(path)
    dataset["PixelData"].is_undefined_length = False
    content = path.read_bytes()
    at = content.rindex(b"\xe0\x7f\x10\x00OB\0\0")
    path.write_bytes(content[: at + 8] + (100).to_bytes(4, "little") + content[at + 12 :])
    assert refused(path) is Reason.FRAGMENTS_MISMATCH


@pytest.mark.parametrize("syntax", [ENCAPSULATED_UNCOMPRESSED, DEFLATED_FRAMES])
def test_native_frames_in_fragments(tmp_path: Path, syntax: str) -> None:
    import zlib

    def packed(frame: bytes) -> bytes:
        stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return frame if syntax == ENCAPSULATED_UNCOMPRESSED else stream.compress(frame) + stream.flush()

    def path(name: str, frames: list[bytes]) -> Path:
        return _native_framed(tmp_path / name, [packed(frame) for frame in frames], syntax, NumberOfFrames=4)

    _assert_all_there(path("a.dcm", [frame.tobytes() for frame in FRAMES]))
    assert refused(path("b.dcm", [frame.tobytes()[:-2] for frame in FRAMES])) is Reason.TRUNCATED
    long = path("c.dcm", [frame.tobytes() + bytes(4) for frame in FRAMES])
    assert refused(long) in (Reason.LENGTH_MISMATCH, Reason.TOO_LARGE)


@pytest.mark.parametrize("syntax", [RLELossless, DEFLATED_FRAMES])
def test_single_bits_begin_on_a_byte_in_every_compressed_frame(tmp_path: Path, syntax: str) -> None:
    import zlib

    from rle.rle import encode_segment

    bits = np.random.default_rng(5).integers(0, 2, (2, 5, 7), dtype=np.uint8)
    frames = []
    for frame in bits:
        packed = np.packbits(frame.reshape(-1), bitorder="little").tobytes()
        stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        header = struct.pack("<16L", 1, 64, *[0] * 14)
        rle = header + bytes(encode_segment(packed, len(packed)))
        frames.append(rle if syntax == RLELossless else stream.compress(packed) + stream.flush())
    attributes = {"BitsAllocated": 1, "BitsStored": 1, "NumberOfFrames": 2}
    path = _native_framed(tmp_path / "a.dcm", frames, syntax, Rows=5, Columns=7, **attributes)
    with DicomImage(path) as image:
        for index in range(2):
            np.testing.assert_array_equal(image.stored(index), bits[index])


def test_jpeg_2000_frames_are_told_apart_by_their_start(tmp_path: Path) -> None:
    streams = [ENCODERS[JPEG2000Lossless](frame) for frame in FRAMES]
    data = encapsulate(streams, fragments_per_frame=2, has_bot=False)
    _assert_all_there(write(tmp_path / "a.dcm", FRAMES[0], data, JPEG2000Lossless, NumberOfFrames=4))
