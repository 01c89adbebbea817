"""How an image was acquired, from its header: the contract's judgement, and facts to show people."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from pydicom import Dataset

from client.pixels.calibration import spacing_mm
from client.pixels.groups import frame_value
from client.pixels.header import transfer_syntax
from client.reading.contract import Declared, Judgement, bits_stored, judge_frames, judge_header, value_of
from client.sources.settings import Source
from tasks import contract as contracts
from tasks.task import Task

_TOLD = ("Modality", "Manufacturer", "ManufacturerModelName", "BodyPartExamined", "Rows", "Columns", "BitsStored",
         "PatientSex", "PatientAge")  # fmt: skip
SPACING_MM, THICKNESS_MM = "SpacingMm", "SliceThicknessMm"
"""Facts with a length to three digits: so few that equal ones are one object."""
_LONGEST = 64


@dataclass(frozen=True)
class Acquisition:
    """What is kept of a header.

    Attributes:
        judgement: of the contract's header rules.
        bits_stored: BitsStored.
        facts: some attributes as JSON, none of which names a person, a date or a place; equal ones are one object.
    """

    judgement: Judgement
    bits_stored: int | None
    facts: str


@dataclass(frozen=True)
class AcquisitionReader:
    """Reads headers under the contract of a task, with what is declared for all of them."""

    declared: Declared
    task: str

    def __call__(self, header: Dataset) -> Acquisition:
        """What the first frame's header tells."""
        judged = judge_header(contracts.of_task(self.task), header, self.declared)
        return Acquisition(judged, bits_stored(header), _facts(header))

    def frames(self, header: Dataset, number: int) -> tuple[Judgement, ...]:
        """The judgement of each of so many frames of an enhanced image, or one where all are alike."""
        judged = judge_frames(contracts.of_task(self.task), header, self.declared, number)
        return judged if len(set(judged)) > 1 else judged[:1]


def acquisition_reader(source: Source, task: Task) -> AcquisitionReader:
    """Reads headers of a source under the task's contract."""
    accepted = source.burned_in_annotation == "accept"
    return reader_under(Declared(source.organ_declared, source.organ_words, accepted, source.series_words), task)


def reader_under(declared: Declared, task: Task) -> AcquisitionReader:
    """Reads headers under the task's contract, with what is declared for all of them."""
    return AcquisitionReader(declared, task.name)


def _facts(header: Dataset) -> str:
    attributes = {"TransferSyntax": transfer_syntax(header).name}
    for keyword in _TOLD:
        try:
            value = value_of(header, keyword)
        except Exception:  # pydicom converts values when they are asked for, and a broken one may raise anything
            continue
        if value not in (None, ""):
            attributes[keyword] = str(value)[:_LONGEST]
    return sys.intern(json.dumps(attributes | _lengths(header), sort_keys=True))


def _lengths(header: Dataset) -> dict[str, str]:
    """The larger spacing of the first frame's pixels and the thickness of its slice, as far as the header has them."""
    readers: dict[str, Callable[[], float]] = {
        SPACING_MM: lambda: max(spacing_mm(header) or (0.0,)),
        THICKNESS_MM: lambda: float(frame_value(header, 0, "SliceThickness") or 0),
    }
    lengths = {}
    for name, read in readers.items():
        with suppress(Exception):  # as above
            if 0 < (length := read()) < math.inf:
                lengths[name] = f"{length:.3g}"
    return lengths
