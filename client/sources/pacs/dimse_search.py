"""C-FIND as a search (PS3.4 annex C, Study Root).

Tested in ``tests/client/sources/pacs/test_dimse.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from client.errors import ArchiveUnreachable
from client.sources.pacs.association import RemoteArchive
from client.sources.pacs.association_client import SearchAssociation
from client.sources.pacs.pace import Pace
from client.sources.pacs.retry import Temporary, persistently
from client.sources.pacs.search import RETURNED, UNIQUE, Match, SearchAnswer, value
from client.sources.pacs.spool import is_uid
from client.sources.settings import DimseSource

T = TypeVar("T")
UNICODE, _PROCEDURE = "ISO_IR 192", "ProcedureCodeSequence"


class DimseSearch:
    """A C-FIND provider, over one association as long as it stands."""

    def __init__(self, source: DimseSource | RemoteArchive, line: SearchAssociation, pace: Pace) -> None:
        self._source, self._line, self._pace = source, line, pace

    def studies(self, keys: Mapping[str, str]) -> SearchAnswer:
        return self._answer("STUDY", keys)

    def series(self, study: str) -> SearchAnswer:
        return self._answer("SERIES", {"StudyInstanceUID": study})

    def instances(self, study: str, series: str) -> SearchAnswer:
        return self._answer("IMAGE", {"StudyInstanceUID": study, "SeriesInstanceUID": series})

    def _answer(self, level: str, keys: Mapping[str, str]) -> SearchAnswer:
        identifier = Dataset()
        identifier.SpecificCharacterSet = UNICODE  # otherwise some archives drop what their own default cannot say
        identifier.QueryRetrieveLevel = level
        asked = dict.fromkeys((UNIQUE[level], *RETURNED[level]), "") | dict(keys)
        for keyword, wanted in asked.items():
            setattr(identifier, keyword, _code(wanted) if keyword == _PROCEDURE else wanted or None)
        model = StudyRootQueryRetrieveInformationModelFind
        matches, cut = insist(self._source, lambda: self._line.find(identifier, model), self._pace)
        told = [_match(match) for match in matches]
        return SearchAnswer([match for match in told if is_uid(value(match, UNIQUE[level]))], cut)


def searching_contexts() -> list[PresentationContext]:
    """What is proposed to search. Verification as well: an association without any accepted context is aborted, and
    nobody knows why."""
    return [build_context(StudyRootQueryRetrieveInformationModelFind), build_context(Verification)]


@contextmanager
def searching(source: DimseSource | RemoteArchive, pace: Pace) -> Iterator[DimseSearch]:
    """Searches of this archive, over an association that is opened with the first."""
    with closing(SearchAssociation(source, searching_contexts())) as line:
        yield DimseSearch(source, line, pace)


def insist(source: DimseSource | RemoteArchive, work: Callable[[], T], pace: Pace) -> T:
    """Do the work, as often as the settings say.

    Raises:
        ArchiveUnreachable: it failed each time.
    """
    try:
        return persistently(pace.before(work), source.attempts, source.first_wait_seconds)
    except Temporary as error:
        kept = "; what was retrieved is kept, and the next ingest resumes from there"
        raise ArchiveUnreachable(
            f"the archive {source.called_ae} at {source.host}:{source.port} failed {source.attempts} times, last with: "
            f"{error}. Check that it runs and that this machine can reach it"
            + (kept if isinstance(source, DimseSource) else "")
        ) from error


def _code(value: str) -> list[Dataset]:
    """The item of a code sequence to match, or to return."""
    item = Dataset()
    item.CodeValue = value
    return [item]


def _match(answer: Dataset) -> Match:
    told = {element.keyword: _texts(element.value) for element in answer if element.keyword and element.VR != "SQ"}
    if _PROCEDURE in answer:
        told[_PROCEDURE] = tuple(str(item.get("CodeValue", "")).strip() for item in answer[_PROCEDURE].value)
    return told


def _texts(found: Any) -> tuple[str, ...]:
    """As text; a person's name is one text with its component groups, although it can be iterated."""
    many = found if isinstance(found, list | tuple) or hasattr(found, "append") else [found]
    return tuple(text for one in many if one is not None and (text := str(one).strip()))
