"""The ledger: nothing is done that was not entered first, and nothing that was entered is forgotten or doubled."""

import hashlib
import math
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import (
    AlreadyAnswered,
    BudgetExhausted,
    LedgerBroken,
    LedgerMissing,
    LedgerRolledBack,
    LedgerTampered,
)
from client.ledger.account import Account, Use
from client.ledger.accounting import Mechanism, epsilon_of
from client.ledger.ledger import Caps, Ledger, Planned
from tests.client.reserving import reserve

SECRET = bytes(range(32))
DELTA = 1e-5
STEP = Mechanism(4.0, 1.0, 1)
NO_CAPS = Caps(math.inf, math.inf, DELTA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, SECRET).__exit__()
    return path


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path, SECRET) as ledger:
        yield ledger


def _use(round: int = 1, study: str = "s1", cohort: str = "chest/train") -> Use:
    return Use(cohort, study, round, hashlib.sha256(f"{cohort} {study} {round}".encode()).hexdigest())


def _step(account: Account) -> Planned:
    return Planned(STEP)


def _answer(ledger: Ledger, use: Use, reply: bytes, caps: Caps = NO_CAPS) -> None:
    reserve(ledger, use, _step, caps)
    ledger.commit(use, reply)


def _change(path: Path, *statements: str) -> None:
    """As somebody who has the file and SQLite, but not the key."""
    with closing(sqlite3.connect(path)) as db:
        triggers = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")]
        for statement in ("DROP TRIGGER chain_keeps_rows", "DROP TRIGGER chain_keeps_values", *statements, *triggers):
            db.execute(statement)
        db.commit()


def test_nothing_is_reserved_outside_of_planning(ledger: Ledger) -> None:
    """Or two processes could both take the last of the budget."""
    with pytest.raises(RuntimeError, match="in a transaction"):
        ledger.reserve(_use(), Planned(STEP), NO_CAPS)
    with pytest.raises(RuntimeError, match="in a transaction"):
        ledger.reserve(_use(), Planned(STEP, {"chest/train": [STEP]}), NO_CAPS)
    assert ledger.entries() == []
    assert ledger.account().earmarks() == []


def test_a_ledger_is_made_once_and_never_by_opening(tmp_path: Path, path: Path) -> None:
    with pytest.raises(LedgerBroken, match="not overwritten"):
        Ledger.create(path, SECRET)
    with pytest.raises(LedgerMissing, match="is missing"):
        Ledger.open(tmp_path / "other.sqlite", SECRET)


def test_the_plan_sees_what_the_study_has_spent_on_this_cohort_only(ledger: Ledger) -> None:
    first, second = Mechanism(4.0, 0.5, 10), Mechanism(5.0, 0.5, 10)
    reserve(ledger, _use(1), lambda account: Planned(first), NO_CAPS)
    reserve(ledger, _use(1, study="s2"), _step, NO_CAPS)
    reserve(ledger, _use(1, cohort="chest/validation"), _step, NO_CAPS)
    seen: list[list[Mechanism]] = []

    def plan(account: Account) -> Planned:
        seen.append([entry.mechanism for entry in account.reservations("chest/train", "s1")])
        return Planned(second)

    assert reserve(ledger, _use(2), plan, NO_CAPS) == second
    assert seen == [[first]]
    assert ledger.spent("chest/train", "s1") == [first, second]
    assert ledger.spent("chest/train") == [first, STEP, second]
    assert ledger.cohorts() == ["chest/train", "chest/validation"]
    assert ledger.studies() == ["s1", "s2"]


def test_a_mechanism_comes_back_exactly(path: Path, ledger: Ledger) -> None:
    exact = Mechanism(math.nextafter(1.1, 2), 1 / 3, 7)
    reserve(ledger, _use(), lambda account: Planned(exact), NO_CAPS)
    with Ledger.open(path, SECRET) as again:
        assert again.spent("chest/train") == [exact]


def test_the_cap_of_a_study_holds(ledger: Ledger) -> None:
    caps = Caps(epsilon_of([STEP] * 2, DELTA), math.inf, DELTA)
    reserve(ledger, _use(1), _step, caps)
    reserve(ledger, _use(2), _step, caps)
    with pytest.raises(BudgetExhausted, match=r"chest/train: epsilon for study s1 would be 1\.698, the cap is 1\.35"):
        reserve(ledger, _use(3), _step, caps)
    assert ledger.spent("chest/train") == [STEP] * 2
    reserve(ledger, _use(1, study="s2"), _step, caps)


def test_the_cap_for_life_holds_over_studies(ledger: Ledger) -> None:
    caps = Caps(math.inf, epsilon_of([STEP] * 2, DELTA), DELTA)
    reserve(ledger, _use(1, study="s1"), _step, caps)
    reserve(ledger, _use(1, study="s2"), _step, caps)
    with pytest.raises(BudgetExhausted, match="lifetime epsilon"):
        reserve(ledger, _use(1, study="s3"), _step, caps)
    assert ledger.studies() == ["s1", "s2"]
    reserve(ledger, _use(1, study="s3", cohort="chest/validation"), _step, caps)


def test_no_noise_passes_no_finite_cap(ledger: Ledger) -> None:
    with pytest.raises(BudgetExhausted, match="would be inf"):
        reserve(ledger, _use(), lambda account: Planned(Mechanism(0.0, 1.0, 1)), Caps(100, 100, DELTA))
    reserve(ledger, _use(), lambda account: Planned(Mechanism(0.0, 1.0, 1)), NO_CAPS)


def test_a_cap_that_is_not_a_number_lets_nothing_pass(ledger: Ledger) -> None:
    with pytest.raises(BudgetExhausted):
        reserve(ledger, _use(), _step, Caps(math.nan, math.inf, DELTA))


def test_a_plan_that_fails_enters_nothing_and_locks_nothing(path: Path, ledger: Ledger) -> None:
    def plan(account: Account) -> Planned:
        raise BudgetExhausted("no noise would do")

    with pytest.raises(BudgetExhausted, match="no noise would do"):
        reserve(ledger, _use(), plan, NO_CAPS)
    with Ledger.open(path, SECRET) as other:
        reserve(other, _use(), _step, NO_CAPS)
    assert ledger.spent("chest/train") == [STEP]


def test_the_same_order_gets_the_stored_reply(path: Path, ledger: Ledger) -> None:
    assert ledger.stored_reply(_use()) is None
    reply = os.urandom(100_000)
    _answer(ledger, _use(), reply)
    assert ledger.stored_reply(_use()) == reply
    with Ledger.open(path, SECRET) as again:
        assert again.stored_reply(_use()) == reply
        assert again.stored_reply(_use(2)) is None
        assert len(again.spent("chest/train")) == 1


def test_an_order_that_was_lost_is_reserved_again_and_costs_again(ledger: Ledger) -> None:
    reserve(ledger, _use(), _step, NO_CAPS)
    assert ledger.stored_reply(_use()) is None
    _answer(ledger, _use(), b"second run")
    assert ledger.spent("chest/train") == [STEP] * 2
    assert [entry.committed for entry in ledger.entries()] == [None, 3]
    assert ledger.stored_reply(_use()) == b"second run"


def test_an_answered_order_is_never_reserved_again(ledger: Ledger) -> None:
    _answer(ledger, _use(1), b"one")
    with pytest.raises(AlreadyAnswered):
        reserve(ledger, _use(1), _step, NO_CAPS)
    _answer(ledger, _use(2), b"two")
    assert ledger.stored_reply(_use(1)) is None
    with pytest.raises(AlreadyAnswered, match=r"round 1 of study s1 .* resume from its newest checkpoint"):
        reserve(ledger, _use(1), _step, NO_CAPS)
    assert ledger.spent("chest/train") == [STEP] * 2


def test_only_the_newest_reply_of_a_study_on_a_cohort_is_kept(path: Path, ledger: Ledger) -> None:
    others = [_use(1, study="s2"), _use(1, cohort="chest/validation")]
    for use in others:
        _answer(ledger, use, use.study.encode())
    for round in (1, 2, 3):
        _answer(ledger, _use(round), b"%d" % round)
    assert [ledger.stored_reply(_use(round)) for round in (1, 2, 3)] == [None, None, b"3"]
    assert all(ledger.stored_reply(use) == use.study.encode() for use in others)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM replies").fetchone() == (3,)
    assert ledger.verify() == []


def test_a_reply_needs_a_reservation_of_its_own(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="round 1 of study s1 was not reserved"):
        ledger.commit(_use(1), b"")
    _answer(ledger, _use(1), b"")
    with pytest.raises(ValueError, match="was not reserved"):
        ledger.commit(_use(1), b"another")
    assert ledger.stored_reply(_use(1)) == b""


def test_a_commit_names_the_reply(ledger: Ledger) -> None:
    _answer(ledger, _use(), b"reply")
    (entry,) = ledger.entries()
    assert (entry.reply_sha256, entry.reply_bytes) == (hashlib.sha256(b"reply").hexdigest(), 5)
    assert entry.committed_at is not None
    assert entry.reserved_at <= entry.committed_at


def test_what_another_process_enters_is_seen(path: Path, ledger: Ledger) -> None:
    with Ledger.open(path, SECRET) as other:
        for round in range(1, 4):
            _answer(other, _use(round), b"%d" % round)
            assert len(ledger.spent("chest/train")) == round
            assert ledger.stored_reply(_use(round)) == b"%d" % round


@pytest.mark.parametrize("seq", range(1, 5))
def test_nothing_is_counted_from_a_row_that_was_changed(path: Path, seq: int) -> None:
    with Ledger.open(path, SECRET) as ledger:
        _answer(ledger, _use(1), b"1")
        _answer(ledger, _use(2), b"2")
        for round in range(3, 40):  # so that the row is not among those that opening checks
            reserve(ledger, _use(round), _step, NO_CAPS)
    _change(path, f"UPDATE chain SET body = replace(body, '4.0', '9.0') || ' ' WHERE seq = {seq}")
    with Ledger.open(path, SECRET) as ledger:
        assert [f.partition(":")[0] for f in ledger.verify()] == [f"row {seq}"]
        for count in (
            lambda: reserve(ledger, _use(99), _step, NO_CAPS),
            lambda: ledger.spent("chest/train"),
            lambda: ledger.stored_reply(_use(2)),
        ):
            with pytest.raises(LedgerTampered, match=f"row {seq}: was changed"):
                count()


def test_a_changed_reply_is_not_sent(path: Path) -> None:
    with Ledger.open(path, SECRET) as ledger:
        _answer(ledger, _use(), b"reply")
    _change(path, "UPDATE replies SET reply = X'00'")
    with Ledger.open(path, SECRET) as ledger:
        assert ledger.verify() == ["row 2: the stored reply is not the one that was committed"]
        with pytest.raises(LedgerTampered, match="row 2: the stored reply is not the one that was committed"):
            ledger.stored_reply(_use())


def test_a_removed_or_added_reply_is_found(path: Path) -> None:
    with Ledger.open(path, SECRET) as ledger:
        _answer(ledger, _use(), b"reply")
    _change(path, "UPDATE replies SET committed = 1")
    with Ledger.open(path, SECRET) as ledger:
        assert ledger.verify() == ["row 2: its reply is missing", "row 1: a stored reply belongs to no order"]
        assert ledger.stored_reply(_use()) is None
        with pytest.raises(AlreadyAnswered):
            reserve(ledger, _use(), _step, NO_CAPS)
    _change(path, "DROP TABLE replies")
    with Ledger.open(path, SECRET) as ledger:
        assert "no such table: replies" in ledger.verify()[0]


def test_a_ledger_from_an_old_backup_is_refused(tmp_path: Path, path: Path) -> None:
    with Ledger.open(path, SECRET) as ledger:
        _answer(ledger, _use(1), b"1")
        ledger.backup(tmp_path / "backup.sqlite")
        ledger.require_not_older_than(ledger.head())
        _answer(ledger, _use(2), b"2")
        witness = ledger.head()
    with Ledger.open(tmp_path / "backup.sqlite", SECRET) as old:
        assert old.verify() == []
        assert old.stored_reply(_use(1)) == b"1"
        with pytest.raises(LedgerRolledBack, match="row 4: was seen, but is gone: the last row is 2"):
            old.require_not_older_than(witness)
        assert old.verify(witness) == ["row 4: was seen, but is gone: the last row is 2"]


_ORDERS = st.tuples(st.sampled_from(["s1", "s2"]), st.sampled_from(["a", "b"]), st.integers(1, 3))


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["ask", "crash", "reopen"]), _ORDERS), max_size=25))
def test_any_sequence_of_orders_and_crashes_is_counted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, tuple[str, str, int]]]
) -> None:
    """Against a model in plain Python: what was reserved, and the newest reply of each study on each cohort."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    reserved: list[Use] = []
    answered: dict[Use, bytes] = {}
    newest: dict[tuple[str, str], Use] = {}
    ledger = Ledger.create(path, SECRET)
    for number, (what, (study, cohort, round)) in enumerate(steps):
        use = _use(round, study, cohort)
        if what == "reopen":
            ledger.__exit__()
            ledger = Ledger.open(path, SECRET)
        elif use in answered:
            expected = answered[use] if newest[study, cohort] == use else None
            assert ledger.stored_reply(use) == expected
            with pytest.raises(AlreadyAnswered):
                reserve(ledger, use, _step, NO_CAPS)
        else:
            reserve(ledger, use, _step, NO_CAPS)
            reserved.append(use)
            if what == "ask":
                answered[use], newest[study, cohort] = b"%d" % number, use
                ledger.commit(use, answered[use])
        assert [entry.use for entry in ledger.entries()] == reserved
    assert ledger.verify() == []
    ledger.__exit__()


def _slow_step(account: Account) -> Planned:
    """Long enough for the other process to plan from the same history, if it could."""
    time.sleep(0.005)
    return Planned(STEP)


def _reserve_at_the_signal(path: Path, use: Use, caps: Caps, reading: int, writing: int) -> int:
    """A process that waits for the pipe to close, then reserves. Returns its id; it exits with 0, or 1: no budget."""
    child = os.fork()
    if child:
        return child
    code = 2
    try:
        os.close(writing)
        with Ledger.open(path, SECRET) as ledger:
            os.read(reading, 1)
            reserve(ledger, use, _slow_step, caps)
            code = 0
    except BudgetExhausted:
        code = 1
    finally:
        os._exit(code)


@pytest.mark.parametrize("studies", [("s1", "s1"), ("s1", "s2")], ids=["of the study", "of a life"])
def test_of_two_processes_exactly_one_gets_the_last_of_the_budget(tmp_path: Path, studies: tuple[str, str]) -> None:
    once = epsilon_of([STEP], DELTA)
    epsilon_of([STEP] * 2, DELTA)  # into the cache that the children inherit: they meet in the same milliseconds
    caps = Caps(once, math.inf, DELTA) if studies[0] == studies[1] else Caps(math.inf, once, DELTA)
    for trial in range(12):
        path = tmp_path / f"{trial}.sqlite"
        Ledger.create(path, SECRET).__exit__()
        pipe = os.pipe()
        children = [_reserve_at_the_signal(path, _use(i, study), caps, *pipe) for i, study in enumerate(studies)]
        for end in pipe:
            os.close(end)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(codes) == [0, 1]
        with Ledger.open(path, SECRET) as ledger:
            assert ledger.spent("chest/train") == [STEP]
            assert ledger.verify() == []
