"""Why a DICOM file gives no image, in one word that can be counted."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Reason(StrEnum):
    """Why a file gives no picture."""

    UNREADABLE_FILE = "UNREADABLE_FILE"
    """The file system does not give the file out."""
    NOT_DICOM = "NOT_DICOM"
    """No Part 10 file: the prefix "DICM" at byte 128 is missing (PS3.10 section 7.1)."""
    NO_TRANSFER_SYNTAX = "NO_TRANSFER_SYNTAX"
    """The file meta information does not say how the data set is encoded (PS3.10 section 7.1)."""
    UNSUPPORTED_TRANSFER_SYNTAX = "UNSUPPORTED_TRANSFER_SYNTAX"
    NO_PIXEL_DATA = "NO_PIXEL_DATA"
    IMPLAUSIBLE_HEADER = "IMPLAUSIBLE_HEADER"
    """Attributes that are missing, contradict each other or cannot be."""
    UNSUPPORTED_PHOTOMETRIC = "UNSUPPORTED_PHOTOMETRIC"
    NO_SUCH_FRAME = "NO_SUCH_FRAME"
    TOO_LARGE = "TOO_LARGE"
    TRUNCATED = "TRUNCATED"
    """The pixel data or a codestream in it ends too early."""
    LENGTH_MISMATCH = "LENGTH_MISMATCH"
    """There is more uncompressed pixel data than the header accounts for."""
    FRAGMENTS_MISMATCH = "FRAGMENTS_MISMATCH"
    """The fragments cannot be told apart into as many frames as the header says."""
    CODESTREAM_MISMATCH = "CODESTREAM_MISMATCH"
    """What the compressed image says of itself contradicts the header."""
    COLOUR_CONFLICT = "COLOUR_CONFLICT"
    """Header and codestream disagree on the colour space in a way that neither settles."""
    DECODE_FAILED = "DECODE_FAILED"
    VALUES_OUT_OF_RANGE = "VALUES_OUT_OF_RANGE"
    """Values that BitsStored and PixelRepresentation cannot express, or that are not finite."""
    CONSTANT_IMAGE = "CONSTANT_IMAGE"
    TIME_LIMIT = "TIME_LIMIT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    DECODER_DIED = "DECODER_DIED"
    """The process that decoded it crashed."""


class UnreadableDicom(Exception):
    """A file gives no picture; ``reason`` says why in one word, ``detail`` may name the file."""

    def __init__(self, reason: Reason, detail: object = "") -> None:
        super().__init__(reason, str(detail))
        self.reason, self.detail = reason, str(detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


_NO_MEMORY = "Python API call failed"
"""What PyO3 panics with when Python gives its Rust code no memory for the pixels."""


def guarded(reason: Reason, work: Callable[[], T]) -> T:
    """Turn whatever a broken file provokes into one error.

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
