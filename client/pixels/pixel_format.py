"""How the frames of a file are stored: the Image Pixel module (PS3.3 C.7.6.3), checked as a whole.

Tested in ``tests/client/pixels/test_stored.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from client.pixels.refusal import Reason, UnreadableDicom, guarded

MAX_PIXELS = 64_000_000
"""Frames with more pixels are refused before anything is decoded."""
MAX_FRAMES = 20_000

GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True)
class PixelFormat:
    """What the header says of every frame.

    Attributes:
        rows, columns: of one frame, in pixels.
        samples: SamplesPerPixel, 1 or 3.
        photometric: PhotometricInterpretation, one of ``GREY``, ``PALETTE``, ``COLOUR``.
        bits_allocated: bits that a sample takes in uncompressed data: 1, 8, 16 or 32; 32 or 64 for floating point.
        bits_stored: bits of it that carry the value; they are the lowest ones (PS3.5 section 8.1.1).
        signed: PixelRepresentation is 1, two's complement.
        floating: the values are FloatPixelData or DoubleFloatPixelData.
        planar: PlanarConfiguration is 1, colour by plane.
        frames: NumberOfFrames, at least 1.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    signed: bool
    floating: bool
    planar: bool
    frames: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a decoded frame: (rows, columns) or (rows, columns, 3)."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)

    @property
    def low(self) -> int:
        """Lowest value that the stored bits can express (PS3.5 section 8.1.1)."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Highest value that the stored bits can express."""
        return self.low + (1 << self.bits_stored) - 1


def read_form(header: Dataset, pixel_keyword: str) -> PixelFormat:
    """The form that the header declares for the element ``pixel_keyword``.

    Raises:
        UnreadableDicom: TOO_LARGE, UNSUPPORTED_PHOTOMETRIC, or IMPLAUSIBLE_HEADER naming everything that is wrong.
    """
    floating = pixel_keyword != "PixelData"
    wanted = ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated"]
    wanted += [] if floating else ["BitsStored", "PixelRepresentation"]
    numbers = {keyword: integer(header, keyword) for keyword in wanted}
    if absent := [keyword for keyword, number in numbers.items() if number is None]:
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, f"absent: {', '.join(absent)}")
    number = {keyword: value for keyword, value in numbers.items() if value is not None}
    photometric = guarded(Reason.IMPLAUSIBLE_HEADER, lambda: str(header.get("PhotometricInterpretation") or "")).strip()
    form = PixelFormat(
        rows=number["Rows"],
        columns=number["Columns"],
        samples=number["SamplesPerPixel"],
        photometric=photometric,
        bits_allocated=number["BitsAllocated"],
        bits_stored=number.get("BitsStored", number["BitsAllocated"]),
        signed=number.get("PixelRepresentation") == 1,
        floating=floating,
        planar=integer(header, "PlanarConfiguration") == 1,
        frames=number_of_frames(header),
    )
    high_bit = None if floating else integer(header, "HighBit")
    _refuse_implausible(form, form.bits_stored - 1 if high_bit is None else high_bit, number.get("PixelRepresentation"))
    return form


def _refuse_implausible(form: PixelFormat, high_bit: int, representation: int | None) -> None:
    if form.photometric and form.photometric not in (*GREY, PALETTE, *COLOUR):
        raise UnreadableDicom(Reason.UNSUPPORTED_PHOTOMETRIC, form.photometric)
    allocated = (32, 64) if form.floating else (1, 8, 16, 32)
    samples = 3 if form.photometric in COLOUR else 1
    wrong = {
        f"{form.rows} rows": form.rows < 1,
        f"{form.columns} columns": form.columns < 1,
        "no PhotometricInterpretation": not form.photometric,
        f"{form.samples} samples per pixel of {form.photometric}": bool(form.photometric) and form.samples != samples,
        f"BitsAllocated {form.bits_allocated}": form.bits_allocated not in allocated,
        f"BitsStored {form.bits_stored} of {form.bits_allocated}": not 1 <= form.bits_stored <= form.bits_allocated,
        # Shifted samples were an ACR-NEMA liberty; PS3.5 section 8.1.1 has HighBit one below BitsStored.
        f"HighBit {high_bit} for BitsStored {form.bits_stored}": high_bit != form.bits_stored - 1,
        f"PixelRepresentation {representation}": representation not in (0, 1, None),
        f"{form.frames} frames": form.frames > MAX_FRAMES,
        f"colour of {form.bits_allocated} bits": form.samples > 1 and (form.floating or form.bits_allocated == 1),
    }
    if problems := [what for what, is_wrong in wrong.items() if is_wrong]:
        raise UnreadableDicom(Reason.IMPLAUSIBLE_HEADER, "; ".join(problems))
    if form.rows * form.columns > MAX_PIXELS:
        raise UnreadableDicom(Reason.TOO_LARGE, f"{form.rows}x{form.columns}; at most {MAX_PIXELS} pixels are decoded")


def number_of_frames(header: Dataset) -> int:
    """NumberOfFrames, at least 1; a header that ``read_header`` gave out never fails here.

    Raises:
        UnreadableDicom: NumberOfFrames is no number.
    """
    return max(1, integer(header, "NumberOfFrames") or 1)


def integer(header: Dataset, keyword: str) -> int | None:
    """A whole number of the header, ``None`` where the attribute is absent or empty.

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER, it is something else.
    """

    def read() -> int | None:
        value: Any = header.get(keyword)
        return None if value in (None, "") else int(value)

    return guarded(Reason.IMPLAUSIBLE_HEADER, read)
