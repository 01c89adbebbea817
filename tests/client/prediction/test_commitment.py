"""Storage Commitment against a real provider on loopback, which reports on either association, late, or never."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from client.errors import ArchiveRefused, ArchiveUnreachable
from client.prediction import commitment
from client.prediction.commitment import INSTANCE, not_committed
from client.sources.settings import DimseSource
from tests.client.sources.pacs.test_move import free_port

OBJECTS = [("1.2.840.10008.5.1.4.1.1.88.22", "1.2.3"), ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.4")]


@dataclass
class Keeper:
    """An archive that commits.

    Attributes:
        way: over which association it reports: ``ours``, ``own`` or ``never``.
        fails: FailureReason of instances.
        silent_of: instances that its report does not name.
        status: of N-ACTION.
        calling: the AE title under which it reports.
        other_first: whether it first reports another transaction.
        statuses: what its reports were answered with.
        reported: set when all are answered.
    """

    way: str = "own"
    fails: dict[str, int] = field(default_factory=dict)
    silent_of: tuple[str, ...] = ()
    status: int = 0
    calling: str = "ARCHIVE"
    other_first: bool = False
    port: int = 0
    receiver: int = 0
    statuses: list[int] = field(default_factory=list)
    reported: threading.Event = field(default_factory=threading.Event)

    def act(self, event: Event) -> tuple[int, Dataset | None]:
        if not self.status:
            threading.Thread(target=self._report, args=(event.assoc, event.action_information), daemon=True).start()
        return self.status, None

    def _reports(self, request: Dataset) -> Iterator[Dataset]:
        told, failed = Dataset(), []
        told.TransactionUID = request.TransactionUID
        told.ReferencedSOPSequence = []
        for item in request.ReferencedSOPSequence:
            uid = str(item.ReferencedSOPInstanceUID)
            if uid in self.fails:
                item.FailureReason = self.fails[uid]
                failed.append(item)
            elif uid not in self.silent_of:
                told.ReferencedSOPSequence.append(item)
        if failed:
            told.FailedSOPSequence = failed
        if self.other_first:
            other = Dataset()
            other.TransactionUID, other.ReferencedSOPSequence = "1.2.3.4.5", request.ReferencedSOPSequence
            yield other
        yield told

    def _report(self, ours: Any, request: Dataset) -> None:
        if self.way == "never":
            return
        threading.Event().wait(0.2)  # after the answer to N-ACTION
        line = ours if self.way == "ours" else self._opened()
        for told in self._reports(request) if line.is_established else ():
            kind = 2 if "FailedSOPSequence" in told else 1
            status, _ = line.send_n_event_report(told, kind, StorageCommitmentPushModel, INSTANCE)
            self.statuses.append(status.get("Status", -1))
        self.reported.set()
        if self.way == "own" and line.is_established:
            line.release()

    def _opened(self) -> Any:
        entity = AE(self.calling)
        contexts = [build_context(StorageCommitmentPushModel)]
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        return entity.associate("127.0.0.1", self.receiver, contexts, "CONSILIUM", ext_neg=[role])


@contextmanager
def running(keeper: Keeper, offers: bool = True) -> Iterator[Keeper]:
    entity = AE("ARCHIVE")
    entity.add_supported_context(Verification)
    if offers:
        entity.add_supported_context(StorageCommitmentPushModel)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, keeper.act)])
    assert server is not None
    keeper.port, keeper.receiver = server.server_address[1], free_port()
    try:
        yield keeper
    finally:
        server.shutdown()


def _source(tmp_path: Path, keeper: Keeper, **more: Any) -> DimseSource:
    told = {"kind": "dimse", "task": "breast_ultrasound", "issuer": "x", "path": tmp_path, "labels": tmp_path / "l.csv"}
    told |= {"scope": {"modalities": ["US"]}, "host": "127.0.0.1", "port": keeper.port, "called_ae": "ARCHIVE"}
    told |= {"storage_commitment": True, "receive_at": f"127.0.0.1:{keeper.receiver}", "commitment_seconds": 10}
    return DimseSource.model_validate(told | more)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment, "_FIRST_WAIT_S", 0.01)


@pytest.mark.parametrize("way", ["own", "ours"])
def test_a_report_comes_over_either_association(tmp_path: Path, way: str) -> None:
    with running(Keeper(way)) as keeper:
        assert not_committed(_source(tmp_path, keeper), OBJECTS) == {}
        assert keeper.reported.wait(10)  # the archive reads our answer in a thread of its own
        assert keeper.statuses == [0]


@pytest.mark.parametrize("way", ["own", "ours"])
def test_what_is_not_committed_is_told_with_the_reason(tmp_path: Path, way: str) -> None:
    with running(Keeper(way, fails={"1.2.4": 0x0213})) as keeper:
        assert not_committed(_source(tmp_path, keeper), OBJECTS) == {"1.2.4": "the archive reports: no room (0x0213)"}
    with running(Keeper(way, silent_of=("1.2.3",))) as keeper:
        assert not_committed(_source(tmp_path, keeper), OBJECTS) == {"1.2.3": "the archive's report does not name it"}


def test_a_report_of_another_transaction_counts_for_nothing(tmp_path: Path) -> None:
    with running(Keeper(other_first=True, fails={"1.2.3": 0x0112})) as keeper:
        assert set(not_committed(_source(tmp_path, keeper), OBJECTS)) == {"1.2.3"}
        assert keeper.reported.wait(10)
        assert keeper.statuses == [0x0112, 0]


@pytest.mark.parametrize("keeper", [Keeper("never"), Keeper("own", calling="STRANGER")], ids=["never", "stranger"])
def test_no_report_is_no_commitment(tmp_path: Path, keeper: Keeper) -> None:
    with running(keeper):
        why = not_committed(_source(tmp_path, keeper, commitment_seconds=1.5), OBJECTS)
    assert set(why) == {"1.2.3", "1.2.4"}
    assert "no report came within 1.5 s" in why["1.2.3"]
    assert keeper.statuses == []


def test_an_archive_that_does_not_or_will_not_commit_is_named(tmp_path: Path) -> None:
    with running(Keeper(), offers=False) as keeper, pytest.raises(ArchiveRefused, match="offers no Storage Commitment"):
        not_committed(_source(tmp_path, keeper), OBJECTS)
    with running(Keeper(status=0x0124)) as keeper, pytest.raises(ArchiveRefused, match="0x0124"):
        not_committed(_source(tmp_path, keeper), OBJECTS)
    gone = _source(tmp_path, Keeper(port=free_port(), receiver=free_port()))
    with pytest.raises(ArchiveUnreachable, match="asked 4 times"):
        not_committed(gone, OBJECTS)
