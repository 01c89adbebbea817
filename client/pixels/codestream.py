"""A compressed image's own header: size, components, precision, colour; and whether the codestream is complete.

With a DICOM header that was damaged or copied from another image, a frame may still decode; comparing it with the
codestream's own header detects that in a few microseconds. JPEG: ITU-T T.81 annex B and F; JPEG-LS: T.87 annex C;
JPEG 2000: T.800 annex A; RLE: PS3.5 annex G.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from struct import unpack, unpack_from

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from client.pixels.pixel_format import PixelFormat
from client.pixels.refusal import Reason, UnreadableDicom

JPEG_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit)
JPEG_LOSSLESS = (JPEGLossless, JPEGLosslessSV1)
JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
JPEG_2000 = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
LOSSLESS = (*JPEG_LOSSLESS, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL, RLELossless)
"""Lossless transfer syntaxes (PS3.5 section 8.2)."""

_SOF = {
    **dict.fromkeys(JPEG_LOSSY, (0xC0, 0xC1, 0xC2)),
    **dict.fromkeys(JPEG_LOSSLESS, (0xC3,)),
    **dict.fromkeys(JPEG_LS, (0xF7,)),
}
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0..15 without DHT, JPG, DAC; SOF55
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_PADDING = 16
"""Tolerated bytes after the last marker; the standard allows at most one."""


@dataclass(frozen=True)
class Codestream:
    """A compressed frame's own header.

    Attributes:
        rows, columns, components: of the image in it.
        precision: bits of a sample.
        signed: whether samples are two's complement; JPEG and JPEG-LS cannot tell and mean unsigned.
        lossless: whether the coding keeps all values; ``None`` where it does not show.
        colour: "RGB" or "YBR" if the codestream itself names it, and "RGB" where the decoder turns it into RGB.
        subsampled: colour has a lower resolution than brightness.
    """

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False
    lossless: bool | None = None
    colour: str | None = None
    subsampled: bool = False


def read_codestream(data: bytes, syntax: UID, form: PixelFormat) -> Codestream:
    """The codestream's header, compared with the data set's.

    Raises:
        UnreadableDicom: TRUNCATED, CODESTREAM_MISMATCH or COLOUR_CONFLICT.
    """
    try:
        if syntax in JPEG_2000:
            stream = _jpeg_2000(data)
        elif syntax == RLELossless:
            stream = _rle(data, form)
        else:
            stream = _jpeg(data, syntax)
    except (struct.error, IndexError):
        raise UnreadableDicom(Reason.TRUNCATED, "the codestream ends within its header") from None
    _compare(stream, syntax, form)
    return stream


def _compare(stream: Codestream, syntax: UID, form: PixelFormat) -> None:
    expected = (form.rows, form.columns, form.samples)
    wrong = {
        f"{stream.rows}x{stream.columns}x{stream.components} in the codestream, {expected} in the header": expected
        != (stream.rows, stream.columns, stream.components),
        f"{stream.precision} bits in the codestream, BitsAllocated {form.bits_allocated}": stream.precision
        > form.bits_allocated,
        f"lossy coding under the lossless transfer syntax {syntax.name}": stream.lossless is False
        and syntax in LOSSLESS,
        # A lossy codestream of fewer bits has been scaled down; nothing in the file says by how much.
        f"lossy coding of {stream.precision} bits, BitsStored {form.bits_stored}": stream.lossless is False
        and stream.precision < form.bits_stored,
    }
    if found := [what for what, is_wrong in wrong.items() if is_wrong]:
        raise UnreadableDicom(Reason.CODESTREAM_MISMATCH, "; ".join(found))


def _jpeg(data: bytes, syntax: UID) -> Codestream:
    if data[:2] != b"\xff\xd8":
        raise UnreadableDicom(Reason.CODESTREAM_MISMATCH, f"no {syntax.name}: it does not begin with SOI")
    if data.rfind(b"\xff\xd9", -_PADDING - 2) < 0:
        raise UnreadableDicom(Reason.TRUNCATED, "the codestream has no end (EOI)")
    applications: dict[int, bytes] = {}
    frame, frame_marker, position = b"", 0, 2
    while True:
        if data[position] != 0xFF:
            raise UnreadableDicom(Reason.DECODE_FAILED, f"no marker at byte {position} of the codestream")
        marker = data[position + 1]
        if marker == 0xFF or marker in _STANDALONE:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = unpack_from(">H", data, position + 2)
        segment = data[position + 4 : position + 2 + length]
        if marker in _FRAME_HEADERS:
            frame, frame_marker = segment, marker
        elif 0xE0 <= marker <= 0xEF:
            applications.setdefault(marker, segment)
        elif marker == 0xDA:
            break
        position += 2 + length
    if frame_marker not in _SOF[syntax]:
        raise UnreadableDicom(Reason.CODESTREAM_MISMATCH, f"a frame header FF{frame_marker:02X} under {syntax.name}")
    precision, rows, columns, components = unpack(">BHHB", frame[:6])
    parts = [frame[6 + 3 * i : 9 + 3 * i] for i in range(components)]
    return Codestream(
        rows=rows,
        columns=columns,
        components=components,
        precision=precision,
        lossless=_jpeg_is_lossless(frame_marker, segment),
        colour=_jpeg_colour(applications, bytes(part[0] for part in parts)),
        subsampled=len({part[1] for part in parts}) > 1,
    )


def _jpeg_is_lossless(frame_marker: int, scan: bytes) -> bool:
    """SOF3 is lossless; JPEG-LS is if the scan's NEAR, after the components' selectors, is 0 (T.87 C.2.3)."""
    if frame_marker == 0xF7:
        return scan[1 + 2 * scan[0]] == 0
    return frame_marker == 0xC3


def _jpeg_colour(applications: dict[int, bytes], identifiers: bytes) -> str | None:
    """JFIF means YCbCr; Adobe's APP14 has a flag; components may be called R, G, B. In this order, as libjpeg does."""
    if len(identifiers) != 3:
        return None
    if applications.get(0xE0, b"").startswith(b"JFIF\0"):
        return "YBR"
    adobe = applications.get(0xEE, b"")
    if adobe.startswith(b"Adobe") and len(adobe) >= 12:
        return "YBR" if adobe[11] else "RGB"
    return "RGB" if identifiers in (b"RGB", b"rgb") else None


def _jpeg_2000(data: bytes) -> Codestream:
    start = data.find(b"\xff\x4f\xff\x51") if data[4:8] == b"jP  " else 0  # JP2 boxes are forbidden, and happen
    if data[start : start + 4] != b"\xff\x4f\xff\x51":
        raise UnreadableDicom(Reason.CODESTREAM_MISMATCH, "no JPEG 2000 codestream: it does not begin with SOC and SIZ")
    siz = start + 6
    right, bottom, left, top = unpack_from(">4L", data, siz + 2)
    tile_width, tile_height, tile_left, tile_top = unpack_from(">4L", data, siz + 18)
    (components,) = unpack_from(">H", data, siz + 34)
    if not tile_width or not tile_height or right <= tile_left or bottom <= tile_top:
        raise UnreadableDicom(Reason.CODESTREAM_MISMATCH, "an empty tile grid")
    parts = [data[siz + 36 + 3 * i : siz + 39 + 3 * i] for i in range(min(components, 4))]
    depth = parts[0][0]
    if any(part[0] != depth or part[1:] != b"\x01\x01" for part in parts):
        raise UnreadableDicom(Reason.CODESTREAM_MISMATCH, "components of different depth or resolution")
    transforms, position = _coding(data, siz + int.from_bytes(data[siz - 2 : siz], "big") - 2)
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    _refuse_missing_tiles(data, position, tiles)
    return Codestream(
        rows=bottom - top,
        columns=right - left,
        components=components,
        precision=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        lossless=None if transforms[1] else False,
        colour="RGB" if transforms[0] else None,
    )


def _coding(data: bytes, position: int) -> tuple[tuple[bool, bool], int]:
    """Whether components are mixed, and whether the wavelet is the reversible one (COD, T.800 table A.12 and A.20)."""
    mixed = reversible = False
    while data[position : position + 2] != b"\xff\x90":  # SOT, the first tile-part
        marker, length = unpack_from(">HH", data, position)
        if marker >> 8 != 0xFF:
            raise UnreadableDicom(Reason.DECODE_FAILED, f"no marker at byte {position} of the codestream")
        if marker == 0xFF52:
            mixed, reversible = data[position + 8] == 1, data[position + 13] == 1
        position += 2 + length
    return (mixed, reversible), position


def _refuse_missing_tiles(data: bytes, position: int, tiles: int) -> None:
    """Decoders fill missing tiles with grey; each tile-part has its length (SOT, T.800 table A.5)."""
    seen: set[int] = set()
    while data[position : position + 2] == b"\xff\x90":
        tile, length = unpack_from(">HL", data, position + 4)
        seen.add(tile)
        end = data.rfind(b"\xff\xd9") if length == 0 else position + length
        if end <= position or end > len(data):
            raise UnreadableDicom(Reason.TRUNCATED, f"tile {tile} ends after the codestream")
        position = end
    if data[position : position + 2] != b"\xff\xd9":
        raise UnreadableDicom(Reason.TRUNCATED, "the codestream has no end (EOC) after its last tile")
    if len(seen) != tiles:
        raise UnreadableDicom(Reason.TRUNCATED, f"{len(seen)} of {tiles} tiles")


def _rle(data: bytes, form: PixelFormat) -> Codestream:
    """RLE has no header but the segments' offsets: one segment for each byte of a sample (PS3.5 G.2 and G.5)."""
    count, *offsets = unpack_from("<16L", data)
    expected = form.samples * max(1, form.bits_allocated // 8)
    if count != expected:
        raise UnreadableDicom(Reason.CODESTREAM_MISMATCH, f"{count} RLE segments, {expected} expected")
    used = offsets[:count]
    if used[0] != 64 or used != sorted(set(used)):
        raise UnreadableDicom(Reason.CODESTREAM_MISMATCH, f"RLE segments at {used}")
    if used[-1] >= len(data):
        raise UnreadableDicom(Reason.TRUNCATED, f"an RLE segment at byte {used[-1]} of {len(data)}")
    return Codestream(
        rows=form.rows,
        columns=form.columns,
        components=form.samples,
        precision=form.bits_allocated,
        signed=form.signed,
        lossless=True,
    )
