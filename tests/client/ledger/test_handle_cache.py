"""Files that stay open: the same checks as at opening, only the new rows read."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from client.errors import LedgerMissing, LedgerRolledBack, LedgerTampered
from client.ledger import handle_cache
from client.ledger import records as records_module
from client.ledger.account import Use
from client.ledger.accounting import Mechanism
from client.ledger.audit_log import Receipt
from client.ledger.handle_cache import HandleCache
from client.ledger.ledger import Caps, Planned
from client.ledger.records import create_records, open_records, records_kept_open
from tests.client.reserving import reserve

SECRET = b"k" * 32
CAPS = Caps(float("inf"), float("inf"), 1e-4)


class Hospital:
    """A hospital's two files and a shelf for them."""

    def __init__(self, folder: Path) -> None:
        self.ledger, self.audit_log = folder / "ledger.sqlite", folder / "audit.sqlite"
        create_records(self.ledger, self.audit_log, SECRET)

    def answer(self, round: int) -> int:
        """Reserve and commit; how many entries the ledger has then."""
        with records_kept_open(self.ledger, self.audit_log, SECRET) as records:
            use = Use("train", "study", round, f"order {round}")
            reserve(records.ledger, use, lambda account: Planned(Mechanism(50.0, 1.0, 1)), CAPS)
            records.ledger.commit(use, b"reply")
            return len(records.ledger.entries())

    def put_back(self, old: Path) -> None:
        """An old ledger in the place of the open one, as who restores a copy by hand does it."""
        for path in (self.ledger, *self.ledger.parent.glob("ledger.sqlite-*")):
            path.unlink()
        shutil.copy(old, self.ledger)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def test_the_same_records_are_used_again_and_only_new_rows_are_read(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hospital.answer(1) == 1
    monkeypatch.setattr(records_module, "open_records", lambda *_: pytest.fail("opened again"))
    assert [hospital.answer(round) for round in (2, 3)] == [2, 3]


def test_closed_records_are_whole_without_their_write_ahead_logs(hospital: Hospital) -> None:
    hospital.answer(1)
    records_module._OPEN_HANDLES.close()
    assert sorted(path.name for path in hospital.ledger.parent.iterdir()) == ["audit.sqlite", "ledger.sqlite"]
    assert hospital.answer(2) == 2


def test_what_another_process_has_entered_is_seen(hospital: Hospital) -> None:
    hospital.answer(1)
    with open_records(hospital.ledger, hospital.audit_log, SECRET) as records:
        use = Use("train", "other", 1, "other")
        reserve(records.ledger, use, lambda account: Planned(Mechanism(50.0, 1.0, 1)), CAPS)
    assert hospital.answer(2) == 3


def test_the_file_that_lies_there_is_read_not_the_one_that_was_open(hospital: Hospital, tmp_path: Path) -> None:
    hospital.answer(1)
    records_module._OPEN_HANDLES.close()
    shutil.copy(hospital.ledger, tmp_path / "old.sqlite")
    hospital.answer(2)
    hospital.put_back(tmp_path / "old.sqlite")
    assert hospital.answer(3) == 2


def test_a_ledger_older_than_the_receipts_is_refused(hospital: Hospital, tmp_path: Path) -> None:
    hospital.answer(1)
    records_module._OPEN_HANDLES.close()
    shutil.copy(hospital.ledger, tmp_path / "old.sqlite")
    hospital.answer(2)
    with records_kept_open(hospital.ledger, hospital.audit_log, SECRET) as records:
        head = records.ledger.head()
        records.audit_log.append_receipt(
            Receipt("study", 2, "TrainReport", "train", 5, "0" * 64, {}, 1.0, 0.1, 0.2, head)
        )
    hospital.put_back(tmp_path / "old.sqlite")
    with pytest.raises(LedgerRolledBack):
        hospital.answer(3)


def test_a_row_that_was_changed_is_refused_also_in_records_that_were_open(hospital: Hospital) -> None:
    hospital.answer(1)
    with sqlite3.connect(hospital.ledger) as connection:
        connection.execute("DROP TRIGGER chain_keeps_values")
        connection.execute("UPDATE chain SET body = replace(body, 'study', 'other') WHERE seq = 1")
    with pytest.raises(LedgerTampered, match="chain_keeps_values is missing"):
        hospital.answer(2)


def test_an_audit_log_whose_rules_were_taken_away_is_refused_also_in_records_that_were_open(hospital: Hospital) -> None:
    hospital.answer(1)
    with sqlite3.connect(hospital.audit_log) as connection:
        connection.execute("DROP TRIGGER chain_keeps_rows")
    with pytest.raises(LedgerTampered, match="chain_keeps_rows is missing"):
        hospital.answer(2)


def test_a_ledger_that_is_gone_is_missed(hospital: Hospital) -> None:
    hospital.answer(1)
    hospital.ledger.unlink()
    with pytest.raises(LedgerMissing):
        hospital.answer(2)


def test_an_error_in_between_opens_them_afresh(hospital: Hospital) -> None:
    hospital.answer(1)
    with pytest.raises(RuntimeError), records_kept_open(hospital.ledger, hospital.audit_log, SECRET):
        raise RuntimeError("in the middle of an order")
    assert hospital.answer(2) == 2


def test_as_many_stay_open_as_the_system_allows_a_process_files(tmp_path: Path) -> None:
    """Whoever plays more hospitals in turn than stay open opens every one anew each time."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert handle_cache._MOST == 32 or allowed > 9 * handle_cache._MOST
    kept, opened = HandleCache[str](), []

    @contextmanager
    def opening(name: str) -> Iterator[str]:
        opened.append(name)
        yield name

    names = [f"h{number}" for number in range(handle_cache._MOST)]
    for name in [*names, *names]:
        with kept.use((tmp_path / name,), partial(opening, name)):
            pass
    assert opened == names


def test_it_does_not_keep_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle_cache, "_MOST", 2)
    kept, closed = HandleCache[str](), []

    @contextmanager
    def opening(name: str) -> Iterator[str]:
        yield name
        closed.append(name)

    for name in "abac":
        with kept.use((tmp_path / name,), partial(opening, name)) as opened:
            assert opened == name
    assert closed == ["b"], "the one that was not used for longest makes room"
    kept.close()
    assert sorted(closed) == ["a", "b", "c"]
