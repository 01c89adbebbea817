"""Images by C-MOVE (PS3.4 C.4.2): the archive opens an association to our own port, and sends them there.

For archives without C-GET. Each request names some images of one series; what does not come is asked for once more by
itself. What the archive says of its sub-operations is counted, and compared with what has come.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from pydicom import Dataset
from pynetdicom import build_context, evt
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from client.errors import ArchiveRefused, SpoolFull
from client.sources.pacs.association import SYNTAXES
from client.sources.pacs.association_client import (
    MAY_PASS,
    NOT_ASKED_FOR,
    OUT_OF_RESOURCES,
    PRIORITIES,
    SearchAssociation,
    instances_of,
    write_received,
)
from client.sources.pacs.pace import Pace
from client.sources.pacs.receiver import Receiver, receiving
from client.sources.pacs.retry import Temporary, persistently
from client.sources.pacs.spool import Instance, InstanceMissing, MissingReason, Spool, is_uid
from client.sources.pacs.storage_classes import usual_classes
from client.sources.pacs.walk import Progress
from client.sources.settings import DimseSource

_AT_ONCE = 32
_DESTINATION_UNKNOWN = 0xA801  # PS3.4 table C.4-2
_COUNTED = ("Completed", "Failed", "Warning")
log = logging.getLogger(__name__)


class Mover:
    """Retrieves into one spool over one association for requests, while a port of our own is open.

    Attributes:
        counted: sub-operations by outcome, as the archive has told them.
    """

    def __init__(self, source: DimseSource, pace: Pace, check: Callable[[], None], spool: Spool) -> None:
        """Prepare.

        Args:
            check: raises if the archive does not answer at all.
        """
        self._source, self._pace, self._check, self._spool = source, pace, check, spool
        self._inbox = _Inbox(spool)
        self.counted: Counter[str] = Counter()
        self.arrived = 0

    def fetch(self, instances: Sequence[Instance], progress: Progress) -> tuple[Counter[MissingReason], list[str]]:
        """Retrieve them. Returns what did not come, by reason, and warnings.

        Raises:
            ArchiveUnreachable, ArchiveRefused, SpoolFull: see ``Archive.fetch``.
        """
        if not instances:
            return Counter(), []
        refused: Counter[MissingReason] = Counter()
        line = SearchAssociation(self._source, moving_contexts())
        classes = {one.sop_class for one in instances if one.sop_class}
        for modality in {one.modality for one in instances if not one.sop_class}:
            classes.update(usual_classes(modality))
        port = receiving(self._source, receiving_contexts(classes), [(evt.EVT_C_STORE, self._inbox.receive)])
        done = 0
        with closing(line), port as receiver:
            for chunk in _chunks(instances):
                refused.update(self._fetched(line, receiver, chunk))
                done += len(chunk)
                progress("retrieving images", done, len(instances))
        return refused, [*self._remarks(), *receiver.remarks()]

    def _fetched(self, line: SearchAssociation, receiver: Receiver, chunk: list[Instance]) -> Iterator[MissingReason]:
        if not self._pace.may_retrieve():
            yield from (MissingReason.OUTSIDE_HOURS for _ in chunk)
            return
        status = self._moved(line, chunk)
        absent: list[Instance] = []
        for instance in chunk:
            try:
                if not self._take_in(instance):
                    absent.append(instance)
            except InstanceMissing as error:
                log.info("one image skipped: %s", error)
                yield error.reason
        if absent and len(chunk) > 1:  # some archives know no list of UIDs; others stop at the first that fails
            for instance in absent:
                yield from self._fetched(line, receiver, [instance])
        elif absent:
            self._require_way(receiver, status)
            failed = status.get("NumberOfFailedSuboperations") or 0
            gone = status.get("Status") == 0 and not failed and not status.get("NumberOfCompletedSuboperations")
            log.info("one image skipped: C-MOVE ends with status %s, %s failed", status.get("Status"), failed)
            yield MissingReason.GONE_FROM_ARCHIVE if gone else MissingReason.ARCHIVE_FAILED

    def _take_in(self, instance: Instance) -> bool:
        part = self._inbox.taken(instance.uid)
        if part is None:
            return False
        self.arrived += 1
        self._spool.take_in(instance, part)
        return True

    def _moved(self, line: SearchAssociation, chunk: list[Instance]) -> Dataset:
        """The last response of one C-MOVE, repeated after what may pass for what has not come yet."""
        self._inbox.expect(chunk)

        def once() -> Dataset:
            waiting = [one for one in chunk if not self._inbox.has(one.uid)]
            return self._answer(line, waiting) if waiting else Dataset()

        try:
            return persistently(self._pace.before(once), self._source.attempts, self._source.first_wait_seconds)
        except Temporary as error:
            self._check()  # if it answers, these images are the trouble
            log.info("C-MOVE of %d images failed: %s", len(chunk), error)
            return Dataset()
        finally:
            if trouble := self._inbox.expect([]):
                raise trouble

    def _answer(self, line: SearchAssociation, waiting: list[Instance]) -> Dataset:
        status = line.move(instances_of(waiting), self._source.calling_ae, PRIORITIES[self._source.priority])
        code = status.get("Status")
        for outcome in _COUNTED:
            self.counted[outcome] += status.get(f"NumberOf{outcome}Suboperations") or 0
        if code is None:
            raise Temporary("the association broke during C-MOVE")
        if code in MAY_PASS:
            raise Temporary(f"C-MOVE ends with status 0x{code:04X}")
        return status

    def _require_way(self, receiver: Receiver, status: Dataset) -> None:
        """An archive that says it has tried to send, and has never come, has registered another address, or none.

        Raises:
            ArchiveRefused: that is so.
        """
        code = status.get("Status")
        tried = sum(status.get(f"NumberOf{outcome}Suboperations") or 0 for outcome in _COUNTED)
        if code != _DESTINATION_UNKNOWN and (receiver.associations or not (tried or code)):
            return
        secure = ", with TLS" if self._source.tls else ""
        raise ArchiveRefused(
            f"{self._source.called_ae} answers C-MOVE with status {'none' if code is None else f'0x{code:04X}'} and "
            f"has opened no association to {self._source.receive_at}. Have its administrator register our AE title "
            f"{self._source.calling_ae!r} with that address and port{secure}, and let firewalls pass it"
            + "".join(f". {remark}" for remark in receiver.remarks())
        )

    def _remarks(self) -> list[str]:
        told = self.counted["Completed"] + self.counted["Warning"]
        if not self.counted["Failed"] and told == self.arrived:
            return []
        return [
            f"SUBOPERATIONS: of its transfers the archive counts {told} as completed ({self.counted['Warning']} with a "
            f"warning) and {self.counted['Failed']} as failed; {self.arrived} images came. What is missing is counted "
            "above, and asked for again by the next ingest"
        ]


class _Inbox:
    """What has come and is asked for; the port's threads put it here."""

    def __init__(self, spool: Spool) -> None:
        self._spool, self._lock = spool, threading.Lock()
        self._asked: set[str] = set()
        self._came: dict[str, Path] = {}
        self._trouble: Exception | None = None

    def expect(self, instances: Sequence[Instance]) -> Exception | None:
        """Accept these and no others from now on. Returns why something could not be written, once."""
        with self._lock:
            self._asked, trouble, self._trouble = {one.uid for one in instances}, self._trouble, None
            return trouble

    def has(self, uid: str) -> bool:
        with self._lock:
            return uid in self._came

    def taken(self, uid: str) -> Path | None:
        """The file of an instance, handed over once."""
        with self._lock:
            return self._came.pop(uid, None)

    def receive(self, event: Event) -> int:
        """Handle one C-STORE; the lock also keeps two connections from writing the same file."""
        uid = str(getattr(event.request, "AffectedSOPInstanceUID", ""))
        with self._lock:
            if uid not in self._asked or not is_uid(uid):
                return NOT_ASKED_FOR
            part = self._spool.parts / f"{uid}.dcm"
            try:
                write_received(event, part, self._spool)
            except (SpoolFull, OSError) as error:
                self._trouble = error
                return OUT_OF_RESOURCES
            self._came[uid] = part
            return 0


def _chunks(instances: Sequence[Instance]) -> Iterator[list[Instance]]:
    """Some images of one series each (PS3.4 C.4.2.2.1)."""
    by_series: dict[tuple[str, str], list[Instance]] = {}
    for instance in instances:
        by_series.setdefault((instance.study, instance.series), []).append(instance)
    for members in by_series.values():
        for start in range(0, len(members), _AT_ONCE):
            yield members[start : start + _AT_ONCE]


def moving_contexts() -> list[PresentationContext]:
    """What is proposed to ask for images."""
    return [build_context(StudyRootQueryRetrieveInformationModelMove)]


def receiving_contexts(classes: Iterable[str]) -> list[PresentationContext]:
    """What is accepted at our port: these classes in every transfer syntax, and C-ECHO."""
    return [*(build_context(one, list(SYNTAXES)) for one in sorted(classes)), build_context(Verification)]
