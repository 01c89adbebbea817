"""Reads DICOM images: headers, and one frame at a time, at the full depth that the file stores.

A frame can be read in three ways: as a ``Picture``, grey in [0, 1] over the range that the stored bits can express; in
colour; or as measured values (Hounsfield units and the like), for tasks that need those. Window settings (VOI LUT,
PS3.3 C.11.2) are display preferences, not measurements; they can be read but are not applied.

``client/pixels`` has the steps. ``client/reading/decoding.py`` does the same in separate processes, for untrusted
files: a codec may crash or hang.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from client.pixels import calibration
from client.pixels.codecs import COMPRESSED, FRAMED_NATIVE, decode, unpack_frame
from client.pixels.codestream import Codestream, read_codestream
from client.pixels.colour import colour_space, to_luma, to_rgb
from client.pixels.frames import Piece, find_encapsulated, read_encapsulated, read_native
from client.pixels.header import NATIVE, open_file, transfer_syntax
from client.pixels.modality import measured, read_rescale
from client.pixels.padding import padding
from client.pixels.pixel_format import GREY, PALETTE, PixelFormat, number_of_frames, read_form
from client.pixels.refusal import Reason, UnreadableDicom, guarded
from client.pixels.stored import StoredValues, shape_native, stored_values
from client.pixels.tables import look_up_modality, look_up_palette
from tasks.task import Picture

__all__ = [
    "DicomImage",
    "FrameReader",
    "Measured",
    "Reason",
    "UnreadableDicom",
    "number_of_frames",
    "read_frame",
    "read_header",
    "read_values",
]


_OPEN = 4
"""Files that are kept open; of a deflated one, all of which is in memory, only that."""


@dataclass(frozen=True)
class Measured:
    """What a frame's pixels measure.

    Attributes:
        values: float32 (float64 for stored values of more than 24 bits) of shape (rows, columns): the output of the
            Modality LUT. MONOCHROME1 is not inverted; it is about display.
        unit: of the values, "HU" for instance; "" when the file does not say.
        padded: bool of the same shape, where the values are padding and no measurement (PS3.3 C.7.5.1.1.2); ``None``
            where none is.
    """

    values: NDArray[np.float32] | NDArray[np.float64]
    unit: str
    padded: NDArray[np.bool_] | None = None


def read_header(path: Path) -> Dataset:
    """Everything but the pixels.

    Raises:
        UnreadableDicom: the file is no DICOM, has no image in it, or its frames cannot be counted.
    """
    file, header, element = open_file(path)
    file.close()
    if element is None:
        raise UnreadableDicom(Reason.NO_PIXEL_DATA, path)
    number_of_frames(header)
    return header


def read_frame(path: Path, index: int = 0) -> Picture:
    """One frame as grey values in [0, 1] over the range that the stored bits can express.

    Args:
        path: a DICOM file.
        index: which frame, from 0; only this one is decoded, since a clip may be twenty times larger than its file.

    Returns:
        float32 pixels (rows, columns); colour becomes Rec. 601 luma. Boxes in pixels, spacing in millimetres.

    Raises:
        UnreadableDicom: with one of the reasons; nothing else, whatever the file is.
    """
    with DicomImage(path) as image:
        return image.picture(index)


def read_values(path: Path, index: int = 0) -> Measured:
    """One frame as measured values.

    Raises:
        UnreadableDicom: with one of the reasons; UNSUPPORTED_PHOTOMETRIC for colour, which measures nothing.
    """
    with DicomImage(path) as image:
        return image.measured(index)


class DicomImage:
    """An open DICOM image; frames are located once and decoded one at a time.

    Attributes:
        header: everything but the pixels.
        form: how its frames are stored.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            UnreadableDicom: it has no image that could be read.
        """
        self._file, self.header, element = open_file(path)
        try:
            if element is None:
                raise UnreadableDicom(Reason.NO_PIXEL_DATA, path)
            self._element, self._syntax = element, transfer_syntax(self.header)
            if self._syntax not in (*NATIVE, *FRAMED_NATIVE, *COMPRESSED):
                raise UnreadableDicom(Reason.UNSUPPORTED_TRANSFER_SYNTAX, self._syntax.name)
            self.form: PixelFormat = read_form(self.header, element.keyword)
            self._pieces: list[list[Piece]] | None = None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> DicomImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def picture(self, index: int) -> Picture:
        """One frame as grey values; see ``read_frame``."""
        grey = guarded(Reason.DECODE_FAILED, lambda: self._grey(*self._stored(index), index))
        if grey.min() == grey.max():
            raise UnreadableDicom(Reason.CONSTANT_IMAGE)
        boxes = calibration.regions(self.header, self.form.rows, self.form.columns)
        return Picture(grey, boxes, calibration.spacing_mm(self.header, index))

    @property
    def in_memory(self) -> bool:
        """Whether all of the file was inflated into memory."""
        return self._syntax == DeflatedExplicitVRLittleEndian

    def pictures(self) -> Iterator[Picture]:
        """All frames, one after the other; never more than one in memory."""
        return (self.picture(index) for index in range(self.form.frames))

    def measured(self, index: int) -> Measured:
        """One frame as measured values; see ``read_values``."""
        return guarded(Reason.DECODE_FAILED, lambda: self._measured(index))

    def stored(self, index: int) -> StoredValues:
        """One frame's stored values, int32, int64 or floating point, of the form's shape; colour as it was coded."""
        return guarded(Reason.DECODE_FAILED, lambda: self._stored(index)[0])

    def _stored(self, index: int) -> tuple[StoredValues, Codestream | None]:
        form, header = self.form, self.header
        if not 0 <= index < form.frames:
            raise UnreadableDicom(Reason.NO_SUCH_FRAME, f"{index} of {form.frames}")
        if self._syntax not in COMPRESSED:
            samples = self._native(index)
            if not form.floating:
                return stored_values(samples, form.bits_allocated, False, form, header), None
            if not np.isfinite(samples).all():
                raise UnreadableDicom(Reason.VALUES_OUT_OF_RANGE, "values that are not finite")
            return samples.astype(samples.dtype.newbyteorder("=")), None
        data = read_encapsulated(self._file, self._fragments()[index])
        stream = read_codestream(data, self._syntax, form)
        samples = decode(data, self._syntax, form, stream)
        return stored_values(samples, stream.precision, not stream.lossless, form, header), stream

    def _native(self, index: int) -> NDArray[Any]:
        if self._syntax in FRAMED_NATIVE:
            data = unpack_frame(read_encapsulated(self._file, self._fragments()[index]), self._syntax, self.form)
        else:
            data = read_native(self._file, self._element, self.form, index)
        return shape_native(data, self._element, self.form)

    def _fragments(self) -> list[list[Piece]]:
        if self._pieces is None:
            self._pieces = find_encapsulated(self._file, self._element, self.header, self.form.frames)
        return self._pieces

    def _measured(self, index: int) -> Measured:
        if self.form.photometric == PALETTE and self.header.get("SegmentationType") == "LABELMAP":
            return self._numbers(index)
        if self.form.photometric not in GREY:
            raise UnreadableDicom(Reason.UNSUPPORTED_PHOTOMETRIC, f"{self.form.photometric} has no measured values")
        stored, _ = self._stored(index)
        rescale = read_rescale(self.header, index)
        bits = 64 if stored.dtype == np.float64 else 0 if stored.dtype == np.float32 else self.form.bits_stored
        padded = padding(stored, self.header, self.form)
        return Measured(measured(stored, self.header, rescale, bits), rescale.unit, padded)

    def _numbers(self, index: int) -> Measured:
        """Of a segmentation by labels, whose colours are only for people (PS3.3 A.51)."""
        stored, _ = self._stored(index)
        return Measured(stored.astype(np.float32), "")

    def _rgb(self, stored: StoredValues, stream: Codestream | None, index: int) -> NDArray[np.float32]:
        if self.form.photometric == PALETTE:
            colours, high = look_up_palette(stored, self.header)
            return colours.astype(np.float32) / np.float32(high)
        if self.form.photometric in GREY:
            return np.repeat(self._grey(stored, stream, index)[..., None], 3, axis=-1)
        return to_rgb(stored, colour_space(self.form, stream), self.form.high)

    def _grey(self, stored: StoredValues, stream: Codestream | None, index: int) -> NDArray[np.float32]:
        form = self.form
        if form.photometric == PALETTE:
            colours, most = look_up_palette(stored, self.header)
            return to_luma(colours, "RGB", most)
        if form.photometric not in GREY:
            return to_luma(stored, colour_space(form, stream), form.high)
        rescale = read_rescale(self.header, index)
        low, high = float(form.low), float(form.high)
        if form.floating:  # no range is declared: take the frame's own
            low, high = float(stored.min()), float(stored.max())
        elif self.header.get("ModalityLUTSequence"):
            stored, most = look_up_modality(stored, self.header)
            low, high = 0.0, float(most)
        # A linear rescale moves the range together with the values, so only its sign shows after scaling to [0, 1].
        return _scaled(stored, low, high, (form.photometric == "MONOCHROME1") != (rescale.slope < 0))


def _scaled(stored: StoredValues, low: float, high: float, inverted: bool) -> NDArray[np.float32]:
    if stored.dtype == np.int32 and high - low < 1 << 24:  # whole numbers that float32 holds exactly, in half the time
        distance = int(high) - stored if inverted else stored - int(low)
        return distance.astype(np.float32) / np.float32(high - low)
    unit = (stored.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
    return (1 - unit if inverted else unit).astype(np.float32)


class FrameReader:
    """Reads frames of any file, and keeps the last files open: often the next frame is read next, and several who ask
    take turns. To open an enhanced file of hundreds of frames takes longer than to decode one."""

    def __init__(self) -> None:
        self._opened: OrderedDict[tuple[Path, int, int], DicomImage] = OrderedDict()

    def picture(self, path: Path, frame: int) -> Picture:
        """See ``read_frame``."""
        return self._image(path).picture(frame)

    def measured(self, path: Path, frame: int) -> Measured:
        """See ``read_values``."""
        return self._image(path).measured(frame)

    def close(self) -> None:
        """Close all files."""
        self._close_down_to(0)

    def _image(self, path: Path) -> DicomImage:
        stat = guarded(Reason.UNREADABLE_FILE, path.stat)
        version = (path, stat.st_size, stat.st_mtime_ns)
        if version not in self._opened:
            self._close_down_to(0 if any(image.in_memory for image in self._opened.values()) else _OPEN - 1)
            self._opened[version] = DicomImage(path)
        self._opened.move_to_end(version)
        return self._opened[version]

    def _close_down_to(self, number: int) -> None:
        while len(self._opened) > number:
            _, image = self._opened.popitem(last=False)
            image.__exit__(None, None, None)
