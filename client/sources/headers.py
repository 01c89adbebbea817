"""What is kept of a DICOM file's header, read in separate processes: a header may inflate to gigabytes, or nest for
ever.

What comes back is JSON of the types below, checked against them. Files go to the processes some at a time; where one
kills its process, the others of its batch are asked again one by one.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydicom import Dataset

from client.pixels.groups import frame_value, is_enhanced
from client.pixels.header import open_file
from client.pixels.pixel_format import number_of_frames
from client.pixels.refusal import Reason, UnreadableDicom
from client.reading.contract import Judgement
from client.reading.dicom import DicomImage
from client.reading.processes import Answer, DecoderLimits, LimitedProcesses, serve_requests
from client.reading.segments import SegmentationHeader, is_segmentation, read_segmentation_header
from client.reading.slices import Slice, slices_of
from client.sources.acquisition import Acquisition, AcquisitionReader
from client.sources.header_cache import HeaderCache
from client.sources.own import is_own
from tasks import contract as contracts
from tasks.protocol.study import release

TEXTS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber", "PatientID"),
    *("StudyDate", "Modality", "SeriesDescription", "ProtocolName", "SequenceName", "ScanningSequence", "ImageType"),
    *("ContrastBolusAgent", "EchoTime", "RepetitionTime", "InversionTime", "BodyPartExamined"),
)
"""Attributes that are kept as text."""
_RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_LONGEST = 1024
_BATCH, _FEW = 16, 64
_MOST = min(os.cpu_count() or 1, 8)
_LIMITS = DecoderLimits(time_limit_s=30.0, memory_mb=1024)


@dataclass(frozen=True)
class FileHeader:
    """What is kept of the header of a file with an image.

    Attributes:
        texts: of the attributes ``TEXTS``, without surrounding blanks; "" where absent.
        size: rows and columns; 0 where missing, so that no outline fits.
        frames: how many there are.
        acquisition: what it tells of the first frame; ``None`` of a segmentation, or where nobody has asked.
        judgements: of every frame, or one where all are alike.
        slices: its frames in space, where somebody has asked.
        is_segmentation: whether it is a segmentation, which is no image of the patient.
        segmentation: what it says then; ``None`` where it cannot be understood.
        own: whether Consilium made it.
    """

    texts: dict[str, str]
    size: tuple[int, int]
    frames: int
    acquisition: Acquisition | None
    judgements: tuple[Judgement, ...]
    slices: tuple[Slice, ...]
    is_segmentation: bool
    segmentation: SegmentationHeader | None
    own: bool


@dataclass(frozen=True)
class _Refusal:
    reason: Reason
    detail: str


_ANSWERS = TypeAdapter(list[FileHeader | _Refusal])
_ANSWER: TypeAdapter[FileHeader | _Refusal] = TypeAdapter(FileHeader | _Refusal)
_MAY_PASS = {Reason.UNREADABLE_FILE, Reason.TIME_LIMIT, Reason.MEMORY_LIMIT, Reason.DECODER_DIED}
_KNOWN_AT_ONCE = 1024
_READER: TypeAdapter[AcquisitionReader | None] = TypeAdapter(AcquisitionReader | None)
_PROCESSES = LimitedProcesses(__name__, _LIMITS, _MOST)
atexit.register(_PROCESSES.stop)


def _forget_processes() -> None:
    """A forked process must not talk to those of its parent."""
    _PROCESSES.disown()


os.register_at_fork(after_in_child=_forget_processes)


@dataclass(frozen=True)
class Known:
    """What earlier visits have read of one source.

    Attributes:
        scope: the source; what it no longer has is forgotten.
    """

    cache: HeaderCache
    scope: str


def read_headers(
    paths: Sequence[Path], acquired: AcquisitionReader, in_space: bool = False, known: Known | None = None
) -> Iterator[tuple[Path, FileHeader | UnreadableDicom]]:
    """Headers of files, in their order, or why one cannot be read.

    Args:
        acquired: judges each under a task's contract.
        in_space: also where the frames lie.
        known: files that have not changed since are not opened.

    Raises:
        DecoderNotStarted: no process comes up on this machine.
    """
    return _read(paths, acquired, in_space) if known is None else _read_unknown(paths, acquired, in_space, known)


def plain_headers(paths: Sequence[Path]) -> Iterator[tuple[Path, FileHeader | UnreadableDicom]]:
    """``read_headers`` without a contract."""
    return _read(paths, None, False)


def same_pixels(one: Slice, other: Slice) -> bool:
    """Whether two frames have the same stored values, however they are encoded; ``False`` where one is unreadable."""
    try:
        first, second = (_ask({"what": "digest", "path": os.fspath(s.path), "frame": s.frame}) for s in (one, other))
    except UnreadableDicom:
        return False
    return bool(first["digest"] == second["digest"])


def _read_unknown(
    paths: Sequence[Path], acquired: AcquisitionReader, in_space: bool, known: Known
) -> Iterator[tuple[Path, FileHeader | UnreadableDicom]]:
    contract = contracts.digest_of_task(acquired.task)
    how = json.dumps([release(), contract, in_space, _READER.dump_python(acquired, mode="json")], sort_keys=True)
    scope, names = f"{known.scope}\0{how}", list[bytes]()
    for start in range(0, len(paths), _KNOWN_AT_ONCE):
        some = paths[start : start + _KNOWN_AT_ONCE]
        found = [
            (name, _remembered(path, text)) for path, (name, text) in zip(some, known.cache.get(some, how), strict=True)
        ]
        names += [name for name, _ in found]
        unknown = [path for path, (_, answer) in zip(some, found, strict=True) if answer is None]
        read, fresh = _read(unknown, acquired, in_space), list[tuple[bytes, str]]()
        for path, (name, answer) in zip(some, found, strict=True):
            if answer is None:
                _, answer = next(read)
                fresh += [(name, text)] if (text := _to_remember(answer)) else []
            yield path, answer
        known.cache.put(scope, fresh)
    known.cache.keep_only(scope, names)


def _to_remember(answer: FileHeader | UnreadableDicom) -> str:
    """As it is kept; "" for what may be the machine's fault rather than the file's."""
    if isinstance(answer, FileHeader):
        return _ANSWER.dump_json(answer).decode()
    if answer.reason in _MAY_PASS:
        return ""
    return _ANSWER.dump_json(_Refusal(answer.reason, _printable(answer.detail))).decode()


def _remembered(path: Path, text: str | None) -> FileHeader | UnreadableDicom | None:
    try:
        return None if text is None else _placed(path, _ANSWER.validate_json(text))
    except ValidationError:
        return None


def _read(
    paths: Sequence[Path], acquired: AcquisitionReader | None, in_space: bool
) -> Iterator[tuple[Path, FileHeader | UnreadableDicom]]:
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    number = min(_MOST, -(-len(paths) // _FEW)) or 1
    under = {"acquired": _READER.dump_python(acquired, mode="json"), "in_space": in_space}
    waiting: deque[tuple[Sequence[Path], Future[list[FileHeader | UnreadableDicom]]]] = deque()
    with ThreadPoolExecutor(number) as threads:
        try:
            for batch in batches:
                waiting.append((batch, threads.submit(_batch, batch, under)))
                if len(waiting) > 2 * number:
                    yield from _first(waiting)
            while waiting:
                yield from _first(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _first(
    waiting: deque[tuple[Sequence[Path], Future[list[FileHeader | UnreadableDicom]]]],
) -> Iterator[tuple[Path, FileHeader | UnreadableDicom]]:
    batch, future = waiting.popleft()
    return zip(batch, future.result(), strict=True)


def _batch(paths: Sequence[Path], under: dict[str, Any]) -> list[FileHeader | UnreadableDicom]:
    request = under | {"what": "headers", "paths": [os.fspath(path) for path in paths]}
    try:
        answers = _ANSWERS.validate_json(_ask(request)["headers"])
    except UnreadableDicom as error:
        if len(paths) == 1:
            return [error]
        return [answer for path in paths for answer in _batch([path], under)]
    return [_placed(path, answer) for path, answer in zip(paths, answers, strict=True)]


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    return _PROCESSES.ask(request)[0]


def _placed(path: Path, answer: FileHeader | _Refusal) -> FileHeader | UnreadableDicom:
    """With what the process was not told, and texts that many files share once in memory."""
    if isinstance(answer, _Refusal):
        return UnreadableDicom(answer.reason, answer.detail)
    acquisition = answer.acquisition
    if acquisition is not None:
        acquisition = replace(acquisition, facts=sys.intern(acquisition.facts))
    slices = tuple(replace(one, path=path) for one in answer.slices)
    return replace(answer, slices=slices, acquisition=acquisition)


def serve(descriptor: float, time_limit_s: float, memory_mb: float) -> None:
    """The process that reads headers."""
    serve_requests(descriptor, time_limit_s, memory_mb, _answer)


def _answer(request: dict[str, Any]) -> Answer:
    if request["what"] == "digest":
        return {"digest": _digest(Path(request["path"]), int(request["frame"]))}, ()
    acquired = _READER.validate_python(request["acquired"])
    found = [_header_or_refusal(Path(path), acquired, bool(request["in_space"])) for path in request["paths"]]
    return {"headers": _ANSWERS.dump_json(found).decode()}, ()


def _digest(path: Path, frame: int) -> str:
    with DicomImage(path) as image:
        return hashlib.sha256(np.ascontiguousarray(image.stored(frame)).tobytes()).hexdigest()


def _header_or_refusal(path: Path, acquired: AcquisitionReader | None, in_space: bool) -> FileHeader | _Refusal:
    try:
        return _file_header(path, acquired, in_space)
    except UnreadableDicom as refusal:
        return _Refusal(refusal.reason, _printable(refusal.detail))


def _file_header(path: Path, acquired: AcquisitionReader | None, in_space: bool) -> FileHeader:
    file, header, element = open_file(path)
    file.close()
    if element is None:
        is_contour = str(header.get("SOPClassUID", "")) == _RT_STRUCTURE_SET
        raise UnreadableDicom(Reason.RT_STRUCTURE_SET if is_contour else Reason.NO_PIXEL_DATA, path)
    frames, segments = number_of_frames(header), is_segmentation(header)
    acquisition = None if segments or acquired is None else acquired(header)
    judgements: tuple[Judgement, ...] = () if acquisition is None else (acquisition.judgement,)
    if acquired is not None and not segments and is_enhanced(header):
        judgements = acquired.frames(header, frames)
    return FileHeader(
        texts={keyword: _text(header, keyword) for keyword in TEXTS},
        size=_size(header),
        frames=frames,
        acquisition=acquisition,
        judgements=judgements,
        slices=() if segments or not in_space else tuple(slices_of(Path(), header)),
        is_segmentation=segments,
        segmentation=_segmentation(header) if segments else None,
        own=is_own(header),
    )


def _segmentation(header: Dataset) -> SegmentationHeader | None:
    try:
        return read_segmentation_header(header)
    except UnreadableDicom:
        return None


def _text(header: Dataset, keyword: str) -> str:
    try:
        value = frame_value(header, 0, keyword)
        if keyword == "ContrastBolusAgent" and not value and header.get("ContrastBolusAgentSequence"):
            value = header.ContrastBolusAgentSequence[0].get("CodeMeaning")  # as enhanced images have it
    except Exception:  # pydicom converts values when they are asked for, and a broken one may raise anything
        return ""
    several = value if isinstance(value, list) or type(value).__name__ == "MultiValue" else [value]
    return _printable("\\".join("" if one is None else str(one).strip() for one in several)[:_LONGEST])


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _size(header: Dataset) -> tuple[int, int]:
    try:
        return int(header.Rows), int(header.Columns)
    except (AttributeError, TypeError, ValueError):
        return 0, 0
