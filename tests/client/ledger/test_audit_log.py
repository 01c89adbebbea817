"""The audit log: every message has its receipt, every decision its row, and nothing in it names a patient."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.errors import LedgerBroken, LedgerMissing, LedgerRolledBack, LedgerTampered
from client.ledger.audit_log import AuditLog, Kind, Receipt, norm_of, tensors_of
from client.ledger.links import Head

SECRET = bytes(range(32))
LEDGER = Head(7, "ab" * 32)
RECEIPT = Receipt(
    study="s1",
    round=3,
    message="TrainReport",
    cohort="chest/train",
    bytes=28_000_000,
    sha256="cd" * 32,
    tensors={"weight": "float32 (1, 1296)"},
    update_norm=0.25,
    epsilon_before=1.5,
    epsilon_after=1.75,
    ledger=LEDGER,
)
REFUSAL = replace(
    RECEIPT, message="Refusal", cohort=None, tensors={}, update_norm=None, epsilon_before=None, epsilon_after=None
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "audit.sqlite"
    AuditLog.create(path, SECRET, LEDGER).__exit__()
    return path


@pytest.fixture
def audit_log(path: Path) -> Iterator[AuditLog]:
    with AuditLog.open(path, SECRET) as audit_log:
        yield audit_log


def test_an_audit_log_is_made_once_and_never_by_opening(tmp_path: Path, path: Path) -> None:
    with pytest.raises(LedgerBroken, match="not overwritten"):
        AuditLog.create(path, SECRET, LEDGER)
    with pytest.raises(LedgerMissing, match="the audit log .* is missing"):  # noqa: RUF043
        AuditLog.open(tmp_path / "other.sqlite", SECRET)


@pytest.mark.parametrize(
    "receipt",
    [RECEIPT, REFUSAL, replace(RECEIPT, repeated=True), replace(RECEIPT, epsilon_before=0.0, epsilon_after=math.inf)],
    ids=["report", "refusal", "repeated", "without noise"],
)
def test_a_receipt_comes_back_as_it_was_written(path: Path, audit_log: AuditLog, receipt: Receipt) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    written = audit_log.append_receipt(receipt)
    assert written == replace(receipt, seq=1, at=written.at)
    assert written.at is not None
    assert before <= written.at <= datetime.now(UTC)
    with AuditLog.open(path, SECRET) as again:
        assert again.receipts() == [written]


def test_receipts_are_found_by_study_round_and_time(audit_log: AuditLog) -> None:
    written = [
        audit_log.append_receipt(replace(RECEIPT, study=study, round=round))
        for study in ("s1", "s2")
        for round in (1, 2)
    ]
    assert audit_log.receipts() == written
    assert audit_log.receipts(study="s2") == written[2:]
    assert audit_log.receipts(round=1) == [written[0], written[2]]
    assert audit_log.receipts(study="s1", round=2) == [written[1]]
    newest = written[-1].at
    assert newest is not None
    assert written[-1] in audit_log.receipts(since=newest)
    assert audit_log.receipts(since=newest + timedelta(seconds=1)) == []


def test_events_are_kept_beside_receipts(audit_log: AuditLog) -> None:
    approval = audit_log.append_event(Kind.APPROVAL, {"study": "s1", "digest": "ef" * 32, "by": "Dr. A. Weber"})
    audit_log.append_receipt(RECEIPT)
    revocation = audit_log.append_event(Kind.REVOCATION, {"study": "s2", "by": "Dr. A. Weber"})
    assert audit_log.events() == [approval, revocation]
    assert audit_log.events(kind=Kind.REVOCATION) == [revocation]
    assert audit_log.events(study="s1") == [approval]
    assert audit_log.events(since=revocation.at + timedelta(seconds=1)) == []
    assert approval.facts["by"] == "Dr. A. Weber"
    assert len(audit_log.receipts()) == 1


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_event_can_be_written(audit_log: AuditLog, kind: Kind) -> None:
    assert audit_log.append_event(kind, {"patients": 3, "complete": True, "why": None}).kind is kind
    assert [event.kind for event in audit_log.events()] == [kind]


@pytest.mark.parametrize(
    "fact",
    [
        "1.2.840.113619.2.55.3.604688119.971.1282570396.101",
        "series 1.2.276.0.7230010.3.1.3.8323329 was refused",
        "/data/pacs/incoming",
        "cannot read /data/pacs/1.dcm",
        "~/export",
        r"C:\images\1.dcm",
        r"\\server\share",
        "'/srv/x'",
    ],
)
def test_uids_and_paths_are_kept_out(audit_log: AuditLog, fact: str) -> None:
    with pytest.raises(ValueError, match="reason looks like a UID or a path"):
        audit_log.append_event(Kind.STOP, {"reason": fact})
    assert audit_log.head().seq == 0


@pytest.mark.parametrize("fact", ["chest/train", "1.41.0", "ab12" * 16, "Dr. A. Weber", "and/or", "12.03.2026 14:30"])
def test_ordinary_facts_are_let_in(audit_log: AuditLog, fact: str) -> None:
    audit_log.append_event(Kind.APPROVAL, {"text": fact})


def test_the_audit_log_remembers_the_ledgers_last_row(audit_log: AuditLog) -> None:
    assert audit_log.last_seen_ledger() == LEDGER
    audit_log.append_receipt(replace(RECEIPT, ledger=Head(9, "cd" * 32)))
    audit_log.append_event(Kind.STOP, {})
    audit_log.append_receipt(replace(REFUSAL, ledger=None))
    assert audit_log.last_seen_ledger() == Head(9, "cd" * 32)


@pytest.mark.parametrize("seq", [1, 2])
def test_a_changed_receipt_is_named_and_not_shown(path: Path, seq: int) -> None:
    with AuditLog.open(path, SECRET) as audit_log:
        audit_log.append_receipt(RECEIPT)
        audit_log.append_event(Kind.STOP, {"by": "night shift"})
    with closing(sqlite3.connect(path)) as db:
        (sql,) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'chain_keeps_values'").fetchone()
        db.execute("DROP TRIGGER chain_keeps_values")
        db.execute(f"UPDATE chain SET body = replace(replace(body, '1.75', '0.75'), 'night', 'day') WHERE seq = {seq}")
        db.execute(sql)
        db.commit()
    with pytest.raises(LedgerTampered, match=f"the audit log .* row {seq}: was changed"):
        AuditLog.open(path, SECRET)


def test_an_audit_log_from_an_old_backup_is_refused(tmp_path: Path, path: Path) -> None:
    with AuditLog.open(path, SECRET) as audit_log:
        audit_log.backup(tmp_path / "backup.sqlite")
        audit_log.append_receipt(RECEIPT)
        witness = audit_log.head()
    with AuditLog.open(tmp_path / "backup.sqlite", SECRET) as old:
        assert old.verify() == []
        with pytest.raises(LedgerRolledBack, match="row 1: was seen, but is gone"):
            old.require_not_older_than(witness)


def test_tensors_are_described_without_their_values() -> None:
    arrays: dict[str, NDArray[Any]] = {
        "weight": np.zeros((1, 1296), np.float32),
        "histogram": np.zeros((2, 64)),
        "none": np.zeros(0),
    }
    assert tensors_of(arrays) == {
        "weight": "float32 (1, 1296)",
        "histogram": "float64 (2, 64)",
        "none": "float64 (0,)",
    }


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=20), max_size=4))
def test_the_norm_is_that_of_all_values_in_a_row(values: list[list[float]]) -> None:
    arrays = {str(i): np.array(v, np.float32) for i, v in enumerate(values)}
    flat = np.concatenate([np.zeros(1), *(a.astype(np.float64) for a in arrays.values())])
    assert norm_of(arrays) == pytest.approx(float(np.linalg.norm(flat)), rel=1e-12)
