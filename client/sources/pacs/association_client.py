"""Associations that are opened on demand and reopened after a failure.

Tested in ``tests/client/sources/pacs/test_dimse.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from client.errors import ArchiveRefused, SpoolFull
from client.pixels.header import NATIVE
from client.sources.pacs.association import RemoteArchive, associate, storage_contexts, unknown_here
from client.sources.pacs.retry import Temporary
from client.sources.pacs.spool import Instance, InstanceMissing, MissingReason, Spool
from client.sources.settings import DimseSource

OUT_OF_RESOURCES, NOT_ASKED_FOR = 0xA700, 0xA900  # PS3.4 tables B.2-1 and C.4-1
PENDING = (0xFF00, 0xFF01)
MAY_PASS = (0xA700, 0xA701, 0xFE00)  # out of resources, cancelled
"""Statuses of C-FIND and C-GET (PS3.4 C.4.1.1.4, C.4.3.1.4) after which a retry makes sense."""
PRIORITIES = {"medium": 0, "high": 1, "low": 2}  # PS3.7 table 9.3-7
log = logging.getLogger(__name__)


class NoSearch(ArchiveRefused):
    """The peer stores and does not answer searches, as routers and workstations."""


class SearchAssociation:
    """An association for searches."""

    def __init__(self, source: DimseSource | RemoteArchive, contexts: list[PresentationContext]) -> None:
        self._source, self._contexts = source, contexts
        self._association: Association | None = None

    def _opened(self) -> Association:
        if self._association is None or not self._association.is_established:
            self._association = self._open()
        return self._association

    def _open(self) -> Association:
        return associate(self._source, self._contexts)

    def close(self) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def find(self, identifier: Dataset, model: UID) -> tuple[list[Dataset], str]:
        """The matches of one C-FIND, and "" or how the archive says that they are not all.

        Archives that limit their answers end with cancel (0xFE00), out of resources (0xA700) or a warning after the
        last match that they give out.

        Raises:
            Temporary: the association broke, or the archive is short of resources and has given nothing.
            NoSearch: the archive offers no C-FIND.
            ArchiveRefused: the archive cannot do such a search.
        """
        matches = []
        status = Dataset()
        try:
            for status, match in self._opened().send_c_find(identifier, model):
                if status.get("Status") in PENDING and match is not None:
                    matches.append(match)
        except ValueError as error:
            raise NoSearch(f"the archive offers no C-FIND at Study Root: {error}") from error
        except RuntimeError as error:
            raise Temporary(f"the association broke: {error}") from error
        code = status.get("Status")
        if code is None:
            raise Temporary("no answer to C-FIND" + unknown_here(self._source))
        if code == 0:
            return matches, ""
        story = f"C-FIND at level {identifier.QueryRetrieveLevel} ends with status 0x{code:04X}"
        if matches:
            return matches, f"{story} after {len(matches)} matches"
        if code in MAY_PASS:
            raise Temporary(story)
        raise ArchiveRefused(
            f"{story} and no match. Ask its administrator what that status means, whether our AE title "
            f"{self._source.calling_ae!r} may search, and whether it limits the number of matches: then set `since` "
            "and `until` of the scope"
        )

    def move(self, identifier: Dataset, destination: str, priority: int) -> Dataset:
        """The last response to one C-MOVE, empty if there was none.

        Raises:
            Temporary: the association broke.
            ArchiveRefused: the archive has no C-MOVE.
        """
        status = Dataset()
        try:
            moving = self._opened().send_c_move(
                identifier, destination, StudyRootQueryRetrieveInformationModelMove, priority=priority
            )
            for answer, _ in moving:
                status = answer
        except ValueError as error:
            raise ArchiveRefused(
                f"the archive offers no C-MOVE ({error}); remove `retrieve: move`, or use its DICOMweb service or a "
                "folder export"
            ) from error
        except RuntimeError as error:
            raise Temporary(f"the association broke: {error}") from error
        return status


class RetrievalAssociation(SearchAssociation):
    """An association for retrieving images of some SOP classes into a spool.

    ``without_compression`` has the classes of which the archive accepted only uncompressed transfer syntaxes.
    """

    def __init__(self, source: DimseSource, classes: Sequence[str], syntaxes: Sequence[str], spool: Spool) -> None:
        self._patience, self._priority = source.request_seconds, PRIORITIES[source.priority]
        super().__init__(source, retrieving_contexts(classes, syntaxes))
        self.without_compression: set[str] = set()
        self._classes, self._spool = classes, spool
        self._part: Path = spool.parts / "image.dcm"
        self._asked, self._came = "", False
        self._trouble: Exception | None = None

    def _open(self) -> Association:
        association = associate(self._source, self._contexts, self._classes, self._receive, self._patience)
        accepted: dict[str, set[str]] = {}
        for context in association.accepted_contexts:
            accepted.setdefault(str(context.abstract_syntax), set()).update(map(str, context.transfer_syntax))
        self.without_compression = {c for c in self._classes if c in accepted and accepted[c] <= NATIVE}
        return association

    def get(self, instance: Instance, model: UID) -> None:
        """Retrieve one image by C-GET into the spool.

        Raises:
            Temporary: the association broke, or the archive is short of resources.
            Refused: the archive does not give it, or it is not what was asked for.
            SpoolFull: it does not fit.
            ArchiveRefused: the archive has no C-GET.
        """
        self._asked, self._came, self._trouble = instance.uid, False, None
        status = self._ask(instance, model)
        if self._trouble is not None:
            raise self._trouble
        if self._came:
            self._spool.take_in(instance, self._part)
            return
        code = status.get("Status")
        if code is None:
            raise Temporary("the association broke during C-GET")
        if code in MAY_PASS:
            raise Temporary(f"C-GET ends with status 0x{code:04X}")
        failed = status.get("NumberOfFailedSuboperations") or 0
        reason = MissingReason.GONE_FROM_ARCHIVE if code == 0 and not failed else MissingReason.ARCHIVE_FAILED
        raise InstanceMissing(reason, f"C-GET ends with status 0x{code:04X}, {failed} sub-operation(s) failed")

    def _ask(self, instance: Instance, model: UID) -> Dataset:
        identifier = instances_of([instance])
        status = Dataset()
        try:
            for answer, _ in self._opened().send_c_get(identifier, model, priority=self._priority):
                status = answer
        except ValueError as error:
            raise ArchiveRefused(
                f"the archive offers no C-GET ({error}); set `retrieve: move` with `receive_at`, or use its DICOMweb "
                "service or a folder export"
            ) from error
        except RuntimeError as error:
            raise Temporary(f"the association broke: {error}") from error
        return status

    def _receive(self, event: Event) -> int:
        if str(getattr(event.request, "AffectedSOPInstanceUID", "")) != self._asked:
            return NOT_ASKED_FOR
        try:
            write_received(event, self._part, self._spool)
        except (SpoolFull, OSError) as error:
            self._trouble = error
            return OUT_OF_RESOURCES
        self._came = True
        return 0


def retrieving_contexts(classes: Sequence[str], syntaxes: Sequence[str]) -> list[PresentationContext]:
    """What is proposed to retrieve by C-GET images of some classes, of which we are then the receiver."""
    return [build_context(StudyRootQueryRetrieveInformationModelGet), *storage_contexts(classes, syntaxes)]


def instances_of(instances: Sequence[Instance]) -> Dataset:
    """The identifier of a retrieval of some instances of one series (PS3.4 C.4.2.1.4)."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = instances[0].study
    identifier.SeriesInstanceUID = instances[0].series
    identifier.SOPInstanceUID = [one.uid for one in instances] if len(instances) > 1 else instances[0].uid
    return identifier


def write_received(event: Event, part: Path, spool: Spool) -> None:
    """Write an image exactly as received (PS3.10 section 7.1 around the dataset).

    Raises:
        SpoolFull: it does not fit.
        OSError: the disk cannot be written.
    """
    content = event.encoded_dataset(include_meta=False)
    spool.refuse_beyond(len(content))
    with part.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM" + encode_file_meta(event.file_meta))
        file.write(content)
