"""Damage: bytes of headers, fragments and codestreams changed at random. A picture or a reason, never anything else.

Short by default. ``CONSILIUM_FUZZ_SECONDS=300`` goes on for that long, each example in a process that is watched.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.pixels.refusal import UnreadableDicom
from client.reading.decoding import Decoder
from client.reading.dicom import DicomImage, read_frame, read_header
from client.reading.slices import slices_of
from client.reading.stacks import arrange
from tasks.task import Picture
from tests.client.dicom_files import ROBUSTNESS, bundled, robustness_rows

SECONDS = float(os.environ.get("CONSILIUM_FUZZ_SECONDS", "0"))
NAMES = (
    "CT_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "JPEG-lossy.dcm",
    "image_dfl.dcm",
    "examples_palette.dcm",
    "liver_expb_1frame.dcm",
)
pytestmark = pytest.mark.filterwarnings("ignore")

_INTERESTING = st.sampled_from(
    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xd9", b"\xfe\xff\x0d\xe0", b"\xff\xff", b"\x7f"]
)
_CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.one_of(_INTERESTING, st.binary(min_size=1, max_size=4))), min_size=1, max_size=6
)


def _damaged(content: bytes, changes: list[tuple[float, bytes]], front: bool) -> bytes:
    """Bytes overwritten at places from 0 to 1 of the file, or of its first 3000 bytes, where the header is."""
    damaged = bytearray(content)
    length = min(len(content), 3000) if front else len(content)
    for place, piece in changes:
        start = int(place * (length - 1))
        damaged[start : start + len(piece)] = piece
    return bytes(damaged)


def _assert_picture_or_reason(path: Path) -> None:
    try:
        picture = read_frame(path)
    except UnreadableDicom:
        return
    assert picture.pixels.dtype == np.float32
    assert np.isfinite(picture.pixels).all()
    assert picture.pixels.min() >= 0
    assert picture.pixels.max() <= 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), changes=_CHANGES, front=st.booleans())
def test_changed_bytes(tmp_path: Path, name: str, changes: list[tuple[float, bytes]], front: bool) -> None:
    path = tmp_path / "damaged.dcm"
    path.write_bytes(_damaged(bundled(name).read_bytes(), changes, front))
    _assert_picture_or_reason(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)), copies=st.integers(0, 2))
def test_pieces_left_out_and_repeated(tmp_path: Path, name: str, cuts: tuple[float, float], copies: int) -> None:
    content = bundled(name).read_bytes()
    start, end = sorted(int(cut * len(content)) for cut in cuts)
    path = tmp_path / "damaged.dcm"
    path.write_bytes(content[:start] + content[start:end] * copies + content[end:])
    _assert_picture_or_reason(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), changes=_CHANGES)
def test_all_that_reads_a_damaged_header(tmp_path: Path, name: str, changes: list[tuple[float, bytes]]) -> None:
    path = tmp_path / "damaged.dcm"
    path.write_bytes(_damaged(bundled(name).read_bytes(), changes, front=True))
    try:
        header = read_header(path)
        arrange(slices_of(path, header))
        with DicomImage(path) as image:
            image.measured(0)
            image.picture(0)
    except UnreadableDicom:
        pass


@pytest.mark.skipif(not SECONDS, reason="set CONSILIUM_FUZZ_SECONDS to fuzz for that long")
def test_damage_for_as_long_as_was_asked(tmp_path: Path) -> None:
    rows = robustness_rows()
    sources = [ROBUSTNESS / row["file"] for row in rows if row["origin"] == "as_published"] or [
        bundled(n) for n in NAMES
    ]
    contents = [path.read_bytes() for path in sources if path.stat().st_size < 400_000]
    noise, found, end = np.random.default_rng(), Counter[str](), time.monotonic() + SECONDS
    path = tmp_path / "damaged.dcm"
    with Decoder(time_limit_s=20) as decoder:
        while time.monotonic() < end:
            content = contents[noise.integers(len(contents))]
            changes = [
                (float(noise.random()), noise.bytes(int(noise.integers(1, 5)))) for _ in range(noise.integers(1, 9))
            ]
            path.unlink(missing_ok=True)
            path.write_bytes(_damaged(content, changes, front=bool(noise.integers(2))))
            try:
                result: Picture | str = decoder.read(path)
            except UnreadableDicom as refusal:
                result = str(refusal.reason)
            found[result if isinstance(result, str) else "picture"] += 1
    print(dict(found))
    assert sum(found.values()) > SECONDS / 2
