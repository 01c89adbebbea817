"""QIDO-RS as a search (PS3.18 section 10.6).

Tested in ``tests/client/sources/pacs/test_dicomweb.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom.datadict import keyword_for_tag

from client.errors import ArchiveRefused
from client.sources.pacs.search import RETURNED, UNIQUE, Match, SearchAnswer, value
from client.sources.pacs.spool import InstanceMissing, is_uid
from client.sources.settings import DicomwebSource

QidoMatch = dict[str, Any]
"""One match in the DICOM JSON model (PS3.18 annex F)."""
_PROCEDURE = "ProcedureCodeSequence"
_HELD = "AvailableTransferSyntaxUID"
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


class WebSearch:
    """A QIDO-RS service."""

    def __init__(
        self,
        source: DicomwebSource,
        client: DICOMwebClient,
        session: requests.Session,
        insist: Callable[[Callable[[], list[QidoMatch]]], list[QidoMatch]],
    ) -> None:
        """Use ``DicomwebArchive.searching``.

        Args:
            insist: repeats a request as often as the settings say; raises ``InstanceMissing`` if it is refused.
        """
        self._source, self._client, self._insist = source, client, insist
        self._warned, self._takes_fields, self._metadata_tells = "", True, True
        session.hooks["response"] = [self._note]

    def _note(self, response: requests.Response, *args: Any, **kwargs: Any) -> None:
        """Warning 299 tells of results that were left out (PS3.18 section 8.3.4.4)."""
        warning = response.headers.get("Warning", "")
        self._warned = warning if warning.lstrip().startswith("299") else ""

    def studies(self, keys: Mapping[str, str]) -> SearchAnswer:
        filters = {keyword: wanted for keyword, wanted in keys.items() if wanted}
        more = [keyword for keyword, wanted in keys.items() if not wanted]
        fields = [*RETURNED["STUDY"], *more]
        return self._pages("STUDY", self._client.search_for_studies, fields=fields, search_filters=filters)

    def series(self, study: str) -> SearchAnswer:
        return self._pages("SERIES", self._client.search_for_series, study)

    def instances(self, study: str, series: str) -> SearchAnswer:
        answer = self._pages("IMAGE", self._client.search_for_instances, study, series)
        if not self._metadata_tells or any(match.get(_HELD) for match in answer.matches):
            return answer
        held = self._held_by_metadata(study, series)
        return SearchAnswer([{**match, _HELD: held.get(value(match, UNIQUE["IMAGE"]), ())} for match in answer.matches],
                      answer.cut)  # fmt: skip

    def _held_by_metadata(self, study: str, series: str) -> dict[str, tuple[str, ...]]:
        """AvailableTransferSyntaxUID from the metadata; an archive that omits it once is not asked again."""
        found = map(_match, self._ask(lambda: self._client.retrieve_series_metadata(study, series)))
        held = {value(match, UNIQUE["IMAGE"]): match.get(_HELD, ()) for match in found}
        self._metadata_tells = any(held.values())
        return held

    def _pages(
        self,
        level: str,
        search: Callable[..., list[QidoMatch]],
        *names: str,
        fields: Sequence[str] = (),
        **query: Any,
    ) -> SearchAnswer:
        """All matches, page by page. A page may be shorter than requested; only one without new matches is the last.

        Archives that ignore ``offset`` send the first page for ever; what was seen is no news. An archive that warned
        of more on the last page with news, and has none on the next, has a limit on what it gives out.
        """
        found: dict[str, Match] = {}
        offset, cut = 0, ""
        while True:
            asked = partial(search, *names, limit=self._source.page, offset=offset, **query)
            page = [_match(one) for one in self._page(asked, list(fields or RETURNED[level]))]
            news = [one for one in page if is_uid(uid := value(one, UNIQUE[level])) and uid not in found]
            if not news:
                return SearchAnswer(list(found.values()), self._warned or cut)
            found |= {value(one, UNIQUE[level]): one for one in news}
            offset, cut = offset + len(page), self._warned

    def _page(self, search: Callable[..., list[QidoMatch]], fields: list[str]) -> list[QidoMatch]:
        """One page; from an archive that refuses to return what is asked for, with what it returns by itself."""
        if self._takes_fields:
            try:
                return self._insist(partial(search, fields=fields))
            except InstanceMissing:
                self._takes_fields = False
        return self._ask(search)

    def _ask(self, question: Callable[[], list[QidoMatch]]) -> list[QidoMatch]:
        try:
            return self._insist(question)
        except InstanceMissing as error:
            raise ArchiveRefused(
                f"{self._source.url} does not answer a search as DICOMweb requires: {error}; check `url`"
            ) from error


def _match(answer: QidoMatch) -> Match:
    named = {keyword_for_tag(tag): element for tag, element in answer.items()}
    told = {keyword: _texts(element) for keyword, element in named.items() if keyword and element.get("vr") != "SQ"}
    if _PROCEDURE in named:
        codes = [_match(item) for item in named[_PROCEDURE].get("Value", ())]
        told[_PROCEDURE] = tuple(value(code, "CodeValue") for code in codes)
    return told


def _texts(element: Mapping[str, Any]) -> tuple[str, ...]:
    found = (_text(one) for one in element.get("Value", ()) if one is not None)
    return tuple(text for text in found if text)


def _text(one: object) -> str:
    if isinstance(one, Mapping):  # a person's name (PS3.18 F.2.2)
        return "=".join(str(one.get(group) or "").strip() for group in _GROUPS).rstrip("=")
    return str(one).strip()
