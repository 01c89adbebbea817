"""Source: an archive that uses DIMSE. C-FIND searches, C-GET retrieves (PS3.4 annex C, Study Root).

C-GET returns the images over the connection that we open; C-MOVE would need a listening port in the hospital.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

from client.errors import ArchiveRefused, ArchiveUnreachable
from client.sources.pacs.archive import list_archive
from client.sources.pacs.association import COMPRESSED, SYNTAXES, associate, in_groups
from client.sources.pacs.association_client import RetrievalAssociation, SearchAssociation
from client.sources.pacs.retry import Temporary, persistently
from client.sources.pacs.scope import in_scope
from client.sources.pacs.spool import Instance, InstanceMissing, MissingReason, Spool, is_uid
from client.sources.pacs.storage_classes import usual_classes
from client.sources.record import Listing
from client.sources.settings import DimseSource, Scope
from tasks.task import Task

log = logging.getLogger(__name__)
T = TypeVar("T")


def list_dimse(source: DimseSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """Retrieve what is new and labelled into the spool, and list it; see ``list_archive`` for what it raises."""
    owner = f"DICOM archive {source.called_ae} at {source.host}:{source.port}"
    return list_archive(source, DimseArchive(source), owner, task, withdrawn)


class DimseArchive:
    """A C-FIND and C-GET provider."""

    def __init__(self, source: DimseSource) -> None:
        self._source = source

    def check(self) -> None:
        """C-ECHO (PS3.7 9.1.5).

        Raises:
            ArchiveUnreachable, ArchiveRefused: named with a remedy.
        """
        self._insist(self._echo)

    def _echo(self) -> None:
        association = associate(self._source, [build_context(Verification)])
        try:
            if "Status" not in association.send_c_echo():
                raise Temporary("no answer to C-ECHO")
        except ValueError as error:
            raise ArchiveRefused(f"the archive does not answer C-ECHO: {error}") from error
        finally:
            association.release()

    def find(self, scope: Scope) -> tuple[list[Instance], Counter[str]]:
        """DICOM studies by modality and date, their series by modality and body part, and the images of those."""
        left_out: Counter[str] = Counter()
        with closing(
            SearchAssociation(self._source, [build_context(StudyRootQueryRetrieveInformationModelFind)])
        ) as line:
            found = [
                instance
                for study in self._studies(line, scope)
                for series in self._matches(line, "SERIES", StudyInstanceUID=_text(study, "StudyInstanceUID"))
                if in_scope(scope, _text(series, "Modality"), _text(series, "BodyPartExamined"), left_out)
                for instance in self._instances(line, study, series)
            ]
        return found, left_out

    def _studies(self, line: SearchAssociation, scope: Scope) -> Iterator[Dataset]:
        """One search per modality: not every archive matches a list of them."""
        seen: set[str] = set()
        for modality in scope.modalities:
            dates = scope.dates() or ""
            for study in self._matches(line, "STUDY", ModalitiesInStudy=modality, StudyDate=dates):
                if (uid := _text(study, "StudyInstanceUID")) not in seen:
                    seen.add(uid)
                    yield study

    def _instances(self, line: SearchAssociation, study: Dataset, series: Dataset) -> Iterator[Instance]:
        names = _text(study, "StudyInstanceUID"), _text(series, "SeriesInstanceUID")
        for image in self._matches(line, "IMAGE", StudyInstanceUID=names[0], SeriesInstanceUID=names[1]):
            yield Instance(
                *names,
                uid=_text(image, "SOPInstanceUID"),
                patient_id=_text(study, "PatientID"),
                accession=_text(study, "AccessionNumber"),
                modality=_text(series, "Modality"),
                sop_class=_text(image, "SOPClassUID"),
                held=frozenset(_texts(image, "AvailableTransferSyntaxUID")),
            )

    def _matches(self, line: SearchAssociation, level: str, **keys: str) -> list[Dataset]:
        """The matches of one C-FIND, without those that lack a valid unique key."""
        unique, others = _RETURNED[level]
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, value in (dict.fromkeys((unique, *others), "") | keys).items():
            setattr(identifier, keyword, value)
        matches = self._insist(lambda: line.find(identifier, StudyRootQueryRetrieveInformationModelFind))
        return [match for match in matches if is_uid(_text(match, unique))]

    def fetch(self, instances: list[Instance], spool: Spool) -> Counter[MissingReason]:
        """One C-GET per image, in as few associations as the number of presentation contexts allows.

        What fails is asked for once more with compressed transfer syntaxes only: some archives choose the first context
        of a class, whatever it was accepted for.
        """
        refused: dict[str, MissingReason] = {}
        self._fetch_all(instances, SYNTAXES, spool, refused)
        again = [i for i in instances if refused.get(i.uid) is MissingReason.ARCHIVE_FAILED]
        for instance in again:
            del refused[instance.uid]
        self._fetch_all(again, COMPRESSED, spool, refused)
        return Counter(refused.values())

    def _fetch_all(
        self, instances: list[Instance], syntaxes: tuple[str, ...], spool: Spool, refused: dict[str, MissingReason]
    ) -> None:
        for classes, members in _by_association(instances, syntaxes):
            line = RetrievalAssociation(self._source, classes, syntaxes, spool)
            with closing(line):
                for instance in members:
                    try:
                        self._fetch(line, instance)
                    except InstanceMissing as error:
                        log.info("one image skipped: %s", error)
                        refused[instance.uid] = error.reason
            if syntaxes == SYNTAXES and members:
                known = spool.remembered(_UNCOMPRESSED_ONLY) - set(classes)
                spool.remember(_UNCOMPRESSED_ONLY, known | line.without_compression)

    def _fetch(self, line: RetrievalAssociation, instance: Instance) -> None:
        try:
            self._patiently(lambda: line.get(instance, StudyRootQueryRetrieveInformationModelGet))
        except Temporary as error:
            self.check()  # if it answers, this one image is the trouble
            raise InstanceMissing(MissingReason.ARCHIVE_FAILED, str(error)) from error

    def remarks(self, spool: Spool) -> list[str]:
        classes = spool.remembered(_UNCOMPRESSED_ONLY)
        if not classes:
            return []
        return [
            f"NO_COMPRESSED_TRANSFER: the archive accepted no compressed transfer syntax for {len(classes)} "
            "SOP class(es), so it decompresses or withholds compressed images; have its administrator enable them"
        ]

    def _insist(self, work: Callable[[], T]) -> T:
        try:
            return self._patiently(work)
        except Temporary as error:
            raise ArchiveUnreachable(
                f"the archive failed {self._source.attempts} times, last with: {error}. Check that it runs and that "
                "this machine can reach it; what was retrieved is kept, and the next ingest resumes from there"
            ) from error

    def _patiently(self, work: Callable[[], T]) -> T:
        return persistently(work, self._source.attempts, self._source.first_wait_seconds)


_UNCOMPRESSED_ONLY = "uncompressed-only"
"""Name in the spool for the SOP classes of which the archive accepted only uncompressed transfer syntaxes."""
_RETURNED = {
    "STUDY": ("StudyInstanceUID", ("PatientID", "AccessionNumber", "StudyDate", "ModalitiesInStudy")),
    "SERIES": ("SeriesInstanceUID", ("StudyInstanceUID", "Modality", "BodyPartExamined")),
    "IMAGE": ("SOPInstanceUID", ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "AvailableTransferSyntaxUID")),
}
"""The unique key of each level and the other keys to return (PS3.4 C.6.2.1)."""


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


def _text(dataset: Dataset, keyword: str) -> str:
    return next(iter(_texts(dataset, keyword)), "")


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    many = value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]
    return [str(one).strip() for one in many]
