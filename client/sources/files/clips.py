"""Clips of public image sets: GIF, and video files where PyAV (``pip install consilium-fl[clips]``) is installed.

Videos are lossy, and their decoders large: a hospital's own images are never read this way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from client.errors import SiteMisconfigured
from client.reading.decoding import together
from client.sources.record import Unreadable
from tasks.task import Picture

Grey = NDArray[np.uint8]

_VIDEOS = (".avi", ".m4v", ".mov", ".mp4", ".mpeg", ".mpg")
MAX_FRAMES = 100_000
"""Longer clips are refused before they are decoded."""


def is_clip(path: Path) -> bool:
    """Whether the name is that of a video or a GIF, which may have one frame or many."""
    return path.suffix.lower() in (*_VIDEOS, ".gif")


class Clip:
    """Some frames of one clip, which is decoded only once.

    Frames are kept from the first question until each was handed out. Several threads may ask.
    """

    def __init__(
        self,
        path: Path,
        choose: Callable[[int], tuple[int, ...]],
        max_pixels: int,
        beside: Callable[[int], tuple[int, ...]] = lambda _: (),
    ) -> None:
        """Count its frames without decoding them, and choose some.

        Args:
            choose: from the number of frames to the numbers of those that are wanted, in order.
            beside: likewise to those that are read together with the one that is wanted.
            max_pixels: larger frames are refused before they are decoded.

        Raises:
            SiteMisconfigured: it is a video, and PyAV is not installed.
            Unreadable: DECODE_FAILED, it is no clip or broken; TOO_LARGE.
        """
        gif = path.suffix.lower() == ".gif"
        self._path, self._decode = path, _gif_frames if gif else _video_frames
        with _refusing(path):
            number, size = (_gif_size if gif else _video_size)(path)
        if size > max_pixels or number > MAX_FRAMES:
            raise Unreadable("TOO_LARGE", f"{path}: {number} frames of {size} pixels")
        self.wanted, self._beside = choose(number), beside(number)
        self._kept: dict[int, Grey] = {}
        self._lock = threading.Lock()

    def picture(self, frame: int) -> Picture:
        """One of the chosen frames, grey in [0, 1], with those that are read together with it.

        Raises:
            Unreadable: DECODE_FAILED, or CONSTANT_IMAGE.
        """
        return together(lambda one: Picture(self._grey(one)), frame, self._beside)

    def _grey(self, frame: int) -> NDArray[np.float32]:
        sought = {*self.wanted, *self._beside}
        with self._lock:
            if frame not in self._kept:
                with _refusing(self._path), closing(self._decode(self._path)) as frames:
                    first = islice(enumerate(frames), max(sought) + 1)
                    self._kept = {number: pixels for number, pixels in first if number in sought}
            pixels = self._kept.pop(frame, None)
        if pixels is None:
            raise Unreadable("DECODE_FAILED", f"{self._path} ends before frame {frame}")
        if pixels.min() == pixels.max():
            raise Unreadable("CONSTANT_IMAGE", f"{self._path} frame {frame}")
        return pixels.astype(np.float32) / np.float32(255)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow raises all of these
        raise Unreadable("DECODE_FAILED", f"{path}: {error}") from error


def _gif_size(path: Path) -> tuple[int, int]:
    """How many frames, and how many pixels in one."""
    with Image.open(path, formats=("GIF",)) as image:
        return int(getattr(image, "n_frames", 1)), image.width * image.height


def _gif_frames(path: Path) -> Generator[Grey]:
    with Image.open(path, formats=("GIF",)) as image:
        for frame in ImageSequence.Iterator(image):
            yield np.asarray(frame.convert("L"))


def _video_size(path: Path) -> tuple[int, int]:
    """As for a GIF. Video headers often lack the number of frames or are wrong, so packets are counted."""
    av = _pyav()
    try:
        with av.open(path, metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            return sum(packet.size > 0 for packet in container.demux(stream)), stream.width * stream.height
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(error) from error


def _video_frames(path: Path) -> Generator[Grey]:
    av = _pyav()
    try:
        with av.open(path, metadata_errors="ignore") as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="gray")
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(error) from error


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise SiteMisconfigured(
            "this set has videos, which need PyAV: pip install -c constraints.txt 'consilium-fl[clips]'"
        ) from error
    return av
