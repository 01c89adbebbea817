"""The reader: right grey values from good files, one error with a reason from all others."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import ExplicitVRLittleEndian

import client.dicom
from client.dicom import Reason, UnreadableDicom, number_of_frames, read_frame, read_header
from tasks.task import Picture

DATA = Path(os.environ.get("CONSILIUM_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
ROBUSTNESS = DATA / "dicom_robustness" / "manifest.csv"


def _bundled(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom does not bring {name} along")
    assert isinstance(path, str)
    return Path(path)


def _decodable(path: Path) -> Path:
    if not get_decoder(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID).is_available:
        pytest.skip(f"no decoder for {path.name} is installed")
    return path


def _written(path: Path, stored: NDArray[np.generic], **attributes: object) -> Path:
    """A small Secondary Capture file with these stored values; attributes replace the defaults."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    defaults = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
        "SOPInstanceUID": "1.2.3",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "SamplesPerPixel": 1 if stored.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2" if stored.ndim == 2 else "RGB",
        "BitsAllocated": stored.dtype.itemsize * 8,
        "BitsStored": stored.dtype.itemsize * 8,
        "HighBit": stored.dtype.itemsize * 8 - 1,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
    } | ({"PlanarConfiguration": 0} if stored.ndim == 3 else {})
    for keyword, value in (defaults | attributes).items():
        setattr(dataset, keyword, value)
    dataset.PixelData = stored.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def _refused(path: Path, index: int = 0) -> Reason:
    with pytest.raises(UnreadableDicom) as refusal:
        read_frame(path, index)
    return refusal.value.reason


def _assert_is_a_picture(picture: Picture) -> None:
    assert picture.pixels.dtype == np.float32
    assert picture.pixels.ndim == 2
    assert np.isfinite(picture.pixels).all()
    assert picture.pixels.min() >= 0
    assert picture.pixels.max() <= 1


RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300


def test_grey_values_span_the_stored_bits(tmp_path: Path) -> None:
    picture = read_frame(_written(tmp_path / "a.dcm", RAMP, BitsStored=12, HighBit=11))
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=1e-6)
    signed = RAMP.astype(np.int16) - 2000
    picture = read_frame(_written(tmp_path / "b.dcm", signed, BitsStored=12, HighBit=11))
    np.testing.assert_allclose(picture.pixels, (signed + 2048.0) / 4095, atol=1e-6)


def test_rescale_moves_the_range_along_and_a_negative_slope_turns_it(tmp_path: Path) -> None:
    plain = read_frame(_written(tmp_path / "a.dcm", RAMP)).pixels
    moved = read_frame(_written(tmp_path / "b.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-1024)).pixels
    turned = read_frame(_written(tmp_path / "c.dcm", RAMP, RescaleSlope=-1, RescaleIntercept=65535)).pixels
    np.testing.assert_array_equal(moved, plain)
    np.testing.assert_allclose(turned, 1 - plain, atol=1e-6)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    plain = read_frame(_written(tmp_path / "a.dcm", RAMP)).pixels
    inverted = read_frame(_written(tmp_path / "b.dcm", RAMP, PhotometricInterpretation="MONOCHROME1")).pixels
    np.testing.assert_allclose(inverted, 1 - plain, atol=1e-6)


def test_a_modality_lut_is_applied(tmp_path: Path) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [4, 0, 16], "US"
    lut.add_new("LUTData", "US", [0, 65535, 100, 30000])
    stored = np.array([[0, 1], [2, 9]], dtype=np.uint16)
    picture = read_frame(_written(tmp_path / "a.dcm", stored, ModalityLUTSequence=[lut]))
    np.testing.assert_allclose(picture.pixels * 65535, [[0, 65535], [100, 30000]], atol=0.01)


def test_colour_becomes_luma(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    picture = read_frame(_written(tmp_path / "a.dcm", colours))
    np.testing.assert_allclose(picture.pixels, [[0.299, 0.587], [0.114, 1.0]], atol=1e-6)


def test_ultrasound_regions_become_boxes_and_spacing(tmp_path: Path) -> None:
    region = Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 1, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 3, 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.01, 0.02
    picture = read_frame(_written(tmp_path / "a.dcm", RAMP, SequenceOfUltrasoundRegions=[region]))
    assert picture.regions == ((1, 0, 4, 2),)
    assert picture.spacing_mm == pytest.approx((0.2, 0.1))


def test_a_spacing_given_directly_is_taken(tmp_path: Path) -> None:
    assert read_frame(_written(tmp_path / "a.dcm", RAMP, PixelSpacing=[0.5, 0.25])).spacing_mm == (0.5, 0.25)
    assert read_frame(_written(tmp_path / "b.dcm", RAMP, ImagerPixelSpacing=[0.1, 0.2])).spacing_mm == (0.1, 0.2)
    assert read_frame(_written(tmp_path / "c.dcm", RAMP)).spacing_mm is None


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "ExplVR_BigEnd.dcm",
        "examples_palette.dcm",
        "examples_rgb_color.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "image_dfl.dcm",
        "SC_rgb_rle_16bit_2frame.dcm",
        "JPEG2000.dcm",
        "examples_ybr_color.dcm",
    ],
)
def test_bundled_files_of_all_kinds_give_pictures(name: str) -> None:
    path = _decodable(_bundled(name))
    for index in range(min(2, number_of_frames(read_header(path)))):
        _assert_is_a_picture(read_frame(path, index))


def test_compression_changes_nothing() -> None:
    plain = read_frame(_bundled("MR_small.dcm"))
    for name in ("MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"):
        np.testing.assert_array_equal(read_frame(_bundled(name)).pixels, plain.pixels)
    packed = read_frame(_decodable(_bundled("MR_small_jp2klossless.dcm")))
    np.testing.assert_array_equal(packed.pixels, plain.pixels)


def test_frames_of_a_multi_frame_file_are_read_one_at_a_time() -> None:
    path = _bundled("rtdose.dcm")
    frames = number_of_frames(read_header(path))
    assert frames == 15
    assert not np.array_equal(read_frame(path, 0).pixels, read_frame(path, frames - 1).pixels)
    assert _refused(path, frames) is Reason.IMPLAUSIBLE_HEADER


def test_what_is_no_picture_is_refused_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("no DICOM")
    (tmp_path / "empty").write_bytes(b"")
    assert _refused(tmp_path / "text") is _refused(tmp_path / "empty") is Reason.NOT_DICOM
    assert _refused(_bundled("rtplan.dcm")) is Reason.NO_PIXEL_DATA
    assert _refused(_bundled("MR_truncated.dcm")) is Reason.DECODE_FAILED
    assert _refused(_bundled("meta_missing_tsyntax.dcm")) is Reason.IMPLAUSIBLE_HEADER
    assert _refused(_written(tmp_path / "flat.dcm", RAMP * 0)) is Reason.CONSTANT_IMAGE
    odd = _written(tmp_path / "odd.dcm", RAMP, PhotometricInterpretation="ULTRAVIOLET")
    assert _refused(odd) in (Reason.UNSUPPORTED_PHOTOMETRIC, Reason.DECODE_FAILED)
    monkeypatch.setattr(client.dicom, "MAX_PIXELS", 11)
    assert _refused(_written(tmp_path / "large.dcm", RAMP)) is Reason.TOO_LARGE


def test_a_compression_that_no_decoder_knows_is_told_from_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.dicom, "get_decoder", _raises(NotImplementedError("unknown")))
    assert _refused(_bundled("CT_small.dcm")) is Reason.UNSUPPORTED_TRANSFER_SYNTAX


def test_headers_without_an_image_are_refused_early() -> None:
    with pytest.raises(UnreadableDicom, match="NO_PIXEL_DATA"):
        read_header(_bundled("rtplan.dcm"))
    assert "PixelData" not in read_header(_bundled("CT_small.dcm"))


class _Panic(BaseException):
    """What pyo3 makes of a Rust panic: no Exception, and it cannot be imported to be caught by name."""


def _raises(error: BaseException) -> Callable[..., object]:
    def decode(*_: object, **__: object) -> object:
        raise error

    return decode


def test_a_decoders_panic_is_a_refusal_but_the_operators_interrupt_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    path = _bundled("CT_small.dcm")
    for error in (_Panic("index out of bounds"), MemoryError(), RecursionError()):
        monkeypatch.setattr(client.dicom, "pixel_array", _raises(error))
        assert _refused(path) is Reason.DECODE_FAILED
    for stop in (KeyboardInterrupt(), SystemExit(1), GeneratorExit()):
        monkeypatch.setattr(client.dicom, "pixel_array", _raises(stop))
        with pytest.raises(type(stop)):
            read_frame(path)


def test_a_file_cut_anywhere_gives_a_picture_or_a_reason(tmp_path: Path) -> None:
    whole = _bundled("SC_rgb_rle.dcm").read_bytes()
    for end in range(0, len(whole), max(1, len(whole) // 60)):
        cut = tmp_path / "cut.dcm"
        cut.write_bytes(whole[:end])
        _assert_picture_or_reason(cut)


@pytest.mark.skipif(not ROBUSTNESS.is_file(), reason="no dicom_robustness/manifest.csv; set CONSILIUM_TEST_DATA")
@pytest.mark.filterwarnings("ignore")
def test_every_file_of_the_robustness_set_gives_a_picture_or_a_reason() -> None:
    with ROBUSTNESS.open(newline="", encoding="utf-8") as file:
        paths = [ROBUSTNESS.parent / row["file"] for row in csv.DictReader(file)]
    assert paths
    assert sum(_assert_picture_or_reason(path) for path in paths) > len(paths) / 3


def _assert_picture_or_reason(path: Path) -> bool:
    try:
        middle = number_of_frames(read_header(path)) // 2
        _assert_is_a_picture(read_frame(path, middle))
    except UnreadableDicom:
        return False
    return True
