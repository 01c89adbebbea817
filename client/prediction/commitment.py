"""Storage Commitment (PS3.4 annex J, Push Model): the archive confirms that it keeps what was stored in it.

A C-STORE that succeeds says that an object was received. Only the report of a commitment says that it is kept. It comes
over the association on which it was asked for, or over one that the archive opens to the source's ``receive_at``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from client.errors import ArchiveRefused, ArchiveUnreachable
from client.sources.pacs.association import Awaited, associate, unknown_here
from client.sources.pacs.receiver import receiving
from client.sources.pacs.retry import Temporary, persistently
from client.sources.settings import DimseSource

INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known SOP instance of the Push Model (PS3.4 J.3.5)."""
_REQUEST = 1
_NO_SUCH_INSTANCE, _INVALID_ARGUMENT = 0x0112, 0x0115  # PS3.7 annex C
_REASONS = {
    0x0110: "processing failure",
    0x0112: "it has no such object",
    0x0119: "it has it under another SOP class",
    0x0122: "it does not support the SOP class",
    0x0131: "duplicate transaction",
    0x0213: "no room",
}
"""FailureReason (PS3.3 C.14.1.1)."""
_ATTEMPTS, _FIRST_WAIT_S = 4, 1.0


@dataclass
class _Report:
    """What the archive reports, from whichever association it comes.

    Attributes:
        kept: SOPInstanceUIDs that it has committed to.
        failed: FailureReason of others.
    """

    transaction: str
    kept: set[str] = field(default_factory=set)
    failed: dict[str, int] = field(default_factory=dict)
    here: threading.Event = field(default_factory=threading.Event)

    def take(self, event: Event) -> tuple[int, None]:
        """Handle N-EVENT-REPORT; one of another transaction is not ours."""
        try:
            told = event.event_information
        except Exception:  # what cannot be decoded may raise anything
            return _INVALID_ARGUMENT, None
        if str(told.get("TransactionUID", "")) != self.transaction:
            return _NO_SUCH_INSTANCE, None
        self.kept.update(str(one.ReferencedSOPInstanceUID) for one in told.get("ReferencedSOPSequence") or ())
        for one in told.get("FailedSOPSequence") or ():
            self.failed[str(one.ReferencedSOPInstanceUID)] = int(one.get("FailureReason") or 0x0110)
        self.here.set()
        return 0, None


def not_committed(source: DimseSource, objects: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Ask for a commitment. Returns what is not committed to: a phrase why, by SOPInstanceUID.

    Args:
        objects: SOPClassUID and SOPInstanceUID of what was stored.

    Raises:
        ArchiveUnreachable: the archive does not answer, however often it is asked.
        ArchiveRefused: it has no Storage Commitment, or refuses the request.
        SiteMisconfigured: our own port cannot be opened.
    """
    report = _Report(generate_uid())
    reports = [(evt.EVT_N_EVENT_REPORT, report.take)]
    with receiving(source, reporting_contexts(), reports):
        association = _asked(source, report, _request(report.transaction, objects))
        try:
            _wait(report, source.commitment_seconds)
        finally:
            if association.is_established:
                association.release()
    return {uid: _why(report, uid, source) for _, uid in objects if uid not in report.kept or uid in report.failed}


def requesting_contexts() -> list[PresentationContext]:
    """What is proposed. Verification as well: without any accepted context nobody knows why it is aborted."""
    return [build_context(StorageCommitmentPushModel), build_context(Verification)]


def reporting_contexts() -> list[PresentationContext]:
    """What is accepted where the archive connects: it keeps the role of the provider there (PS3.4 J.3.3)."""
    commitment = build_context(StorageCommitmentPushModel)
    commitment.scu_role = commitment.scp_role = True
    return [commitment, build_context(Verification)]


def _request(transaction: str, objects: Sequence[tuple[str, str]]) -> Dataset:
    """PS3.4 table J.3-1."""
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = []
    for sop_class, uid in objects:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        request.ReferencedSOPSequence.append(item)
    return request


def _asked(source: DimseSource, report: _Report, request: Dataset) -> Association:
    """The association on which the archive has accepted the request."""

    def once() -> Association:
        handlers = [(evt.EVT_N_EVENT_REPORT, report.take)]
        association = associate(source, requesting_contexts(), handlers=handlers)
        try:
            status, _ = association.send_n_action(request, _REQUEST, StorageCommitmentPushModel, INSTANCE)
        except ValueError as error:
            association.release()
            raise ArchiveRefused(
                f"{source.called_ae} offers no Storage Commitment ({error}); everything is stored. Remove "
                "`storage_commitment: true`, or ask its administrator"
            ) from error
        except RuntimeError as error:
            raise Temporary(f"the association broke: {error}") from error
        code = status.get("Status")
        if code is None:
            raise Temporary("no answer to N-ACTION" + unknown_here(source))
        if code:
            association.release()
            raise ArchiveRefused(
                f"{source.called_ae} refuses to commit (N-ACTION ends with status 0x{code:04X}); everything is stored. "
                f"Ask its administrator whether {source.calling_ae!r} may ask for a commitment"
            )
        waiting = association.dimse.msg_queue
        assert isinstance(waiting, Awaited)
        waiting.to_library = True
        return association

    try:
        return persistently(once, _ATTEMPTS, _FIRST_WAIT_S)
    except Temporary as error:
        raise ArchiveUnreachable(
            f"{source.called_ae} was asked {_ATTEMPTS} times to commit, and failed, last with: {error}. Everything is "
            "stored; run the same command with another --out to ask again: what is stored is not stored twice"
        ) from error


def _wait(report: _Report, seconds: float) -> None:
    """Until the report is here. An archive may release the association and report over one of its own."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not report.here.wait(0.1):
        pass


def _why(report: _Report, uid: str, source: DimseSource) -> str:
    if uid in report.failed:
        code = report.failed[uid]
        return f"the archive reports: {_REASONS.get(code, 'failure')} (0x{code:04X})"
    if report.here.is_set():
        return "the archive's report does not name it"
    return (
        f"no report came within {source.commitment_seconds:g} s, neither on our association nor to "
        f"{source.receive_at}: is our AE title registered with that address? Some archives commit hours later "
        "(`commitment_seconds`)"
    )
