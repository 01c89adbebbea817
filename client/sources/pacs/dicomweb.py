"""Source: an archive that uses DICOMweb. QIDO-RS searches (PS3.18 section 10.6), WADO-RS retrieves (section 10.4)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

import requests
from dicomweb_client.web import DICOMwebClient

from client.errors import ArchiveRefused, ArchiveUnreachable
from client.sources.pacs.archive import list_archive
from client.sources.pacs.pace import Pace
from client.sources.pacs.retry import Temporary, persistently
from client.sources.pacs.search import Search
from client.sources.pacs.spool import Instance, InstanceMissing, MissingReason, Spool
from client.sources.pacs.wado import Timeouts, retrieve
from client.sources.pacs.walk import Progress
from client.sources.pacs.web import named, session_for
from client.sources.pacs.web_search import WebSearch
from client.sources.record import Listing
from client.sources.settings import DicomwebSource
from client.sources.visit import Visit
from tasks.task import Task

log = logging.getLogger(__name__)
T = TypeVar("T")
_USUAL = Visit()


def list_dicomweb(source: DicomwebSource, task: Task, withdrawn: frozenset[str], visit: Visit = _USUAL) -> Listing:
    """Retrieve what is new and labelled into the spool, and list it; see ``list_archive`` for what it raises."""
    with closing(session_for(source)) as session:
        return list_archive(
            source, DicomwebArchive(source, session), f"DICOMweb {source.url}", task, withdrawn, visit=visit
        )


class DicomwebArchive:
    """A DICOMweb service; the session carries credentials and certificates."""

    def __init__(self, source: DicomwebSource, session: requests.Session) -> None:
        self._source, self._session = source, session
        self._pace = Pace(source.requests_per_second, source.hours)
        self._url = source.url.rstrip("/")
        self._client = DICOMwebClient(
            self._url, session, timeout=(source.connect_seconds, source.silence_seconds), permissive_uid=True
        )
        self._client.set_http_retry_params(retry=False)  # ours has jitter, and knows what is worth another try

    def check(self) -> None:
        """Request one DICOM study.

        Raises:
            ArchiveUnreachable, ArchiveRefused: named with a remedy.
        """
        self._ask(lambda: self._client.search_for_studies(limit=1))

    @contextmanager
    def searching(self) -> Iterator[Search]:
        """Searches over this archive's session."""
        yield WebSearch(self._source, self._client, self._session, self._insist)

    def fetch(self, instances: list[Instance], spool: Spool, progress: Progress) -> Counter[MissingReason]:
        """One request per image, so that a resumed retrieval repeats at most one."""
        refused: Counter[MissingReason] = Counter()
        for number, instance in enumerate(instances, start=1):
            try:
                self._fetch(instance, spool)
            except InstanceMissing as error:
                log.info("one image skipped: %s", error)
                refused[error.reason] += 1
            progress("retrieving images", number, len(instances))
        return refused

    def _fetch(self, instance: Instance, spool: Spool) -> None:
        if not self._pace.may_retrieve():
            raise InstanceMissing(MissingReason.OUTSIDE_HOURS)
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
        try:
            return self._insist(question)
        except InstanceMissing as error:
            raise ArchiveRefused(
                f"{self._url} does not answer a search as DICOMweb requires: {error}; check `url`"
            ) from error

    def _insist(self, question: Callable[[], T]) -> T:
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

    def _patiently(self, work: Callable[[], T]) -> T:
        return persistently(self._pace.before(work), self._source.attempts, self._source.first_wait_seconds)
