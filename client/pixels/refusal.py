"""Why a DICOM file cannot be read as an image, in one word, for counting.

Tested in ``tests/client/reading/test_dicom.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Reason(StrEnum):
    """Why a file cannot be read as an image."""

    UNREADABLE_FILE = "UNREADABLE_FILE"
    """The file cannot be opened."""
    NOT_DICOM = "NOT_DICOM"
    """Neither a Part 10 file, with the prefix "DICM" at byte 128 (PS3.10 section 7.1), nor a bare data set."""
    NO_TRANSFER_SYNTAX = "NO_TRANSFER_SYNTAX"
    """The file meta information lacks the transfer syntax (PS3.10 section 7.1)."""
    UNSUPPORTED_TRANSFER_SYNTAX = "UNSUPPORTED_TRANSFER_SYNTAX"
    NO_PIXEL_DATA = "NO_PIXEL_DATA"
    RT_STRUCTURE_SET = "RT_STRUCTURE_SET"
    """Outlines as contours (PS3.3 A.19), which are not read."""
    IMPLAUSIBLE_HEADER = "IMPLAUSIBLE_HEADER"
    """Attributes are missing, contradictory or invalid."""
    UNSUPPORTED_PHOTOMETRIC = "UNSUPPORTED_PHOTOMETRIC"
    NO_SUCH_FRAME = "NO_SUCH_FRAME"
    TOO_LARGE = "TOO_LARGE"
    TRUNCATED = "TRUNCATED"
    """The pixel data or a codestream in it is truncated."""
    LENGTH_MISMATCH = "LENGTH_MISMATCH"
    """There is more uncompressed pixel data than the header accounts for."""
    FRAGMENTS_MISMATCH = "FRAGMENTS_MISMATCH"
    """The fragments cannot be assigned to the number of frames in the header."""
    CODESTREAM_MISMATCH = "CODESTREAM_MISMATCH"
    """The compressed image's own header contradicts the DICOM header."""
    COLOUR_CONFLICT = "COLOUR_CONFLICT"
    """Header and codestream disagree on the colour space, and neither is conclusive."""
    DECODE_FAILED = "DECODE_FAILED"
    VALUES_OUT_OF_RANGE = "VALUES_OUT_OF_RANGE"
    """Values that BitsStored and PixelRepresentation cannot express, or that are not finite."""
    CONSTANT_IMAGE = "CONSTANT_IMAGE"
    TIME_LIMIT = "TIME_LIMIT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    DECODER_DIED = "DECODER_DIED"
    """The process that decoded it crashed."""


class UnreadableDicom(Exception):
    """A file cannot be read as an image; ``reason`` says why in one word, ``detail`` may name the file."""

    def __init__(self, reason: Reason, detail: object = "") -> None:
        super().__init__(reason, str(detail))
        self.reason, self.detail = reason, str(detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


_NO_MEMORY = "Python API call failed"
"""PyO3's panic message if Python cannot allocate memory for the pixels."""


def guarded(reason: Reason, work: Callable[[], T]) -> T:
    """Translate all exceptions of a damaged file into one error.

    A damaged RLE frame makes the Rust decoder panic, and a panic is a BaseException that ``except Exception`` misses.
    """
    try:
        return work()
    except (UnreadableDicom, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        raise UnreadableDicom(Reason.MEMORY_LIMIT) from None
    except BaseException as error:
        if type(error).__name__ == "PanicException" and str(error) == _NO_MEMORY:
            raise UnreadableDicom(Reason.MEMORY_LIMIT) from None
        if (
            isinstance(error, OSError) and error.errno is not None
        ):  # parsers raise OSError of their own, without a number
            raise UnreadableDicom(Reason.UNREADABLE_FILE, error) from None
        raise UnreadableDicom(reason, f"{type(error).__name__}: {error}") from None
