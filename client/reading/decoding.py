"""Decoding in separate processes (``client/reading/processes.py``), so that a bad file affects only itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from client.reading.dicom import FrameReader, Measured
from client.reading.processes import Answer, DecoderLimits, LimitedProcesses, serve_requests
from tasks.task import Picture


def together(read: Callable[[int], Picture], frame: int, beside: tuple[int, ...]) -> Picture:
    """A frame's picture with others of its file beside it; ``read`` reads one of them."""
    picture = read(frame)
    return replace(picture, beside=tuple(read(other).pixels for other in beside)) if beside else picture


class Decoder:
    """A pool of decoding processes; ``with Decoder() as decoder: decoder.read(path, frame)``.

    Safe to share between threads: each call takes one idle process.
    """

    def __init__(self, time_limit_s: float = 30.0, memory_mb: int = 2048, workers: int = 1) -> None:
        """Declare it; the processes start with the ``with`` block.

        The largest frame that is decoded at all (``MAX_PIXELS`` in colour) takes about 2 GiB.
        """
        self._number = workers
        self._processes = LimitedProcesses(__name__, DecoderLimits(time_limit_s, memory_mb), workers)

    def __enter__(self) -> Decoder:
        self._processes.start(self._number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.stop()

    def read(self, path: Path, frame: int = 0, beside: tuple[int, ...] = ()) -> Picture:
        """``client.reading.dicom.read_frame`` in another process, and of other frames that are read together with it.

        Raises:
            UnreadableDicom: as there, or TIME_LIMIT, MEMORY_LIMIT, DECODER_DIED.
            DecoderNotStarted: a process cannot be started.
        """
        return together(lambda one: self._picture(path, one), frame, beside)

    def _picture(self, path: Path, frame: int) -> Picture:
        head, (pixels,) = self._ask("picture", path, frame)
        spacing = head["spacing_mm"]
        boxes = tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in head["regions"])
        return Picture(pixels, boxes, None if spacing is None else (float(spacing[0]), float(spacing[1])))

    def read_values(self, path: Path, frame: int = 0) -> Measured:
        """``client.reading.dicom.read_values`` in another process; raises as ``read`` does."""
        head, (values, *padded) = self._ask("values", path, frame)
        return Measured(values, str(head["unit"]), padded[0].astype(np.bool_) if padded else None)

    def _ask(self, what: str, path: Path, frame: int) -> Answer:
        if not self._processes.processes:
            raise RuntimeError("a Decoder works only inside its `with` block")
        return self._processes.ask({"what": what, "path": os.fspath(path), "frame": frame})


def serve(descriptor: float, time_limit_s: float, memory_mb: float) -> None:
    """The decoding process."""
    reader = FrameReader()
    serve_requests(descriptor, time_limit_s, memory_mb, lambda request: _answer(reader, request))


def _answer(reader: FrameReader, request: dict[str, Any]) -> Answer:
    path, frame = Path(request["path"]), int(request["frame"])
    if request["what"] == "picture":
        picture = reader.picture(path, frame)
        return {"regions": picture.regions, "spacing_mm": picture.spacing_mm}, [picture.pixels]
    measured = reader.measured(path, frame)
    padded = [] if measured.padded is None else [measured.padded.astype(np.uint8)]
    return {"unit": measured.unit}, [measured.values, *padded]
