"""Source: an archive that uses DIMSE. C-FIND searches, C-GET retrieves (PS3.4 annex C, Study Root).

C-GET returns the images over the connection that we open. C-MOVE (``move.py``) needs a listening port in the hospital,
and is for archives that have no C-GET.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from typing import TypeVar

from pynetdicom import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

from client.errors import ArchiveRefused
from client.sources.pacs.archive import list_archive
from client.sources.pacs.association import COMPRESSED, SYNTAXES, associate, in_groups, unknown_here
from client.sources.pacs.association_client import RetrievalAssociation
from client.sources.pacs.dimse_search import insist, searching
from client.sources.pacs.move import Mover
from client.sources.pacs.pace import Pace
from client.sources.pacs.retry import Temporary, persistently
from client.sources.pacs.search import Search
from client.sources.pacs.spool import Instance, InstanceMissing, MissingReason, Spool
from client.sources.pacs.storage_classes import usual_classes
from client.sources.pacs.walk import Progress
from client.sources.record import Listing
from client.sources.settings import DimseSource
from client.sources.visit import Visit
from tasks.task import Task

log = logging.getLogger(__name__)
T = TypeVar("T")
_USUAL = Visit()


def list_dimse(source: DimseSource, task: Task, withdrawn: frozenset[str], visit: Visit = _USUAL) -> Listing:
    """Retrieve what is new and labelled into the spool, and list it; see ``list_archive`` for what it raises."""
    owner = f"DICOM archive {source.called_ae} at {source.host}:{source.port}"
    return list_archive(source, DimseArchive(source), owner, task, withdrawn, visit=visit)


class DimseArchive:
    """A C-FIND provider that sends by C-GET or C-MOVE."""

    def __init__(self, source: DimseSource) -> None:
        self._remarks: list[str] = []
        self._source, self._pace = source, Pace(source.requests_per_second, source.hours)

    def check(self) -> None:
        """C-ECHO (PS3.7 9.1.5).

        Raises:
            ArchiveUnreachable, ArchiveRefused: named with a remedy.
        """
        insist(self._source, self._echo, self._pace)

    def _echo(self) -> None:
        association = associate(self._source, [build_context(Verification)])
        try:
            if "Status" not in association.send_c_echo():
                raise Temporary("no answer to C-ECHO" + unknown_here(self._source))
        except ValueError as error:
            raise ArchiveRefused(f"the archive does not answer C-ECHO: {error}") from error
        finally:
            association.release()

    def searching(self) -> AbstractContextManager[Search]:
        return searching(self._source, self._pace)

    def fetch(self, instances: list[Instance], spool: Spool, progress: Progress) -> Counter[MissingReason]:
        """By C-MOVE as ``move.py`` says, else one C-GET per image in as few associations as contexts allow.

        What fails is asked for once more with compressed transfer syntaxes only: some archives choose the first context
        of a class, whatever it was accepted for.
        """
        if self._source.retrieve == "move":
            counted, self._remarks = Mover(self._source, self._pace, self.check, spool).fetch(instances, progress)
            return counted
        refused: dict[str, MissingReason] = {}
        self._fetch_all(instances, SYNTAXES, spool, refused, progress)
        again = [i for i in instances if refused.get(i.uid) is MissingReason.ARCHIVE_FAILED]
        for instance in again:
            del refused[instance.uid]
        self._fetch_all(again, COMPRESSED, spool, refused, progress)
        return Counter(refused.values())

    def _fetch_all(
        self,
        instances: list[Instance],
        syntaxes: tuple[str, ...],
        spool: Spool,
        refused: dict[str, MissingReason],
        progress: Progress,
    ) -> None:
        done = 0
        for classes, members in _by_association(instances, syntaxes):
            line = RetrievalAssociation(self._source, classes, syntaxes, spool)
            with closing(line):
                for instance in members:
                    try:
                        self._fetch(line, instance)
                    except InstanceMissing as error:
                        log.info("one image skipped: %s", error)
                        refused[instance.uid] = error.reason
                    done += 1
                    progress("retrieving images", done, len(instances))
            if syntaxes == SYNTAXES and members:
                known = spool.remembered(_UNCOMPRESSED_ONLY) - set(classes)
                spool.remember(_UNCOMPRESSED_ONLY, known | line.without_compression)

    def _fetch(self, line: RetrievalAssociation, instance: Instance) -> None:
        if not self._pace.may_retrieve():
            raise InstanceMissing(MissingReason.OUTSIDE_HOURS)
        try:
            self._patiently(lambda: line.get(instance, StudyRootQueryRetrieveInformationModelGet))
        except Temporary as error:
            self.check()  # if it answers, this one image is the trouble
            raise InstanceMissing(MissingReason.ARCHIVE_FAILED, str(error)) from error

    def remarks(self, spool: Spool) -> list[str]:
        classes = spool.remembered(_UNCOMPRESSED_ONLY)
        if not classes:
            return self._remarks
        return [
            f"NO_COMPRESSED_TRANSFER: the archive accepted no compressed transfer syntax for {len(classes)} "
            "SOP class(es), so it decompresses or withholds compressed images; have its administrator enable them"
        ]

    def _patiently(self, work: Callable[[], T]) -> T:
        return persistently(self._pace.before(work), self._source.attempts, self._source.first_wait_seconds)


_UNCOMPRESSED_ONLY = "uncompressed-only"
"""Name in the spool for the SOP classes of which the archive accepted only uncompressed transfer syntaxes."""


def _by_association(
    instances: list[Instance], syntaxes: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[Instance]]]:
    """Which instances to request over which classes' contexts."""
    told = sorted({i.sop_class for i in instances if i.sop_class})
    for classes in in_groups(told, syntaxes):
        yield classes, [i for i in instances if i.sop_class in classes]
    for modality in sorted({i.modality for i in instances if not i.sop_class}):
        for classes in in_groups(usual_classes(modality), syntaxes):
            yield classes, [i for i in instances if not i.sop_class and i.modality == modality]
