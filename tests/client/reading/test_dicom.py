"""The reader: right values from good files in every encoding, one error with a reason from all others."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

import client.pixels.codecs
import client.pixels.pixel_format
from client.pixels.pixel_format import number_of_frames
from client.pixels.refusal import Reason, UnreadableDicom
from client.reading.dicom import DicomImage, FrameReader, read_frame, read_header, read_values
from tests.client.dicom_files import (
    ROBUSTNESS,
    bundled,
    edited,
    jpeg,
    needs_robustness_set,
    read_colour,
    refused,
    write,
    write_compressed,
)

RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300
LARGE = np.arange(33 * 34, dtype=np.uint16).reshape(33, 34)
LOSSLESS = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
COMPRESSED = (JPEG2000Lossless, JPEGLSLossless, RLELossless)


def _stored(path: Path, index: int = 0) -> NDArray[Any]:
    with DicomImage(path) as image:
        return image.stored(index)


def test_grey_values_span_the_stored_bits(tmp_path: Path) -> None:
    picture = read_frame(write(tmp_path / "a.dcm", RAMP, BitsStored=12))
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=1e-6)
    assert picture.pixels.dtype == np.float32
    signed = RAMP.astype(np.int16) - 2000
    picture = read_frame(write(tmp_path / "b.dcm", signed, BitsStored=12))
    np.testing.assert_allclose(picture.pixels, (signed + 2048.0) / 4095, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), syntax=st.sampled_from([*LOSSLESS, *COMPRESSED]))
def test_every_lossless_encoding_gives_back_what_was_stored(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, syntax: UID
) -> None:
    kinds = ["u1", "u2", "i2", "u4", "i4"] if syntax in LOSSLESS else ["u1", "u2", "i2"]
    least = 1 if syntax in LOSSLESS else 32  # openjpeg's encoder wants as many pixels as it has wavelet levels
    shape = data.draw(st.tuples(st.integers(least, least + 8), st.integers(least, least + 8)))
    kind = np.dtype(data.draw(st.sampled_from(kinds)))
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    stored = noise.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)
    path = tmp_path_factory.mktemp("d") / "a.dcm"
    if syntax in LOSSLESS:
        write(path, stored, syntax=syntax)
    else:
        write_compressed(path, [stored], syntax)
    np.testing.assert_array_equal(_stored(path), stored)
    np.testing.assert_array_equal(read_values(path).values, stored.astype(np.float64))


@pytest.mark.parametrize("syntax", [*LOSSLESS, *COMPRESSED])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_colour_is_the_same_in_every_encoding(tmp_path: Path, syntax: UID, kind: str) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (33, 34, 3)).astype(kind) * (257 if kind == "u2" else 1)
    path = tmp_path / "a.dcm"
    if syntax in LOSSLESS:
        write(path, colours, syntax=syntax)
    else:
        write_compressed(path, [colours], syntax)
    np.testing.assert_allclose(read_colour(path), colours / np.iinfo(colours.dtype).max, atol=1e-6)


def test_colour_by_plane_is_colour_by_pixel(tmp_path: Path) -> None:
    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    planes = np.ascontiguousarray(np.moveaxis(colours, -1, 0))
    path = write(tmp_path / "a.dcm", colours, planes.tobytes(), PlanarConfiguration=1)
    np.testing.assert_array_equal(_stored(path), colours)


def test_single_bits_are_packed_across_frames(tmp_path: Path) -> None:
    bits = np.random.default_rng(1).integers(0, 2, (3, 3, 5), dtype=np.uint8)
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    path = write(tmp_path / "a.dcm", bits[0], packed, BitsAllocated=1, BitsStored=1, NumberOfFrames=3)
    for index in range(3):
        np.testing.assert_array_equal(_stored(path, index), bits[index])


def test_bytes_in_big_endian_words_are_swapped(tmp_path: Path) -> None:
    stored = np.arange(30, dtype=np.uint8).reshape(2, 3, 5)
    flat = stored.reshape(-1, 2)[:, ::-1].tobytes()
    path = write(tmp_path / "a.dcm", stored[0], flat, ExplicitVRBigEndian, NumberOfFrames=2)
    dataset = dcmread(path)
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path)
    for index in range(2):
        np.testing.assert_array_equal(_stored(path, index), stored[index])


@pytest.mark.parametrize(("keyword", "kind"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_floating_point_values_stay_what_they_are(tmp_path: Path, keyword: str, kind: str) -> None:
    values = np.array([[-1.5, 0.0], [2.25, 1e30]], dtype=kind)
    path = write(tmp_path / "a.dcm", values, BitsStored=None, PixelRepresentation=None)
    dataset = dcmread(path)
    del dataset.PixelData
    setattr(dataset, keyword, values.tobytes())
    dataset.save_as(path)
    found = read_values(path).values
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.dtype(kind)
    assert read_frame(path).pixels.max() == 1
    setattr(dataset, keyword, np.array([1, np.nan, 2, 3], dtype=kind).tobytes())
    dataset.save_as(path)
    assert refused(path) is Reason.VALUES_OUT_OF_RANGE


def test_deflated_data_sets_are_inflated_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.dcm", RAMP)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    np.testing.assert_array_equal(_stored(path), RAMP)
    assert read_header(path).file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    monkeypatch.setattr("client.pixels.header.MAX_INFLATED", 100)
    assert refused(path) is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "names",
    [
        ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"),
        ("SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_gdcm_KY.dcm"),
        ("liver_1frame.dcm", "liver_expb_1frame.dcm"),
    ],
)
def test_real_twins_in_other_encodings_are_equal(names: tuple[str, ...]) -> None:
    first = _stored(bundled(names[0]))
    for name in names[1:]:
        np.testing.assert_array_equal(_stored(bundled(name)), first)


def test_twelve_bit_jpeg_is_read() -> None:
    """Values as dcmtk 3.6.7 and libjpeg-turbo 3 (in imagecodecs) give them; pydicom's decoders refuse the file."""
    stored = _stored(bundled("JPEG-lossy.dcm"))
    assert stored.shape == (1024, 256)
    assert (stored.min(), stored.max()) == (0, 264)


# Photometric interpretations.


def test_monochrome1_is_inverted_as_a_picture_and_not_as_a_measurement(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.dcm", RAMP)
    inverted = write(tmp_path / "b.dcm", RAMP, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read_frame(inverted).pixels, 1 - read_frame(plain).pixels, atol=1e-6)
    np.testing.assert_array_equal(read_values(inverted).values, RAMP)


def test_colour_becomes_luma_and_stays_colour(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    path = write(tmp_path / "a.dcm", colours)
    np.testing.assert_allclose(read_frame(path).pixels, [[0.299, 0.587], [0.114, 1.0]], atol=1e-6)
    np.testing.assert_allclose(read_colour(path), colours / 255, atol=1e-6)


def _ybr(colours: NDArray[np.float64], partial: bool) -> NDArray[np.uint8]:
    """The equations of PS3.3 C.7.6.3.1.2, for RGB from 0 to 255."""
    full = [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]]
    part = [[0.2568, 0.5041, 0.0979], [-0.1482, -0.2910, 0.4392], [0.4392, -0.3678, -0.0714]]
    offset = [16, 128, 128] if partial else [0, 128, 128]
    ybr: NDArray[np.uint8] = np.rint(colours @ np.array(part if partial else full).T + offset).clip(0, 255).astype("u1")
    return ybr


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422"])
def test_ybr_becomes_rgb_as_the_standard_says(tmp_path: Path, photometric: str) -> None:
    colours = np.random.default_rng(2).integers(40, 216, (4, 1, 3)).astype(float).repeat(6, axis=1)
    ybr = _ybr(colours, partial="PARTIAL" in photometric)
    data = ybr.tobytes()
    if photometric.endswith("422"):
        pairs = ybr.reshape(-1, 2, 3)
        data = np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=-1).tobytes()
    path = write(tmp_path / "a.dcm", ybr, data, PhotometricInterpretation=photometric)
    np.testing.assert_allclose(read_colour(path) * 255, colours, atol=1.6)
    np.testing.assert_allclose(read_frame(path).pixels * 255, colours @ [0.299, 0.587, 0.114], atol=1.1)


def test_a_jpeg_is_taken_at_its_own_word_on_colour(tmp_path: Path) -> None:
    colours = np.full((16, 16, 3), (200, 60, 30), dtype=np.uint8)
    colours[8:] = (20, 90, 180)
    for number, photometric in enumerate(("YBR_FULL_422", "YBR_FULL", "RGB")):  # JFIF says YCbCr, whatever the header
        path = tmp_path / f"{number}.dcm"
        write(path, colours, encapsulate([jpeg(colours)]), JPEGBaseline8Bit, PhotometricInterpretation=photometric)
        np.testing.assert_allclose(read_colour(path) * 255, colours, atol=4)
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # APP14 with transform 0: the components are RGB
    jfif = jpeg(colours)
    plain = jfif[:2] + adobe + jfif[20:]
    assert jfif[2:4] == b"\xff\xe0"
    path = write(tmp_path / "rgb.dcm", colours, encapsulate([plain]), JPEGBaseline8Bit)
    with DicomImage(path) as image:
        ybr = _ybr(colours.astype(float), partial=False)
        np.testing.assert_allclose(image.stored(0), ybr, atol=4)  # coded as YCbCr, declared RGB: nothing is converted
    np.testing.assert_allclose(read_colour(path) * 255, ybr, atol=4)


def test_a_colour_that_neither_header_nor_codestream_settles_is_refused(tmp_path: Path) -> None:
    colours = np.zeros((32, 32, 3), dtype=np.uint8)
    colours[:8] = 200
    halved = jpeg(colours).replace(b"\x01\x11\x00", b"\x01\x22\x00", 1)
    no_jfif = halved[:2] + halved[20:]
    path = write(tmp_path / "a.dcm", colours, encapsulate([no_jfif]), JPEGBaseline8Bit)
    assert refused(path) in (Reason.COLOUR_CONFLICT, Reason.DECODE_FAILED)
    ict = write_compressed(tmp_path / "b.dcm", [colours], JPEG2000Lossless, PhotometricInterpretation="YBR_RCT")
    assert refused(ict) is Reason.COLOUR_CONFLICT


# What was measured.


def test_rescale_moves_the_range_along_and_a_negative_slope_turns_it(tmp_path: Path) -> None:
    plain = read_frame(write(tmp_path / "a.dcm", RAMP)).pixels
    moved = read_frame(write(tmp_path / "b.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-1024)).pixels
    turned = read_frame(write(tmp_path / "c.dcm", RAMP, RescaleSlope=-1, RescaleIntercept=65535)).pixels
    np.testing.assert_array_equal(moved, plain)
    np.testing.assert_allclose(turned, 1 - plain, atol=1e-6)


def test_measured_values_are_the_output_of_the_modality_lut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP, RescaleSlope=0.5, RescaleIntercept=-1024, SOPClassUID=CTImageStorage)
    found = read_values(path)
    np.testing.assert_array_equal(found.values, RAMP * 0.5 - 1024)
    assert (found.unit, found.values.dtype) == ("HU", np.float32)
    large = np.array([[0, 2**31 + 1]], dtype=np.uint32)
    dose = write(tmp_path / "b.dcm", large, Modality="RTDOSE", DoseGridScaling="1e-3", DoseUnits="GY")
    np.testing.assert_array_equal(read_values(dose).values, large * 1e-3)
    assert read_values(dose).unit == "GY"
    assert refused_values(write(tmp_path / "c.dcm", np.ones((2, 2, 3), np.uint8))) is Reason.UNSUPPORTED_PHOTOMETRIC
    assert refused_values(write(tmp_path / "d.dcm", RAMP, RescaleSlope=0)) is Reason.IMPLAUSIBLE_HEADER


def refused_values(path: Path) -> Reason:
    with pytest.raises(UnreadableDicom) as refusal:
        read_values(path)
    return refusal.value.reason


def _with(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_functional_groups_count_frame_by_frame_and_windows_are_only_told(tmp_path: Path) -> None:
    def group(slope: float, centre: float) -> Dataset:
        return _with(
            PixelValueTransformationSequence=[_with(RescaleSlope=slope, RescaleIntercept=-1000, RescaleType="HU")],
            FrameVOILUTSequence=[_with(WindowCenter=centre, WindowWidth=[400], VOILUTFunction="SIGMOID")],
        )

    shared = _with(PixelMeasuresSequence=[_with(PixelSpacing=[0.5, 0.25])])
    path = write(
        tmp_path / "a.dcm",
        RAMP,
        np.stack([RAMP, RAMP]).tobytes(),
        NumberOfFrames=2,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[group(1, 40), group(2, 50)],
    )
    np.testing.assert_array_equal(read_values(path, 0).values, RAMP - 1000.0)
    np.testing.assert_array_equal(read_values(path, 1).values, RAMP * 2.0 - 1000)
    assert read_values(path, 1).unit == "HU"
    picture = read_frame(path, 1)
    np.testing.assert_allclose(picture.pixels, RAMP / 65535, atol=1e-6)
    assert picture.spacing_mm == (0.5, 0.25)


@needs_robustness_set
def test_a_real_enhanced_ct_is_rescaled_by_its_functional_groups() -> None:
    """Its top level has no RescaleIntercept; the -1024 of its groups is what SimpleITK 2.5.7 applies as well."""
    path = ROBUSTNESS / "files" / "pydicomdata__eCT_Supplemental.dcm"
    np.testing.assert_array_equal(read_values(path).values, _stored(path) - 1024.0)


def test_a_modality_lut_is_applied(tmp_path: Path) -> None:
    lut = _with(LUTDescriptor=[4, 0, 16], ModalityLUTType="OD")
    lut.add_new("LUTData", "US", [0, 65535, 100, 30000])
    stored = np.array([[0, 1], [2, 9]], dtype=np.uint16)
    path = write(tmp_path / "a.dcm", stored, ModalityLUTSequence=[lut])
    np.testing.assert_allclose(read_frame(path).pixels * 65535, [[0, 65535], [100, 30000]], atol=0.01)
    np.testing.assert_array_equal(read_values(path).values, [[0, 65535], [100, 30000]])
    assert read_values(path).unit == "OD"


# Calibration.


def test_ultrasound_regions_become_boxes_and_spacing(tmp_path: Path) -> None:
    region = _with(RegionSpatialFormat=1, RegionDataType=1, PhysicalUnitsXDirection=3, PhysicalUnitsYDirection=3)
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 1, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 3, 1
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.01, 0.02
    picture = read_frame(write(tmp_path / "a.dcm", RAMP, SequenceOfUltrasoundRegions=[region]))
    assert picture.regions == ((1, 0, 4, 2),)
    assert picture.spacing_mm == pytest.approx((0.2, 0.1))


def test_a_spacing_given_directly_is_taken(tmp_path: Path) -> None:
    assert read_frame(write(tmp_path / "a.dcm", RAMP, PixelSpacing=[0.5, 0.25])).spacing_mm == (0.5, 0.25)
    assert read_frame(write(tmp_path / "b.dcm", RAMP, ImagerPixelSpacing=[0.1, 0.2])).spacing_mm == (0.1, 0.2)
    assert read_frame(write(tmp_path / "c.dcm", RAMP, PixelSpacing=[0, 0])).spacing_mm is None
    assert read_frame(write(tmp_path / "d.dcm", RAMP)).spacing_mm is None


# Many frames.


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_frames_are_told_apart_with_and_without_an_offset_table(tmp_path: Path, syntax: UID) -> None:
    frames = [LARGE + number for number in range(5)]
    path = write_compressed(tmp_path / "a.dcm", frames, syntax)
    with DicomImage(path) as image:
        pictures = list(image.pictures())
        assert len(pictures) == number_of_frames(image.header) == 5
        for index in (4, 0, 2):
            np.testing.assert_array_equal(image.stored(index), frames[index])
    assert refused(path, 5) is refused(path, -1) is Reason.NO_SUCH_FRAME


def test_a_long_clip_takes_the_memory_of_one_frame(tmp_path: Path) -> None:
    frame, frames = np.arange(512 * 512, dtype=np.uint16).reshape(512, 512), 1500
    path = write(tmp_path / "clip.dcm", frame, b"", NumberOfFrames=frames)
    start = path.stat().st_size
    length = frame.nbytes * frames
    edited(path, path, lambda content: content.__setitem__(slice(-4, None), length.to_bytes(4, "little")))
    with path.open("r+b") as file:  # a sparse file of 786 MB, with one frame written in its middle
        file.seek(start + frame.nbytes * 700)
        file.write(frame.tobytes())
        file.truncate(start + length)
    tracemalloc.start()
    picture = read_frame(path, 700)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(picture.pixels, frame / 65535, atol=1e-6)
    assert peak < 20 * frame.nbytes  # float64 and float32 copies of one frame, not 1500 frames


def test_a_reader_keeps_the_last_file_open_until_it_changes(tmp_path: Path) -> None:
    path, reader = write(tmp_path / "a.dcm", RAMP), FrameReader()
    np.testing.assert_array_equal(reader.measured(path, 0).values, RAMP)
    write(path, RAMP[:2])
    np.testing.assert_array_equal(reader.measured(path, 0).values, RAMP[:2])
    assert reader.picture(path, 0).pixels.shape == (2, 4)
    reader.close()


# Refusals.


def test_what_is_no_picture_is_refused_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("no DICOM")
    (tmp_path / "empty").write_bytes(b"")
    assert refused(tmp_path / "text") is refused(tmp_path / "empty") is Reason.NOT_DICOM
    assert refused(tmp_path / "absent") is refused(tmp_path) is Reason.UNREADABLE_FILE
    assert refused(bundled("rtplan.dcm")) is Reason.NO_PIXEL_DATA
    assert refused(bundled("MR_truncated.dcm")) is Reason.TRUNCATED
    assert refused(bundled("meta_missing_tsyntax.dcm")) is Reason.NO_TRANSFER_SYNTAX
    assert refused(write(tmp_path / "flat.dcm", RAMP * 0)) is Reason.CONSTANT_IMAGE
    odd = write(tmp_path / "odd.dcm", RAMP, PhotometricInterpretation="ULTRAVIOLET")
    assert refused(odd) is Reason.UNSUPPORTED_PHOTOMETRIC
    mpeg = write(tmp_path / "mpeg.dcm", RAMP, encapsulate([b"video"]), UID("1.2.840.10008.1.2.4.102"))
    assert refused(mpeg) is Reason.UNSUPPORTED_TRANSFER_SYNTAX
    monkeypatch.setattr(client.pixels.pixel_format, "MAX_PIXELS", 11)
    assert refused(write(tmp_path / "large.dcm", RAMP)) is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": 65535, "Columns": 65535}, Reason.TOO_LARGE),
        ({"NumberOfFrames": 1_000_000}, Reason.IMPLAUSIBLE_HEADER),
        ({"NumberOfFrames": 9}, Reason.TRUNCATED),
        ({"Rows": 4}, Reason.TRUNCATED),
        ({"Rows": 2}, Reason.LENGTH_MISMATCH),
        ({"Rows": 0}, Reason.IMPLAUSIBLE_HEADER),
        ({"BitsStored": 24, "HighBit": 23}, Reason.IMPLAUSIBLE_HEADER),
        ({"BitsStored": 12, "HighBit": 15}, Reason.IMPLAUSIBLE_HEADER),
        ({"BitsAllocated": None}, Reason.IMPLAUSIBLE_HEADER),
        ({"PixelRepresentation": None}, Reason.IMPLAUSIBLE_HEADER),
        ({"PhotometricInterpretation": None}, Reason.IMPLAUSIBLE_HEADER),
        ({"PhotometricInterpretation": "RGB"}, Reason.IMPLAUSIBLE_HEADER),
        ({"BitsStored": 11}, Reason.VALUES_OUT_OF_RANGE),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, attributes: dict[str, object], reason: Reason) -> None:
    assert refused(write(tmp_path / "a.dcm", RAMP, RAMP.tobytes(), **attributes)) is reason


def test_a_row_of_zeros_after_the_pixels_is_padding_and_anything_else_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP, RAMP.tobytes() + bytes(8))
    np.testing.assert_array_equal(_stored(path), RAMP)
    assert refused(write(tmp_path / "b.dcm", RAMP, RAMP.tobytes() + bytes(10))) is Reason.LENGTH_MISMATCH
    assert refused(write(tmp_path / "c.dcm", RAMP, RAMP.tobytes() + b"\0\0\1\0")) is Reason.LENGTH_MISMATCH
    np.testing.assert_array_equal(_stored(bundled("MR_small_padded.dcm")), _stored(bundled("MR_small.dcm")))


def test_all_that_a_header_lacks_is_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP, BitsAllocated=None, PixelRepresentation=None)
    with pytest.raises(UnreadableDicom, match="BitsAllocated, PixelRepresentation"):
        read_frame(path)


def test_headers_without_an_image_are_refused_early() -> None:
    with pytest.raises(UnreadableDicom, match="NO_PIXEL_DATA"):
        read_header(bundled("rtplan.dcm"))
    assert "PixelData" not in read_header(bundled("CT_small.dcm"))


def test_a_lost_preamble_is_forgiven(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_array_equal(_stored(path), RAMP)


class _Panic(BaseException):
    """What pyo3 makes of a Rust panic: no Exception, and it cannot be imported to be caught by name."""


def _raises(error: BaseException) -> Callable[..., object]:
    def decode(*_: object, **__: object) -> object:
        raise error

    return decode


def test_a_decoders_panic_is_a_refusal_but_the_operators_interrupt_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_compressed(tmp_path / "a.dcm", [RAMP], RLELossless)
    for error, reason in (
        (_Panic("index out of bounds"), Reason.DECODE_FAILED),
        (RecursionError(), Reason.DECODE_FAILED),
        (MemoryError(), Reason.MEMORY_LIMIT),
    ):
        monkeypatch.setitem(client.pixels.codecs._DECODERS, RLELossless, _raises(error))
        assert refused(path) is reason
    for stop in (KeyboardInterrupt(), SystemExit(1), GeneratorExit()):
        monkeypatch.setitem(client.pixels.codecs._DECODERS, RLELossless, _raises(stop))
        with pytest.raises(type(stop)):
            read_frame(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = bundled("SC_rgb_rle.dcm").read_bytes()
    for end in range(0, len(whole) - 10, max(1, len(whole) // 60)):
        cut = tmp_path / "cut.dcm"
        cut.write_bytes(whole[:end])
        with pytest.raises(UnreadableDicom):
            read_frame(cut)


def test_a_real_rust_panic_is_a_refusal(tmp_path: Path) -> None:
    runs = b"".join(bytes([129, value]) for value in range(8))  # eight runs of 128 values where 12 are expected
    segments = bytearray(64) + runs + runs
    segments[:12] = b"".join(n.to_bytes(4, "little") for n in (2, 64, 64 + len(runs)))
    path = write(tmp_path / "a.dcm", RAMP, encapsulate([bytes(segments)]), RLELossless)
    assert refused(path) is Reason.DECODE_FAILED
