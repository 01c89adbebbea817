"""What every source yields: records of labelled images that can be read one by one.

Tested in ``tests/client/sources/files/test_scans.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from client.reading.dicom import Measured
from client.sources.acquisition import Acquisition
from client.sources.visit import Sighting
from tasks.task import Picture, Scan, Task

Side = Literal["train", "validation"]
"""Which side of the split a patient is on."""


SERIES_OF = "series of "
"""How the sentences of a listing begin that say what series are called."""
OTHER_SERIES, NOTE = "OTHER_SERIES:", "NOTE:"
"""Prefixes of what is counted but costs nothing: a series that was not taken, and what is odd about one that was."""


class Unreadable(Exception):
    """An image cannot be read; ``reason`` is one word from a fixed list, for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def signature_of(path: Path) -> str:
    """Changes whenever a file's bytes may have changed: its size and modification time."""
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"


@dataclass(frozen=True)
class Record:
    """One labelled image.

    Attributes:
        patient_id: the patient's number as its issuer gave it. Stays in the hospital, is not stored by us.
        image_id: what tells this image from all others of its source.
        label: the truth of the task's question, see ``tasks/answers.py``.
        signature: changes whenever the image's bytes may have changed.
        read: decodes the image, or of a scan the slice in the middle, by which it is known again and whose past is
            looked for. Raises ``Unreadable``.
        read_scan: decodes all of an examination, where the source has such; from what decodes a frame, such as
            ``Decoder.read_values``, or ``None`` for this process. Raises ``Unreadable``.
        acquisition: what its header tells; ``None`` for images derived for research, which have no header.
        findings: truths of the task's secondary findings, ``None`` where not known; empty where none is known.
        read_masks: reads what was outlined on a picture, bool of shape (structures, rows, columns); ``None`` where
            nobody has looked. Raises ``Unreadable``.
        side: the patient's side of a published split; ``None`` leaves it to the hospital's key, as for every patient
            of a hospital's own archive.
    """

    patient_id: str
    image_id: str
    label: float
    signature: str
    read: Callable[[], Picture]
    read_scan: Callable[[Callable[[Path, int], Measured] | None], Scan] | None = None
    acquisition: Acquisition | None = None
    findings: tuple[float | None, ...] = ()
    read_masks: Callable[[], NDArray[np.bool_]] | None = None
    side: Side | None = None


@dataclass(frozen=True)
class Listing:
    """All records of a source, counts of what was left out by reason, and warnings for people."""

    records: list[Record]
    left_out: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    """What is known of the patients of these records; without an issuer it is the source's."""
    unwilling: list[Sighting] = field(default_factory=list)
    """Images of patients who have withdrawn, to be known again under another number."""


S = TypeVar("S", contravariant=True)


class Lister(Protocol[S]):
    """A kind of source: a function from its settings to its records.

    A lister never returns an image of a withdrawn patient; it counts it as ``WITHDRAWN``. What it raises is a
    ``SiteError``; a single bad image is no error but a count.
    """

    def __call__(self, source: S, task: Task, withdrawn: frozenset[str], /) -> Listing: ...
