"""Small DICOM files of every kind, and the real ones: for tests of the reader."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from rle.utils import encode_pixel_data as encode_rle

from client.pixels.refusal import Reason, UnreadableDicom
from client.reading.dicom import DicomImage, read_frame

DATA = os.environ.get("CONSILIUM_DATA", "")
ROBUSTNESS = Path(DATA) / "dicom_robustness"
needs_robustness_set = pytest.mark.skipif(
    not (DATA and (ROBUSTNESS / "manifest.csv").is_file()),
    reason="no dicom_robustness/manifest.csv under the folder that CONSILIUM_DATA names",
)


def robustness_rows() -> list[dict[str, str]]:
    """The manifest of the real set; empty where it is not there."""
    manifest = ROBUSTNESS / "manifest.csv"
    if not DATA or not manifest.is_file():
        return []
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def bundled(name: str) -> Path:
    """A real file that comes with pydicom."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom does not bring {name} along")
    assert isinstance(path, str)
    return Path(path)


def header_for(stored: NDArray[Any], **attributes: object) -> Dataset:
    """The Image Pixel module of one frame with these stored values; attributes replace or add, ``None`` removes."""
    bits = stored.dtype.itemsize * 8
    dataset = Dataset()
    given: dict[str, object] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
        "SOPInstanceUID": "1.2.3",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "SamplesPerPixel": 1 if stored.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2" if stored.ndim == 2 else "RGB",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
    }
    given |= {"PlanarConfiguration": 0} if stored.ndim == 3 else {}
    given |= attributes
    given.setdefault("HighBit", int(str(given["BitsStored"])) - 1 if given["BitsStored"] else None)
    for keyword, value in given.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def write(
    path: Path, stored: NDArray[Any], data: bytes | None = None, syntax: UID = ExplicitVRLittleEndian, **attributes: Any
) -> Path:
    """A Secondary Capture file; ``data`` replaces the bytes of ``stored`` as its PixelData."""
    dataset = header_for(stored, **attributes)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    little = syntax != ExplicitVRBigEndian
    if data is None:
        data = stored.astype(stored.dtype.newbyteorder("<" if little else ">")).tobytes()
    if syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
        data += b"\0" * (len(data) % 2)
        dataset.add_new(0x7FE00010, "OW" if dataset.get("BitsAllocated") != 8 else "OB", data)
    else:
        dataset.add_new(0x7FE00010, "OB", data)
        dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little)
    return path


def _j2k(stored: NDArray[Any]) -> bytes:
    colour = 1 if stored.ndim == 3 else 2
    bits = stored.dtype.itemsize * 8
    return bytes(encode_array(stored, bits_stored=bits, photometric_interpretation=colour, use_mct=False))


def _options(stored: NDArray[Any]) -> dict[str, int]:
    return {
        "rows": stored.shape[0],
        "columns": stored.shape[1],
        "samples_per_pixel": 1 if stored.ndim == 2 else 3,
        "bits_allocated": stored.dtype.itemsize * 8,
        "bits_stored": stored.dtype.itemsize * 8,
        "planar_configuration": 0,
        "number_of_frames": 1,
    }


def _jls(stored: NDArray[Any]) -> bytes:
    return bytes(jpeg_ls.encode_pixel_data(stored.tobytes(), **_options(stored)))


def _rle(stored: NDArray[Any]) -> bytes:
    return bytes(encode_rle(stored.tobytes(), byteorder="<", **_options(stored)))


def jpeg(stored: NDArray[np.uint8], **options: Any) -> bytes:
    """JPEG baseline of one frame, grey or YCbCr with a JFIF marker."""
    stream = BytesIO()
    Image.fromarray(stored).save(stream, "JPEG", quality=100, subsampling=0, **options)
    return stream.getvalue()


ENCODERS: dict[UID, Callable[[NDArray[Any]], bytes]] = {
    JPEG2000Lossless: _j2k,
    JPEGLSLossless: _jls,
    RLELossless: _rle,
    JPEGBaseline8Bit: jpeg,
}


def write_compressed(path: Path, frames: list[NDArray[Any]], syntax: UID, **attributes: Any) -> Path:
    """Frames compressed with ``syntax``, one fragment each, with a Basic Offset Table."""
    data = encapsulate([ENCODERS[syntax](frame) for frame in frames])
    more = {"NumberOfFrames": len(frames)} if len(frames) > 1 else {}
    return write(path, frames[0], data, syntax, **(more | attributes))


def refused(path: Path, index: int = 0) -> Reason:
    """The reason for which ``read_frame`` refuses a file."""
    with pytest.raises(UnreadableDicom) as refusal:
        read_frame(path, index)
    return refusal.value.reason


def edited(source: Path, path: Path, edit: Callable[[bytearray], None]) -> Path:
    """A copy with its bytes changed."""
    content = bytearray(source.read_bytes())
    edit(content)
    path.write_bytes(content)
    shutil.copystat(source, path)
    return path


def read_colour(path: Path) -> NDArray[np.float32]:
    """The first frame in colour, before it becomes grey: float32 of shape (rows, columns, 3) in [0, 1]."""
    with DicomImage(path) as image:
        return image._rgb(*image._stored(0), 0)
