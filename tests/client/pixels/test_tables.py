"""Palettes and Modality LUTs, also those that pydicom gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_palette_files
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from client.pixels.refusal import Reason
from client.reading.dicom import DicomImage, read_frame
from tests.client.dicom_files import ROBUSTNESS, needs_robustness_set, read_colour, refused, write

FILES = ROBUSTNESS / "files"

INDICES = np.arange(12, dtype=np.uint8).reshape(3, 4)


def _with_palette(
    path: Path, stored: NDArray[Any], tables: NDArray[Any], descriptor: list[int], big: bool = False, kind: str = ""
) -> Path:
    """A PALETTE COLOR file; ``tables`` is (3, entries) of the words' type, ``kind`` "Segmented" or "" or both."""
    syntax = ExplicitVRBigEndian if big else ExplicitVRLittleEndian
    path = write(path, stored, syntax=syntax, PhotometricInterpretation="PALETTE COLOR")
    dataset = dcmread(path)
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", descriptor)
        data = table.astype(table.dtype.newbyteorder(">" if big else "<")).tobytes()
        if table.dtype.itemsize == 1:
            data += b"\0" * (len(data) % 2)
            data = np.frombuffer(data, "u1").reshape(-1, 2)[:, ::-1].tobytes() if big else data
        dataset.add_new(f"{kind}{colour}PaletteColorLookupTableData", "OW", data)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("bits", "width"), [(8, "u1"), (8, "u2"), (16, "u2")])
def test_entries_of_all_widths_and_byte_orders(tmp_path: Path, big: bool, bits: int, width: str) -> None:
    tables = np.random.default_rng(3).integers(0, 2**bits, (3, 12)).astype(width)
    path = _with_palette(tmp_path / "a.dcm", INDICES, tables, [12, 0, bits], big)
    np.testing.assert_allclose(read_colour(path), np.moveaxis(tables[:, INDICES], 0, -1) / (2**bits - 1), atol=1e-6)


def test_more_indices_than_entries_can_count(tmp_path: Path) -> None:
    """300 entries of 8 bits: pydicom keeps the index in 8 bits as well, and wraps."""
    indices = np.arange(300, dtype=np.uint16).reshape(15, 20)
    tables = np.stack([np.arange(300) // 2, np.arange(300)[::-1] // 2, np.full(300, 7)]).astype("u1")
    path = _with_palette(tmp_path / "a.dcm", indices, tables, [300, 0, 8])
    np.testing.assert_allclose(read_colour(path) * 255, np.moveaxis(tables[:, indices], 0, -1), atol=1e-4)


def test_indices_outside_the_table_take_its_ends(tmp_path: Path) -> None:
    tables = np.array([[10, 20], [30, 40], [50, 60]], dtype="u1")
    path = _with_palette(tmp_path / "a.dcm", INDICES, tables, [2, 5, 8])
    np.testing.assert_allclose(read_colour(path)[..., 0] * 255, np.where(INDICES <= 5, 10, 20), atol=1e-4)


def test_segmented_palettes_are_those_that_pydicom_expands(tmp_path: Path) -> None:
    (name,) = get_palette_files("spring.dcm")
    palette = dcmread(name)
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = write(tmp_path / "a.dcm", indices, PhotometricInterpretation="PALETTE COLOR")
    dataset = dcmread(path)
    dataset.update({element.tag: element for element in palette if 0x00281100 <= element.tag < 0x00281300})
    dataset.save_as(path)
    np.testing.assert_allclose(read_colour(path) * 255, apply_color_lut(indices, palette), atol=0.51)


def test_discrete_and_linear_segments(tmp_path: Path) -> None:
    words = np.array([[0, 2, 100, 200, 1, 4, 1000]] * 3, dtype="u2")
    path = _with_palette(tmp_path / "a.dcm", INDICES[:1], words, [6, 0, 16], kind="Segmented")
    np.testing.assert_allclose(read_colour(path)[0, :, 0] * 65535, [100, 200, 400, 600], atol=0.01)


@pytest.mark.parametrize(
    ("tables", "descriptor", "kind"),
    [
        (np.zeros((3, 4), "u2"), [12, 0, 16], ""),  # too short
        (np.full((3, 12), 255, "u2"), [12, 0, 16], ""),  # values of 8 bits declared as 16
        (np.zeros((3, 12), "u2"), [12, 0, 12], ""),  # 12 bits
        (np.array([[2, 1, 0, 0]] * 3, "u2"), [12, 0, 16], "Segmented"),  # an indirect segment first
        (np.array([[1, 12, 5, 0]] * 3, "u2"), [12, 0, 16], "Segmented"),  # a linear segment first
    ],
)
def test_a_damaged_palette_is_refused(tmp_path: Path, tables: NDArray[Any], descriptor: list[int], kind: str) -> None:
    path = _with_palette(tmp_path / "a.dcm", INDICES, tables, descriptor, kind=kind)
    assert refused(path) is Reason.IMPLAUSIBLE_HEADER


def test_a_missing_palette_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", INDICES, PhotometricInterpretation="PALETTE COLOR")
    assert refused(path) is Reason.IMPLAUSIBLE_HEADER


@needs_robustness_set
def test_a_real_palette_is_the_same_in_both_byte_orders() -> None:
    little, big = FILES / "pydicomdata__OBXXXX1A.dcm", FILES / "pydicomdata__OBXXXX1A_expb.dcm"
    np.testing.assert_array_equal(read_colour(little), read_colour(big))
    with DicomImage(little) as image:
        wanted = apply_color_lut(image.stored(0).astype("u1"), image.header)
    np.testing.assert_allclose(read_colour(little), wanted / np.iinfo(wanted.dtype).max, atol=1e-6)


@pytest.mark.parametrize("big", [False, True])
def test_a_modality_lut_may_be_bytes(tmp_path: Path, big: bool) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [3, 1, 12], "US"
    lut.add_new("LUTData", "OW", np.array([5, 4095, 7], dtype=">u2" if big else "<u2").tobytes())
    syntax = ExplicitVRBigEndian if big else ExplicitVRLittleEndian
    path = write(tmp_path / "a.dcm", INDICES, syntax=syntax, ModalityLUTSequence=[lut])
    expected = np.array([5, 5, 4095, *[7] * 9]).reshape(3, 4) / 4095
    np.testing.assert_allclose(read_frame(path).pixels, expected, atol=1e-6)
