"""What archives answer to a search, by QIDO-RS or C-FIND alike.

Tested in ``tests/client/sources/pacs/test_walk.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

Match = Mapping[str, tuple[str, ...]]
"""One match: values by keyword. What the archive does not tell is missing, what it tells as empty is ``()``."""

UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
"""The unique key of each level (PS3.4 C.6.2.1)."""
PATIENT = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
"""Who the patient is. Archives return them with the study (PS3.4 C.6.2.1.2, PS3.18 table 10.6.3-3)."""
RETURNED: dict[str, tuple[str, ...]] = {
    "STUDY": (
        *PATIENT,
        *("AccessionNumber", "StudyDate", "StudyTime", "StudyDescription", "ModalitiesInStudy"),
        *("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
    ),
    "SERIES": (
        *("Modality", "BodyPartExamined", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime"),
        "NumberOfSeriesRelatedInstances",
    ),
    "IMAGE": (
        *("SOPClassUID", "AvailableTransferSyntaxUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns"),
        *("ContentDate", "ContentTime", "BurnedInAnnotation"),
    ),
}
"""What is asked for at each level besides the unique keys."""


@dataclass(frozen=True)
class SearchAnswer:
    """The matches of one search, each with a valid unique key.

    Attributes:
        cut: what the archive says about matches that it left out; "" if it says nothing, which proves nothing.
    """

    matches: list[Match]
    cut: str = ""


class Search(Protocol):
    """An open way to ask an archive. All methods raise ``ArchiveUnreachable`` and ``ArchiveRefused``."""

    def studies(self, keys: Mapping[str, str]) -> SearchAnswer:
        """DICOM studies by matching keys, such as ``{"StudyDate": "20260101-"}``."""

    def series(self, study: str) -> SearchAnswer:
        """The series of a study."""

    def instances(self, study: str, series: str) -> SearchAnswer:
        """The instances of a series."""


class Searchable(Protocol):
    """What can be searched."""

    def searching(self) -> AbstractContextManager[Search]:
        """Open a way to ask, until the block ends."""


def value(match: Match, keyword: str) -> str:
    """The first value, "" if there is none."""
    return next(iter(match.get(keyword, ())), "")


def number(match: Match, keyword: str) -> int | None:
    """A count, ``None`` where the archive does not tell."""
    text = value(match, keyword)
    return int(text) if text.isdecimal() else None
