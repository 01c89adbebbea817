"""The real set: every file with pixel data is right or refused by name, and decoders that know nothing of ours agree.

Where pydicom's plugins or gdcm on its own can decode a frame, the stored values must be the same to the last bit (lossy
JPEG within one level, for two inverse transforms may round differently).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import pixel_array

from client.pixels.codestream import JPEG_LOSSY
from client.pixels.header import transfer_syntax
from client.pixels.pixel_format import number_of_frames
from client.pixels.refusal import Reason, UnreadableDicom
from client.reading.decoding import Decoder
from client.reading.dicom import DicomImage, read_frame, read_header
from tasks.task import Picture
from tests.client.dicom_files import ROBUSTNESS, needs_robustness_set, robustness_rows

pytestmark = [needs_robustness_set, pytest.mark.filterwarnings("ignore")]
ROWS = robustness_rows()


def _paths() -> list[Path]:
    return [ROBUSTNESS / row["file"] for row in ROWS]


def _assert_is_a_picture(picture: Picture) -> None:
    assert picture.pixels.dtype == np.float32
    assert picture.pixels.ndim == 2
    assert np.isfinite(picture.pixels).all()
    assert picture.pixels.min() >= 0
    assert picture.pixels.max() <= 1


def _picture_or_reason(read: Callable[[Path], Picture], path: Path) -> Picture | UnreadableDicom:
    try:
        return read(path)
    except UnreadableDicom as refusal:
        return refusal


def test_every_file_gives_a_picture_or_a_reason_and_both_ways_agree() -> None:
    reasons: Counter[str] = Counter()
    with Decoder(time_limit_s=60) as decoder:
        for path in _paths():
            here, elsewhere = _picture_or_reason(read_frame, path), _picture_or_reason(decoder.read, path)
            if isinstance(here, UnreadableDicom) or isinstance(elsewhere, UnreadableDicom):
                assert str(here).split(":")[0] == str(elsewhere).split(":")[0], path
                reasons[str(here).split(":")[0]] += 1
                continue
            _assert_is_a_picture(here)
            np.testing.assert_array_equal(elsewhere.pixels, here.pixels)
            reasons["read"] += 1
    assert reasons["read"] > len(ROWS) / 2
    assert not {Reason.TIME_LIMIT, Reason.DECODER_DIED, Reason.MEMORY_LIMIT} & reasons.keys()


def test_what_other_decoders_decode_is_read_or_was_damaged() -> None:
    """Published files that pydicom can decode are refused only for what is wrong with them."""
    known = {
        "SC_rgb_jpeg.dcm": Reason.FRAGMENTS_MISMATCH,  # its fragments are a value of defined length
        "dtf__pydicom_SC_rgb_jpeg_lossy_gdcm.dcm": Reason.COLOUR_CONFLICT,  # YCbCr that the header calls RGB
    }
    refused = {}
    for row in ROWS:
        if row["origin"] == "as_published" and row["label"] == "decodes":
            try:
                read_frame(ROBUSTNESS / row["file"])
            except UnreadableDicom as refusal:
                refused[Path(row["file"]).name] = refusal.reason
    expected = {name: known[key] for name in refused for key in known if name.endswith(key)}
    assert refused == {**expected, **{n: r for n, r in refused.items() if r is Reason.CONSTANT_IMAGE}}


@pytest.mark.parametrize("row", ROWS, ids=[Path(row["file"]).name for row in ROWS])
def test_independent_decoders_agree(row: dict[str, str]) -> None:
    path = ROBUSTNESS / row["file"]
    try:
        image = DicomImage(path)
        frames = {index: image.stored(index) for index in sorted({0, image.form.frames // 2, image.form.frames - 1})}
    except UnreadableDicom as refusal:
        pytest.skip(str(refusal.reason))
    others = _by_pydicom(path, frames) + _by_gdcm(path, image)
    if not others:
        pytest.skip("no second decoder")
    allowed = 1 if transfer_syntax(image.header) in JPEG_LOSSY else 0
    for name, index, values in others:
        # Modulo the stored bits: gdcm alone does not extend the sign of JPEG-LS and of J2K_pixelrep_mismatch, and where
        # lossy coding overshoots BitsStored it drops the highest bit.
        period = 1 << image.form.bits_stored if not image.form.floating else np.inf
        apart = np.abs(values.astype(np.float64) - frames[index]) % period
        assert np.minimum(apart, period - apart).max() <= allowed, (name, index)


def _by_pydicom(path: Path, frames: dict[int, NDArray[Any]]) -> list[tuple[str, int, NDArray[Any]]]:
    found = []
    try:
        dataset = dcmread(path, force=True)
        plugins = get_decoder(dataset.file_meta.TransferSyntaxUID).available_plugins or ("",)
    except Exception:
        return []
    for plugin in plugins:
        for index in frames:
            values = _attempt(dataset, index, plugin)
            if values is not None:
                found.append((plugin or "pydicom", index, values))
    return found


def _attempt(dataset: Dataset, index: int, plugin: str) -> NDArray[Any] | None:
    try:
        return pixel_array(dataset, index=index, raw=True, decoding_plugin=plugin)
    except Exception:  # the second opinion is one that is not always given
        return None


def _by_gdcm(path: Path, image: DicomImage) -> list[tuple[str, int, NDArray[Any]]]:
    """gdcm's own file reader, which shares no line with pydicom: single grey frames of whole bytes."""
    if image.form.frames != 1 or image.form.samples != 1 or image.form.bits_allocated not in (8, 16):
        return []
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        return []
    told = reader.GetImage()
    depth = told.GetPixelFormat()
    if depth.GetBitsAllocated() != image.form.bits_allocated:
        return []
    kind = f"<{'i' if depth.GetPixelRepresentation() else 'u'}{depth.GetBitsAllocated() // 8}"
    buffer = told.GetBuffer()
    if buffer is None:
        return []
    values = np.frombuffer(buffer.encode("utf-8", "surrogateescape"), dtype=kind)
    return [("gdcm alone", 0, values.reshape(image.form.shape))]


def test_twins_in_other_encodings_are_equal() -> None:
    files = ROBUSTNESS / "files"
    twins = {
        "pydicomdata__emri_small": ("_RLE", "_big_endian", "_jpeg_2k_lossless_too_short", "_jpeg_ls_lossless"),
        "pydicomdata__liver": ("_deflate", "_expb", "_j2k", "_rle"),
        "pydicomdata__liver_nonbyte_aligned": ("_deflate", "_j2k", "_rle"),
    }
    compared = 0
    for stem, suffixes in twins.items():
        for suffix in suffixes:
            first, second = files / f"{stem}.dcm", files / f"{stem}{suffix}.dcm"
            if not (first.is_file() and second.is_file()):
                continue
            with DicomImage(first) as one, DicomImage(second) as other:
                for index in range(one.form.frames):
                    np.testing.assert_array_equal(one.stored(index), other.stored(index))
                    compared += 1
    assert compared


def test_every_header_is_read_or_refused_by_name() -> None:
    counted = 0
    for path in _paths():
        with suppress(UnreadableDicom):
            counted += number_of_frames(read_header(path)) >= 1
    assert counted > len(ROWS) / 2


def test_the_manifest_has_files() -> None:
    with (ROBUSTNESS / "manifest.csv").open(newline="", encoding="utf-8") as file:
        assert sum(1 for _ in csv.DictReader(file)) == len(ROWS) > 0
