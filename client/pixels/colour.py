"""Colour to RGB, and to the brightness used by tasks on grey images (PS3.3 C.7.6.3.1.2).

Tested in ``tests/client/reading/test_dicom.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.pixels.codestream import Codestream
from client.pixels.pixel_format import PixelFormat
from client.pixels.refusal import Reason, UnreadableDicom

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as the Y of YBR_FULL
_TO_RGB = np.array([[1, 0, 1.402], [1, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587], [1, 1.772, 0]], np.float32)
_PARTIAL = ("YBR_PARTIAL_422", "YBR_PARTIAL_420")


def colour_space(form: PixelFormat, stream: Codestream | None) -> str:
    """The colour space of decoded three-component samples: RGB, YBR_FULL or YBR_PARTIAL.

    The codestream's own word counts for more than the header's: the encoder that wrote it knew what it had done, while
    headers are often kept from before the compression.

    Raises:
        UnreadableDicom: COLOUR_CONFLICT.
    """
    photometric = form.photometric
    if photometric in ("YBR_ICT", "YBR_RCT") and (stream is None or stream.colour != "RGB"):
        raise UnreadableDicom(Reason.COLOUR_CONFLICT, f"{photometric}, but no component transform in the codestream")
    if photometric == "YBR_PARTIAL_420" and stream is None:
        raise UnreadableDicom(Reason.UNSUPPORTED_PHOTOMETRIC, f"{photometric} without compression")
    # JPEG 2000 undoes its own transform to what the header names; in JPEG the marker tells what the components are.
    if stream is not None and stream.colour == "YBR":
        return "YBR_PARTIAL" if photometric in _PARTIAL else "YBR_FULL"
    if photometric == "RGB" and stream is not None and stream.subsampled:
        raise UnreadableDicom(Reason.COLOUR_CONFLICT, "RGB whose green and blue have half the resolution")
    if photometric in ("RGB", "YBR_ICT", "YBR_RCT") or (stream is not None and stream.colour == "RGB"):
        return "RGB"
    return "YBR_PARTIAL" if photometric in _PARTIAL else "YBR_FULL"


def to_luma(samples: NDArray[Any], space: str, high: int) -> NDArray[np.float32]:
    """Brightness in [0, 1], float32 of shape (rows, columns); in YBR spaces it is Y itself."""
    if space == "RGB":
        return np.asarray(_unit(samples, high) @ _LUMA, dtype=np.float32).clip(0, 1)
    return _full_range(samples, space, high)[..., 0].clip(0, 1)


def to_rgb(samples: NDArray[Any], space: str, high: int) -> NDArray[np.float32]:
    """RGB in [0, 1], float32 of shape (rows, columns, 3)."""
    if space == "RGB":
        return _unit(samples, high)
    ybr = _full_range(samples, space, high)
    middle = np.float32((high + 1) // 2 / high) if space == "YBR_FULL" else np.float32(0.5)
    return np.asarray((ybr - np.array([0, middle, middle], np.float32)) @ _TO_RGB.T, dtype=np.float32).clip(0, 1)


def _unit(samples: NDArray[Any], high: int) -> NDArray[np.float32]:
    return samples.astype(np.float32) / np.float32(high)


def _full_range(samples: NDArray[Any], space: str, high: int) -> NDArray[np.float32]:
    """Partial range has black at 16, white at 235 and colour from 16 to 240, of 255 (ITU-R BT.601)."""
    if space == "YBR_FULL":
        return _unit(samples, high)
    step = np.float32((high + 1) / 256)
    full = (samples.astype(np.float32) / step - np.float32(16)) / np.array([219, 224, 224], np.float32)
    return full.astype(np.float32)
