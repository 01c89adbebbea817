"""Ledger and audit log together: neither can be lost, replaced or put back to an older state unnoticed."""

import hashlib
import itertools
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from client.errors import LedgerBroken, LedgerMissing, LedgerRolledBack, LedgerTampered
from client.ledger.account import Use
from client.ledger.accounting import Mechanism
from client.ledger.audit_log import AuditLog, Kind, Receipt
from client.ledger.ledger import Caps, Ledger, Planned
from client.ledger.records import Records, create_records, open_records, replace_lost_audit_log
from tasks.protocol.wire import ErrorCode
from tests.client.reserving import reserve

SECRET = bytes(range(32))
NO_CAPS = Caps(math.inf, math.inf, 1e-5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hospital's ledger and audit log, in which two orders were answered."""
    folder = tmp_path / "site"
    create_records(folder / "ledger", folder / "audit_log", SECRET)
    with open_records(folder / "ledger", folder / "audit_log", SECRET) as records:
        _answer(records, 1)
        _answer(records, 2)
    return folder


def _use(round: int) -> Use:
    return Use("chest/train", "s1", round, hashlib.sha256(b"%d" % round).hexdigest())


def _answer(records: Records, round: int, send: bool = True) -> None:
    reserve(records.ledger, _use(round), lambda account: Planned(Mechanism(4.0, 1.0, 1)), NO_CAPS)
    reply = b"reply %d" % round
    records.ledger.commit(_use(round), reply)
    if send:
        records.audit_log.append_receipt(_receipt(records, round, reply))


def _receipt(records: Records, round: int, reply: bytes) -> Receipt:
    sha256 = hashlib.sha256(reply).hexdigest()
    return Receipt("s1", round, "TrainReport", "chest/train", len(reply), sha256, {}, 1.0, 0, 1, records.ledger.head())


def _open(folder: Path) -> list[str]:
    with open_records(folder / "ledger", folder / "audit_log", SECRET) as records:
        return records.verify()


def _snapshot(folder: Path, name: str) -> Callable[[], None]:
    """Keep a copy of one file; calling the result restores it, as somebody with an old backup would."""
    kept = folder / f"{name}.old"
    shutil.copy(folder / name, kept)

    def put_back() -> None:
        shutil.copy(kept, folder / name)

    return put_back


def test_whole_records_open_and_verify(folder: Path) -> None:
    assert _open(folder) == []


def test_no_records_are_made_by_opening(tmp_path: Path) -> None:
    with pytest.raises(
        LedgerMissing, match=r"neither .* nor .* If this hospital has never answered an order, run: consilium-site init"
    ):
        _open(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["ledger", "audit_log"])
def test_one_file_without_the_other_is_refused_and_not_made(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(
        LedgerMissing, match=f"the {name.replace('_', ' ')} .* is missing, although .* Restore the newest backup"
    ) as caught:
        _open(folder)
    assert caught.value.code == ErrorCode.LEDGER_BROKEN
    with pytest.raises(LedgerBroken):
        create_records(folder / "ledger", folder / "audit_log", SECRET)
    assert not (folder / name).exists()


def test_records_are_not_made_over_records(folder: Path) -> None:
    with pytest.raises(LedgerBroken, match="exists already; nothing was created"):
        create_records(folder / "ledger", folder / "audit_log", SECRET)
    assert _open(folder) == []


@pytest.mark.parametrize("name", ["ledger", "audit_log"])
def test_a_file_from_an_old_backup_is_refused(folder: Path, name: str) -> None:
    put_back = _snapshot(folder, name)
    with open_records(folder / "ledger", folder / "audit_log", SECRET) as records:
        _answer(records, 3)
        _answer(records, 4)
    put_back()
    with pytest.raises(
        LedgerRolledBack, match=f"the {name.replace('_', ' ')} .* is older than the one last seen, or another one"
    ):
        _open(folder)


@pytest.mark.parametrize("name", ["ledger", "audit_log"])
def test_an_old_backup_that_was_worked_with_alone_is_refused(folder: Path, name: str) -> None:
    """It has as many rows as the lost one, but not the same."""
    put_back = _snapshot(folder, name)
    with open_records(folder / "ledger", folder / "audit_log", SECRET) as records:
        _answer(records, 3)
        _answer(records, 4)
    put_back()
    if name == "ledger":
        with Ledger.open(folder / "ledger", SECRET) as ledger:
            for round in range(10, 20):
                reserve(ledger, _use(round), lambda account: Planned(Mechanism(4.0, 1.0, 1)), NO_CAPS)
    else:
        with AuditLog.open(folder / "audit_log", SECRET) as audit_log:
            for _ in range(10):
                audit_log.append_event(Kind.INGEST, {})
    with pytest.raises(LedgerRolledBack, match="is not the row that was seen"):
        _open(folder)


def test_a_new_ledger_in_place_of_the_old_is_refused_even_before_any_reply(tmp_path: Path) -> None:
    create_records(tmp_path / "ledger", tmp_path / "audit_log", SECRET)
    with open_records(tmp_path / "ledger", tmp_path / "audit_log", SECRET) as records:
        reserve(records.ledger, _use(1), lambda account: Planned(Mechanism(4.0, 1.0, 1)), NO_CAPS)
    (tmp_path / "ledger").unlink()
    Ledger.create(tmp_path / "ledger", SECRET).__exit__()
    with pytest.raises(LedgerRolledBack, match="row 0: is not the row that was seen"):
        _open(tmp_path)


def test_records_of_another_key_are_refused(folder: Path) -> None:
    with (
        pytest.raises(LedgerTampered, match=r"site\.key is not its key"),
        open_records(folder / "ledger", folder / "audit_log", bytes(32)),
    ):
        pass


def test_a_ledger_in_the_place_of_the_audit_log_is_refused(folder: Path) -> None:
    shutil.copy(folder / "ledger", folder / "audit_log")
    with pytest.raises(LedgerTampered, match="this is not a hospital's audit log"):
        _open(folder)


def test_a_backup_and_what_is_restored_from_it_belong_together(folder: Path, tmp_path: Path) -> None:
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    with open_records(folder / "ledger", folder / "audit_log", SECRET) as records:
        records.backup(backup / "ledger", backup / "audit_log")
        _answer(records, 3)
        with pytest.raises(LedgerBroken, match="not overwritten"):
            records.backup(backup / "ledger", backup / "audit_log")
        _answer(records, 4)
    with open_records(backup / "ledger", backup / "audit_log", SECRET) as records:
        assert records.ledger.stored_reply(_use(2)) == b"reply 2"
        records.backup(restored / "ledger", restored / "audit_log")
    assert _open(restored) == []


def test_a_backup_is_of_one_moment_while_another_process_answers(folder: Path, tmp_path: Path) -> None:
    """Copied one after the other, one of them would have more rows than the other has seen."""
    paths = folder / "ledger", folder / "audit_log"
    child = os.fork()
    if child == 0:
        try:
            with open_records(*paths, SECRET) as records:
                for round in itertools.count(3):
                    _answer(records, round)
        finally:
            os._exit(1)
    try:
        for i in range(8):
            with open_records(*paths, SECRET) as records:
                records.backup(tmp_path / f"{i}.ledger", tmp_path / f"{i}.audit log")
            with open_records(tmp_path / f"{i}.ledger", tmp_path / f"{i}.audit log", SECRET) as copy:
                assert copy.verify() == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_commit_whose_receipt_is_missing_is_pointed_out(folder: Path) -> None:
    with open_records(folder / "ledger", folder / "audit_log", SECRET) as records:
        assert records.without_receipt() == []
        _answer(records, 3, send=False)
        assert records.without_receipt() == [6]
        assert records.verify() == []
        reply = records.ledger.stored_reply(_use(3))
        assert reply is not None
        records.audit_log.append_receipt(_receipt(records, 3, reply))
        assert records.without_receipt() == []


def test_a_lost_audit_log_can_be_replaced_and_the_budget_stays_spent(folder: Path) -> None:
    (folder / "audit_log").unlink()
    replace_lost_audit_log(folder / "ledger", folder / "audit_log", SECRET)
    with open_records(folder / "ledger", folder / "audit_log", SECRET) as records:
        assert records.verify() == []
        assert len(records.ledger.spent("chest/train")) == 2
        assert records.without_receipt() == [2, 4]
        _answer(records, 3)
    with pytest.raises(LedgerBroken, match="exists and is in use; it is not replaced"):
        replace_lost_audit_log(folder / "ledger", folder / "audit_log", SECRET)
    assert _open(folder) == []
