"""Source: an archive that uses DICOMweb. QIDO-RS searches (PS3.18 section 10.6), WADO-RS retrieves (section 10.4)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import requests
from dicomweb_client.web import DICOMwebClient

from client.errors import ArchiveRefused, ArchiveUnreachable
from client.sources.pacs.archive import list_archive
from client.sources.pacs.retry import Temporary, persistently
from client.sources.pacs.scope import in_scope
from client.sources.pacs.spool import Instance, InstanceMissing, MissingReason, Spool, is_uid
from client.sources.pacs.wado import Timeouts, retrieve
from client.sources.pacs.web import named, session_for
from client.sources.record import Listing
from client.sources.settings import DicomwebSource, Scope
from tasks.task import Task

log = logging.getLogger(__name__)
T = TypeVar("T")
QidoMatch = dict[str, Any]
"""One match in the DICOM JSON model (PS3.18 annex F)."""

_PATIENT, _ACCESSION, _STUDY, _SERIES, _UID = "00100020", "00080050", "0020000D", "0020000E", "00080018"
_MODALITY, _BODY_PART, _CLASS, _HELD = "00080060", "00180015", "00080016", "00083002"


def list_dicomweb(source: DicomwebSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """Retrieve what is new and labelled into the spool, and list it; see ``list_archive`` for what it raises."""
    with closing(session_for(source)) as session:
        return list_archive(source, DicomwebArchive(source, session), f"DICOMweb {source.url}", task, withdrawn)


class DicomwebArchive:
    """A DICOMweb service; the session carries credentials and certificates."""

    def __init__(self, source: DicomwebSource, session: requests.Session) -> None:
        self._source, self._session = source, session
        self._url = source.url.rstrip("/")
        self._client = DICOMwebClient(
            self._url, session, timeout=(source.connect_seconds, source.silence_seconds), permissive_uid=True
        )
        self._client.set_http_retry_params(retry=False)  # ours has jitter, and knows what is worth another try
        self._metadata_tells = True

    def check(self) -> None:
        """Request one DICOM study.

        Raises:
            ArchiveUnreachable, ArchiveRefused: named with a remedy.
        """
        self._ask(lambda: self._client.search_for_studies(limit=1))

    def find(self, scope: Scope) -> tuple[list[Instance], Counter[str]]:
        """DICOM studies by modality and date, their series by modality and body part, and the instances of those."""
        left_out: Counter[str] = Counter()
        found = [
            instance
            for study in self._studies(scope)
            for series in self._pages(self._client.search_for_series, _SERIES, _value(study, _STUDY))
            if in_scope(scope, _value(series, _MODALITY), _value(series, _BODY_PART), left_out)
            for instance in self._instances(study, series)
        ]
        return found, left_out

    def _studies(self, scope: Scope) -> Iterator[QidoMatch]:
        """One search per modality: QIDO-RS cannot search for either of two (PS3.18 table 8.3.4-1)."""
        seen: set[str] = set()
        dates = {"StudyDate": scope.dates()} if scope.dates() else {}
        for modality in scope.modalities:
            filters = {"ModalitiesInStudy": modality, **dates}
            for study in self._pages(self._client.search_for_studies, _STUDY, search_filters=filters):
                if (uid := _value(study, _STUDY)) not in seen:
                    seen.add(uid)
                    yield study

    def _instances(self, study: QidoMatch, series: QidoMatch) -> Iterator[Instance]:
        names = _value(study, _STUDY), _value(series, _SERIES)
        answers = self._pages(self._client.search_for_instances, _UID, *names, fields=["AvailableTransferSyntaxUID"])
        matches = list(answers)
        held = {_value(match, _UID): _values(match, _HELD) for match in matches}
        if matches and not any(held.values()):
            held = self._held_by_metadata(*names)
        for match in matches:
            uid = _value(match, _UID)
            yield Instance(
                *names,
                uid=uid,
                patient_id=_value(study, _PATIENT) or _value(match, _PATIENT),
                accession=_value(study, _ACCESSION) or _value(match, _ACCESSION),
                modality=_value(series, _MODALITY),
                sop_class=_value(match, _CLASS),
                held=frozenset(held.get(uid, ())),
            )

    def _held_by_metadata(self, study: str, series: str) -> dict[str, list[str]]:
        """AvailableTransferSyntaxUID from the metadata; an archive that omits it once is not asked again."""
        if not self._metadata_tells:
            return {}
        answers = self._ask(lambda: self._client.retrieve_series_metadata(study, series))
        held = {_value(answer, _UID): _values(answer, _HELD) for answer in answers}
        self._metadata_tells = any(held.values())
        return held

    def _pages(
        self, search: Callable[..., list[QidoMatch]], key: str, *names: str, **query: Any
    ) -> Iterator[QidoMatch]:
        """All matches, page by page. A page may be shorter than requested; only one without new matches is the last.

        Archives that ignore ``offset`` send the first page for ever; what was seen is no news.
        """
        seen: set[str] = set()
        offset = 0
        while True:
            page = self._ask(lambda: search(*names, limit=self._source.page, offset=offset, **query))  # noqa: B023
            news = [match for match in page if is_uid(_value(match, key)) and _value(match, key) not in seen]
            if not news:
                return
            seen.update(_value(match, key) for match in news)
            offset += len(page)
            yield from news

    def fetch(self, instances: list[Instance], spool: Spool) -> Counter[MissingReason]:
        """One request per image, so that a resumed retrieval repeats at most one."""
        refused: Counter[MissingReason] = Counter()
        for number, instance in enumerate(instances, start=1):
            try:
                self._fetch(instance, spool)
            except InstanceMissing as error:
                log.info("one image skipped: %s", error)
                refused[error.reason] += 1
            if number % 100 == 0 or number == len(instances):
                log.info("%d of %d images requested", number, len(instances))
        return refused

    def _fetch(self, instance: Instance, spool: Spool) -> None:
        url = f"{self._url}/studies/{instance.study}/series/{instance.series}/instances/{instance.uid}"
        limits = Timeouts(self._source.connect_seconds, self._source.silence_seconds, self._source.request_seconds)
        part = spool.parts / "image.dcm"

        def once() -> None:
            with named(self._url):
                retrieve(self._session, url, part, limits, spool.refuse_beyond)

        try:
            self._patiently(once)
        except Temporary as error:
            self._ask(lambda: self._client.search_for_studies(limit=1))  # if it answers, this one image is the trouble
            raise InstanceMissing(MissingReason.ARCHIVE_FAILED, str(error)) from error
        spool.take_in(instance, part)

    def remarks(self, spool: Spool) -> list[str]:
        return []

    def _ask(self, question: Callable[[], T]) -> T:
        def once() -> T:
            with named(self._url):
                return question()

        try:
            return self._patiently(once)
        except Temporary as error:
            raise ArchiveUnreachable(
                f"{self._url} failed {self._source.attempts} times, last with: {error}. Check that it runs and that "
                "this machine can reach it; what was retrieved is kept, and the next ingest resumes from there"
            ) from error
        except InstanceMissing as error:
            raise ArchiveRefused(
                f"{self._url} does not answer a search as DICOMweb requires: {error}; check `url`"
            ) from error

    def _patiently(self, work: Callable[[], T]) -> T:
        return persistently(work, self._source.attempts, self._source.first_wait_seconds)


def _values(answer: QidoMatch, tag: str) -> list[str]:
    values = answer.get(tag, {}).get("Value", [])
    return [str(value).strip() for value in values if value is not None]


def _value(answer: QidoMatch, tag: str) -> str:
    return next(iter(_values(answer, tag)), "")
