"""How an image was acquired, from its header: the contract's judgement, and facts to show people.

Tested in ``tests/client/reading/test_contract.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

from pydicom import Dataset

from client.pixels.header import transfer_syntax
from client.reading.contract import Declared, Judgement, bits_stored, judge_header, value_of
from client.sources.settings import Source
from tasks import contract as contracts
from tasks.task import Task

_TOLD = ("Modality", "Manufacturer", "ManufacturerModelName", "BodyPartExamined", "Rows", "Columns", "BitsStored",
         "PatientSex", "PatientAge")  # fmt: skip
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


def acquisition_reader(source: Source, task: Task) -> Callable[[Dataset], Acquisition]:
    """Reads headers of a source under the task's contract."""
    return reader_under(Declared(source.organ_declared, source.organ_words), task)


def reader_under(declared: Declared, task: Task) -> Callable[[Dataset], Acquisition]:
    """Reads headers under the task's contract, with what is declared for all of them."""
    contract = contracts.of_task(task.name)

    def read(header: Dataset) -> Acquisition:
        return Acquisition(judge_header(contract, header, declared), bits_stored(header), _facts(header))

    return read


def _facts(header: Dataset) -> str:
    attributes = {"TransferSyntax": transfer_syntax(header).name}
    for keyword in _TOLD:
        try:
            value = value_of(header, keyword)
        except Exception:  # pydicom converts values when they are asked for, and a broken one may raise anything
            continue
        if value not in (None, ""):
            attributes[keyword] = str(value)[:_LONGEST]
    return sys.intern(json.dumps(attributes, sort_keys=True))
