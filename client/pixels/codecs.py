"""One compressed frame to samples: one decoder for each transfer syntax, so that all hospitals see the same values.

There is no fallback to a second decoder: what only a lenient decoder reads is damaged.

Tested in ``tests/client/pixels/test_frames.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import gdcm
import jpeg_ls
import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import decode as decode_jpeg_2000
from PIL import Image
from pydicom.uid import UID, RLELossless
from rle.rle import decode_frame, decode_segment

from client.pixels.codestream import JPEG_2000, JPEG_LOSSLESS, JPEG_LOSSY, JPEG_LS, Codestream
from client.pixels.frames import size_in_bits
from client.pixels.header import inflate
from client.pixels.pixel_format import PixelFormat
from client.pixels.refusal import Reason, UnreadableDicom, guarded

ENCAPSULATED_UNCOMPRESSED = UID("1.2.840.10008.1.2.1.98")
"""Each frame is one fragment of native data (PS3.5 A.4.11)."""
DEFLATED_FRAMES = UID("1.2.840.10008.1.2.8.1")
"""Deflated Image Frame Compression: each frame is native data, deflated on its own (PS3.5 section 8.2.16)."""
FRAMED_NATIVE = (ENCAPSULATED_UNCOMPRESSED, DEFLATED_FRAMES)

Samples = NDArray[Any]
"""Integers of shape (rows, columns) or (rows, columns, 3), unsigned unless the codestream says otherwise."""


def decode(data: bytes, syntax: UID, form: PixelFormat, stream: Codestream) -> Samples:
    """The samples of a frame whose codestream agrees with the header.

    Raises:
        UnreadableDicom: DECODE_FAILED.
    """
    decoder = _DECODERS[syntax]
    samples = guarded(Reason.DECODE_FAILED, lambda: decoder(data, form, stream))
    if samples.shape != form.shape:
        raise UnreadableDicom(Reason.DECODE_FAILED, f"decoded to {samples.shape}, the header says {form.shape}")
    return samples


def unpack_frame(data: bytes, syntax: UID, form: PixelFormat) -> NDArray[np.uint8]:
    """The native bytes of a frame of a ``FRAMED_NATIVE`` syntax, one byte a pixel for single bits.

    Raises:
        UnreadableDicom: TRUNCATED, LENGTH_MISMATCH or DECODE_FAILED.
    """
    bits = size_in_bits(form)
    expected = -(-bits // 8)
    plain = inflate(data, expected + 2) if syntax == DEFLATED_FRAMES else data
    if len(plain) < expected:
        raise UnreadableDicom(Reason.TRUNCATED, f"a frame of {len(plain)} bytes, the header asks for {expected}")
    if len(plain) > expected + 1:
        raise UnreadableDicom(Reason.LENGTH_MISMATCH, f"a frame of {len(plain)} bytes, expected {expected}")
    packed = np.frombuffer(plain, dtype=np.uint8)
    return np.unpackbits(packed, bitorder="little")[:bits] if form.bits_allocated == 1 else packed[:expected]


def _pillow(data: bytes, form: PixelFormat, stream: Codestream) -> Samples:
    """libjpeg-turbo, for 8 bits. A three-component image comes as it was coded, without a change of colour space."""
    if stream.precision != 8:
        return _gdcm(data, form, stream)
    image = Image.open(BytesIO(data), formats=("JPEG",))
    if stream.components == 3 and stream.colour != "RGB":
        image.draft("YCbCr", image.size)
    return np.asarray(image)


def _gdcm(data: bytes, form: PixelFormat, stream: Codestream) -> Samples:
    """For 12-bit and lossless JPEG, which need a libjpeg of another build each.

    pydicom refuses 12 bits of its own accord; told the codestream's precision instead of BitsStored, gdcm decodes them.
    """
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((form.columns, form.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.RGB if form.samples == 3 else gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    syntaxes = gdcm.TransferSyntax
    image.SetTransferSyntax(
        syntaxes(syntaxes.JPEGLosslessProcess14 if stream.lossless else syntaxes.JPEGExtendedProcess2_4)
    )
    container = 8 if stream.precision <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(form.samples, container, stream.precision, stream.precision - 1, 0))
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")  # its char* comes as str
    return np.frombuffer(buffer, dtype=f"<u{container // 8}").reshape(form.shape)


def _charls(data: bytes, form: PixelFormat, stream: Codestream) -> Samples:
    try:
        buffer, header = jpeg_ls.decode_pixel_data(data)
    except RuntimeError:
        if b"\0\xff\xd9" not in data[-4:]:
            raise
        # Some writers pad to an even length before the end marker instead of after it.
        buffer, header = jpeg_ls.decode_pixel_data(data[: data.rindex(b"\0\xff\xd9")] + b"\xff\xd9")
    flat = np.frombuffer(buffer, dtype=f"<u{(stream.precision + 7) // 8}")
    if form.samples == 3 and header["interleave_mode"] == 0:
        return np.moveaxis(flat.reshape(3, form.rows, form.columns), 0, -1)
    return flat.reshape(form.shape)


def _openjpeg(data: bytes, form: PixelFormat, stream: Codestream) -> Samples:
    samples: Samples = decode_jpeg_2000(data)
    return samples


def _rle(data: bytes, form: PixelFormat, stream: Codestream) -> Samples:
    if form.bits_allocated == 1:  # eight pixels a byte, as native data has them (PS3.5 annex D and G)
        packed = np.frombuffer(decode_segment(data[64:]), dtype=np.uint8)
        return np.unpackbits(packed, bitorder="little")[: form.rows * form.columns].reshape(form.shape)
    frame = decode_frame(data, form.rows * form.columns, form.bits_allocated, "<")
    planes = np.frombuffer(frame, dtype=f"<u{form.bits_allocated // 8}").reshape(form.samples, form.rows, form.columns)
    return planes[0] if form.samples == 1 else np.moveaxis(planes, 0, -1)


_DECODERS: dict[UID, Callable[[bytes, PixelFormat, Codestream], Samples]] = {
    **dict.fromkeys(JPEG_LOSSY, _pillow),
    **dict.fromkeys(JPEG_LOSSLESS, _gdcm),
    **dict.fromkeys(JPEG_LS, _charls),
    **dict.fromkeys(JPEG_2000, _openjpeg),
    RLELossless: _rle,
}
COMPRESSED = tuple(_DECODERS)
