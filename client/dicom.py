"""A small DICOM reader: one frame at a time, at the full depth that the file stores.

PS3.3 C.7.6.3 (pixels), C.11.1 (Modality LUT), C.8.5.5 (ultrasound regions). Window settings (VOI LUT) are how somebody
wished to look at the image, not what was measured; they are not applied.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array

from tasks.task import Box, Picture

MAX_PIXELS = 64_000_000
"""Frames with more pixels are refused before anything is decoded."""
MAX_FRAMES = 20_000

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as the Y of YBR_FULL (PS3.3 C.7.6.3.1.2)
_SPATIAL_2D, _TISSUE = 1, 1  # RegionSpatialFormat and RegionDataType of a B-mode image (PS3.3 C.8.5.5.1.1)
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # pydicom hands over RGB (PS3.3 C.7.6.3.1.2)
_CM = 3  # PhysicalUnitsXDirection (PS3.3 C.8.5.5.1.15)


class Reason(StrEnum):
    """Why a file gives no picture."""

    NOT_DICOM = "NOT_DICOM"
    NO_PIXEL_DATA = "NO_PIXEL_DATA"
    IMPLAUSIBLE_HEADER = "IMPLAUSIBLE_HEADER"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED_TRANSFER_SYNTAX = "UNSUPPORTED_TRANSFER_SYNTAX"
    UNSUPPORTED_PHOTOMETRIC = "UNSUPPORTED_PHOTOMETRIC"
    DECODE_FAILED = "DECODE_FAILED"
    CONSTANT_IMAGE = "CONSTANT_IMAGE"


class UnreadableDicom(Exception):
    """A file gives no picture; ``reason`` says why in one word, the text may name the file."""

    def __init__(self, reason: Reason, detail: object = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


T = TypeVar("T")


def read_header(path: Path) -> Dataset:
    """Everything but the pixels.

    Raises:
        UnreadableDicom: the file is no DICOM, has no image in it, or its frames cannot be counted.
    """
    header = _guarded(Reason.NOT_DICOM, lambda: dcmread(path, stop_before_pixels=True))
    if not _integer(header, "Rows", 0) or not _integer(header, "Columns", 0):
        raise UnreadableDicom(Reason.NO_PIXEL_DATA, path)
    number_of_frames(header)
    return header


def number_of_frames(header: Dataset) -> int:
    """NumberOfFrames, at least 1; a header that ``read_header`` gave out never fails here.

    Raises:
        UnreadableDicom: NumberOfFrames is no number.
    """
    return max(1, _integer(header, "NumberOfFrames", 1))


def read_frame(path: Path, index: int = 0) -> Picture:
    """One frame as grey values in [0, 1] over the range that the stored bits can express.

    Args:
        path: a DICOM file of any transfer syntax that an installed decoder knows.
        index: which frame, from 0; only this one is decoded, since a clip may be twenty times larger than its file.

    Returns:
        float32 pixels (rows, columns); colour becomes Rec. 601 luma. Boxes in pixels, spacing in millimetres.

    Raises:
        UnreadableDicom: with one of the reasons; nothing else, whatever the file is.
    """
    dataset = _guarded(Reason.NOT_DICOM, lambda: dcmread(path))
    _refuse_implausible(dataset, index)
    _refuse_undecodable(dataset)
    stored = _guarded(Reason.DECODE_FAILED, lambda: _decoded(dataset, index))
    grey = _guarded(Reason.UNSUPPORTED_PHOTOMETRIC, lambda: _grey(dataset, stored))
    if grey.min() == grey.max():
        raise UnreadableDicom(Reason.CONSTANT_IMAGE, path)
    regions = _guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _regions(dataset, grey.shape[0], grey.shape[1]))
    return Picture(grey, regions, _guarded(Reason.IMPLAUSIBLE_HEADER, lambda: _spacing_mm(dataset)))


def _guarded(reason: Reason, work: Callable[[], T]) -> T:
    """Turn whatever a broken file provokes into one error.

    A damaged RLE frame makes the Rust decoder panic, and a panic is a BaseException that ``except Exception`` misses.
    """
    try:
        return work()
    except UnreadableDicom:
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except InvalidDicomError as error:
        raise UnreadableDicom(Reason.NOT_DICOM, error) from None
    except BaseException as error:
        raise UnreadableDicom(reason, f"{type(error).__name__}: {error}") from None


def _refuse_implausible(dataset: Dataset, index: int) -> None:
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableDicom(Reason.NO_PIXEL_DATA)
    rows, columns = _integer(dataset, "Rows", 0), _integer(dataset, "Columns", 0)
    frames, samples = number_of_frames(dataset), _integer(dataset, "SamplesPerPixel", 1)
    if rows < 1 or columns < 1 or samples not in (1, 3) or frames > MAX_FRAMES or not 0 <= index < frames:
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"{frames} frames of {rows}x{columns}x{samples}")
    if rows * columns > MAX_PIXELS:
        raise UnreadableDicom(Reason.TOO_LARGE, f"{rows}x{columns}")


def _integer(dataset: Dataset, keyword: str, missing: int) -> int:
    return _guarded(Reason.IMPLAUSIBLE_HEADER, lambda: int(_value(dataset, keyword, missing)))


def _value(dataset: Dataset, keyword: str, missing: float) -> Any:
    value = dataset.get(keyword)
    return missing if value in (None, "") else value


def _refuse_undecodable(dataset: Dataset) -> None:
    syntax = dataset.file_meta.get("TransferSyntaxUID", "none given")
    try:
        decodable = get_decoder(syntax).is_available
    except NotImplementedError:  # not one for pixels
        decodable = False
    if not decodable:
        raise UnreadableDicom(Reason.UNSUPPORTED_TRANSFER_SYNTAX, syntax)


def _decoded(dataset: Dataset, index: int) -> NDArray[Any]:
    """Stored values of one frame, (rows, columns) or (rows, columns, 3); colour comes as RGB."""
    stored = pixel_array(dataset, index=index)
    expected = (int(dataset.Rows), int(dataset.Columns))
    if stored.shape[:2] != expected:
        raise UnreadableDicom(Reason.DECODE_FAILED, f"decoded to {stored.shape}, the header says {expected}")
    if not np.isfinite(stored).all():
        raise UnreadableDicom(Reason.DECODE_FAILED, "values that are not finite")
    return stored


def _grey(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.float32]:
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
        return _luma(stored, float(np.iinfo(stored.dtype).max))
    if photometric not in ("MONOCHROME1", "MONOCHROME2", *_COLOUR) or (stored.ndim == 3) != (photometric in _COLOUR):
        raise UnreadableDicom(Reason.UNSUPPORTED_PHOTOMETRIC, f"{photometric or 'none given'} of shape {stored.shape}")
    low, high = _stored_range(dataset, stored)
    if photometric in _COLOUR:
        return _luma(stored, high)
    if dataset.get("ModalityLUTSequence"):
        stored = apply_modality_lut(stored, dataset)
        low, high = 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    # A linear rescale moves the range together with the values, so only its sign shows after scaling to [0, 1].
    grey = ((stored.astype(np.float64) - low) / (high - low)).clip(0, 1).astype(np.float32)
    inverted = (photometric == "MONOCHROME1") != (_slope(dataset) < 0)
    return np.float32(1) - grey if inverted else grey


def _luma(colour: NDArray[Any], high: float) -> NDArray[np.float32]:
    return np.asarray((colour.astype(np.float32) @ _LUMA) / np.float32(high), dtype=np.float32).clip(0, 1)


def _stored_range(dataset: Dataset, stored: NDArray[Any]) -> tuple[float, float]:
    """Lowest and highest value that BitsStored and PixelRepresentation allow (PS3.5 8.1.1)."""
    if stored.dtype.kind == "f":  # FloatPixelData declares no range: take the frame's own
        return float(stored.min()), max(float(stored.max()), float(stored.min()) + 1e-6)
    bits = _integer(dataset, "BitsStored", stored.dtype.itemsize * 8)
    high_bit = _integer(dataset, "HighBit", bits - 1)
    if not 1 <= bits <= 32 or high_bit != bits - 1:  # pydicom would silently drop the bits above BitsStored
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"BitsStored {bits}, HighBit {high_bit}")
    signed = _integer(dataset, "PixelRepresentation", 0) == 1
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)


def _slope(dataset: Dataset) -> float:
    """RescaleSlope (PS3.3 C.11.1.1.2); a Modality LUT takes its place, and it is 1 when neither is there."""
    slope = 1.0 if dataset.get("ModalityLUTSequence") else float(_value(dataset, "RescaleSlope", 1))
    if slope == 0 or not isfinite(slope):
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"RescaleSlope {slope}")
    return slope


def _regions(dataset: Dataset, rows: int, columns: int) -> tuple[Box, ...]:
    """B-mode regions inside the frame; the standard's Max is the last pixel inside, ours the first outside."""
    found = []
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        left, top = int(region.RegionLocationMinX0), int(region.RegionLocationMinY0)
        right, bottom = int(region.RegionLocationMaxX1) + 1, int(region.RegionLocationMaxY1) + 1
        box = (max(0, left), max(0, top), min(columns, right), min(rows, bottom))
        kind = (region.get("RegionSpatialFormat", _SPATIAL_2D), region.get("RegionDataType", _TISSUE))
        if kind == (_SPATIAL_2D, _TISSUE) and box[0] < box[2] and box[1] < box[3]:
            found.append(box)
    return tuple(found)


def _spacing_mm(dataset: Dataset) -> tuple[float, float] | None:
    """Along rows and columns, from PixelSpacing, ImagerPixelSpacing or the first calibrated ultrasound region."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        if value := dataset.get(keyword):
            return _lengths(value[0], value[1])
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        if units == (_CM, _CM):
            return _lengths(10 * abs(region.PhysicalDeltaY), 10 * abs(region.PhysicalDeltaX))
    return None


def _lengths(along_rows: Any, along_columns: Any) -> tuple[float, float] | None:
    """Some scanners write 0 where they mean unknown; a size that is none must not reach a task's geometry."""
    spacing = float(along_rows), float(along_columns)
    return spacing if all(isfinite(length) and length > 0 for length in spacing) else None
