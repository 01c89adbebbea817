"""From a source's record to a prepared example: decode, examine, black out, transform, store.

DICOM is decoded in separate processes (``client/reading/decoding.py``), as many as the machine has processors; the rest
runs in threads. At most a few images per process are in memory at any time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from client.cohort.cache import ExampleCache
from client.cohort.near_duplicates import fingerprint
from client.cohort.soundness import require_apart, require_sound_example, require_sound_picture, require_sound_scan
from client.pixels.refusal import UnreadableDicom
from client.reading.decoding import Decoder
from client.reading.evidence import PixelEvidence, examine
from client.sources.frame import Frame
from client.sources.labels.outlines import ReadMasks
from client.sources.record import Record, Unreadable
from tasks.imaging.volumes import NoExample
from tasks.task import Picture, Task

_FEW = 40
"""Number of images that justifies starting one more decoding process."""
_MOST = 8
"""Decoding processes that this process can keep busy."""


J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class Job:
    """A record to prepare, and the name under which its example is stored."""

    record: Record
    example: str


@dataclass(frozen=True)
class Prepared:
    """What is known about a prepared image.

    Attributes:
        evidence: found in the whole frame.
        fingerprint: of the example, see ``client/cohort/near_duplicates.py``.
        outlined: whether somebody has outlined the task's structures, or found none.
    """

    evidence: PixelEvidence
    fingerprint: int
    outlined: bool = False


class Decoding:
    """Decoding processes that start with the first DICOM file, and serve every ingest until the block ends."""

    def __init__(self) -> None:
        """Declare it; nothing starts yet."""
        self._stack = ExitStack()
        self._decoder: Decoder | None = None
        self.workers = 0

    def __enter__(self) -> Decoding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def decoder(self, images: int) -> Decoder:
        """The processes; when started, as many as this number of images justifies."""
        if self._decoder is None:
            self.workers = min(os.cpu_count() or 1, _MOST, -(-images // _FEW))
            self._decoder = self._stack.enter_context(Decoder(workers=self.workers))
        return self._decoder


def prepare(
    jobs: Sequence[Job], task: Task, cache: ExampleCache, decoding: Decoding
) -> Generator[tuple[Job, Prepared | Unreadable]]:
    """Prepare images in parallel; results come in the order of the jobs. Close it before ``decoding`` ends.

    Raises:
        CacheFull: see ``ExampleCache.save``.
        DecoderNotStarted: decoding processes do not come up on this machine.
    """
    dicom = any(isinstance(job.record.read, Frame) for job in jobs)
    decoder = decoding.decoder(len(jobs)) if dicom else None
    return side_by_side(lambda job: _prepared(job, task, cache, decoder), jobs, decoding)


def side_by_side(work: Callable[[J], R], jobs: Iterable[J], decoding: Decoding) -> Generator[tuple[J, R]]:
    """The results of ``work`` for each job, in the order of the jobs; threads keep all decoding processes busy.

    Close it before ``decoding`` ends. A few jobs a process are under way or waiting to be taken, however many there
    are.
    """
    number = max(1, decoding.workers) + 1
    waiting: deque[tuple[J, Future[R]]] = deque()
    with ThreadPoolExecutor(number) as threads:
        try:
            for job in jobs:
                waiting.append((job, threads.submit(work, job)))
                if len(waiting) > 2 * number:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _first(waiting: deque[tuple[J, Future[R]]]) -> tuple[J, R]:
    job, future = waiting.popleft()
    return job, future.result()


def _prepared(job: Job, task: Task, cache: ExampleCache, decoder: Decoder | None) -> Prepared | Unreadable:
    try:
        picture = _read(job.record, decoder)
        example, masks = (_of_scan if task.sequences else _of_picture)(job.record, picture, task, decoder)
    except Unreadable as refusal:
        return refusal
    except NoExample as refusal:
        return Unreadable(refusal.reason, str(refusal))
    acquisition = job.record.acquisition
    bits = None if acquisition is None else acquisition.bits_stored
    evidence = examine(picture.pixels, bits, blacked_out(picture).pixels)
    cache.save(job.example, example, masks)
    return Prepared(evidence, fingerprint(example), masks is not None)


_Made = tuple[NDArray[np.float32], NDArray[np.bool_] | None]


def _of_picture(record: Record, picture: Picture, task: Task, decoder: Decoder | None) -> _Made:
    outlined = replace(blacked_out(picture), masks=_masks(record, decoder))
    require_apart(outlined.masks, task)
    example = task.read_example(outlined)
    masks = None if outlined.masks is None or task.read_masks is None else task.read_masks(outlined)
    require_sound_picture(outlined, example)
    return example, masks


def _masks(record: Record, decoder: Decoder | None) -> NDArray[np.bool_] | None:
    if record.read_masks is None:
        return None
    if decoder is not None and isinstance(record.read_masks, ReadMasks):
        return record.read_masks.read(decoder.read_values)
    return record.read_masks()


def _of_scan(record: Record, _middle: Picture, task: Task, decoder: Decoder | None) -> _Made:
    if record.read_scan is None:
        raise Unreadable("NOT_A_SCAN", f"{task.name} reads scans, but this kind of source has only single images")
    scan = record.read_scan(None if decoder is None else decoder.read_values)
    require_sound_scan(scan, task)
    require_apart(scan.masks, task)
    example = task.read_example(scan)
    require_sound_example(example)
    return example, None if scan.masks is None or task.read_masks is None else task.read_masks(scan)


def _read(record: Record, decoder: Decoder | None) -> Picture:
    if decoder is None or not isinstance(record.read, Frame):
        return record.read()
    try:
        return decoder.read(record.read.path, record.read.index, record.read.beside)
    except UnreadableDicom as error:
        raise Unreadable(str(error.reason), str(error)) from error


def blacked_out(picture: Picture) -> Picture:
    """The image with everything outside its ultrasound regions black, where names, dates and scales are burned in."""
    if not picture.regions:
        return picture
    inside = np.zeros(picture.pixels.shape, np.float32)
    for left, top, right, bottom in picture.regions:
        inside[top:bottom, left:right] = 1
    return replace(picture, pixels=picture.pixels * inside, beside=tuple(plane * inside for plane in picture.beside))
