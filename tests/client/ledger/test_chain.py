"""The chain: whatever is done to the file without the key is found and named by its row."""

import os
import resource
import shutil
import sqlite3
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.errors import LedgerBroken, LedgerMissing, LedgerRolledBack, LedgerTampered, LedgerUnwritable
from client.ledger import links
from client.ledger.chain import Chain
from client.ledger.links import BEFORE_ALL, Head, Row

SECRET = bytes(range(32))
ROWS = 6
TRIGGERS = ("chain_keeps_rows", "chain_keeps_values")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A chain of a genesis and ``ROWS`` rows."""
    path = tmp_path / "book.sqlite"
    with Chain.create(path, SECRET, "book", {}) as chain:
        _fill(chain, ROWS)
    return path


def _fill(chain: Chain, rows: int) -> None:
    _append(chain, *({"i": i, "text": "Prüfung"} for i in range(rows)))


def _append(chain: Chain, *bodies: dict[str, object]) -> None:
    with chain.transaction():
        for body in bodies:
            chain.append("note", body)


def _verify(path: Path, witness: Head | None = None) -> list[str]:
    with closing(Chain(path, SECRET, "book")) as chain:
        return [str(fault) for fault in chain.verify(witness)]


def _head(path: Path) -> Head:
    with Chain.open(path, SECRET, "book") as chain:
        return chain.head()


@contextmanager
def _intruder(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody with SQLite and the file, who takes the triggers away and puts them back afterwards."""
    with closing(sqlite3.connect(path)) as db:
        triggers = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")]
        for name in TRIGGERS:
            db.execute(f"DROP TRIGGER {name}")
        yield db
        for sql in triggers:
            db.execute(sql)
        db.commit()


def test_a_chain_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "book.sqlite"
    with Chain.create(path, SECRET, "book", {"why": "test"}) as chain:
        (genesis,) = chain.rows()
    assert (genesis.seq, genesis.kind, genesis.body["why"], len(genesis.body["id"])) == (0, "genesis", "test", 32)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(LedgerBroken, match="is not overwritten"):
        Chain.create(path, SECRET, "book", {})
    assert _verify(path) == []


def test_two_chains_are_never_the_same(tmp_path: Path) -> None:
    heads = set()
    for name in ("a", "b"):
        Chain.create(tmp_path / name, SECRET, "book", {}).close()
        heads.add(_head(tmp_path / name).hash)
    assert len(heads) == 2


def test_a_write_ahead_log_that_was_left_behind_stops_creation(tmp_path: Path) -> None:
    (tmp_path / "book.sqlite-wal").write_bytes(b"rows of a chain whose file was removed")
    with pytest.raises(LedgerBroken, match=r"book\.sqlite-wal exists already"):
        Chain.create(tmp_path / "book.sqlite", SECRET, "book", {})
    assert not (tmp_path / "book.sqlite").exists()


def test_opening_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(LedgerMissing, match=r"book.sqlite is missing. Restore the newest backup"):
        Chain.open(tmp_path / "book.sqlite", SECRET, "book")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a database" * 100], ids=["empty", "text"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "book.sqlite"
    path.write_bytes(content)
    with pytest.raises(LedgerTampered, match=r"book\.sqlite"):
        Chain.open(path, SECRET, "book")


def test_another_key_or_purpose_is_told_at_once(path: Path) -> None:
    for secret, purpose in ((bytes(32), "book"), (SECRET, "diary")):
        with pytest.raises(LedgerTampered, match=r"site\.key is not its key, or this is not a hospital's"):
            Chain.open(path, secret, purpose)


def test_sqlite_itself_refuses_to_change_or_delete(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in ("UPDATE chain SET body = '{}' WHERE seq = 1", "DELETE FROM chain WHERE seq = 1"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)


def test_rows_come_back_as_they_went_in(path: Path) -> None:
    with Chain.open(path, SECRET, "book") as chain:
        rows = list(chain.rows())
        assert [row.seq for row in rows] == list(range(ROWS + 1))
        assert rows[3].body == {"i": 2, "text": "Prüfung"}
        assert [row.seq for row in chain.rows(after=Head(4, rows[4].hash))] == [5, 6]
        assert [row.seq for row in chain.backwards()] == list(range(ROWS, -1, -1))
        assert chain.head() == Head(ROWS, rows[-1].hash)


def test_an_append_needs_a_transaction_and_finite_numbers(path: Path) -> None:
    with Chain.open(path, SECRET, "book") as chain:
        with pytest.raises(RuntimeError, match="transaction"):
            chain.append("note", {})
        with pytest.raises(ValueError, match="JSON compliant"):
            _append(chain, {"fine": 1}, {"epsilon": float("nan")})
        assert chain.head().seq == ROWS


def _other(value: object) -> object:
    return value + 40 if isinstance(value, int) else f"{'0' if str(value)[0] != '0' else '1'}{str(value)[1:]}"


@pytest.mark.parametrize("field", ["seq", "at", "kind", "body", "previous", "hash"])
@pytest.mark.parametrize("seq", range(ROWS + 1))
def test_every_changed_field_of_every_row_is_found(path: Path, seq: int, field: str) -> None:
    with _intruder(path) as db:
        (value,) = db.execute(f"SELECT {field} FROM chain WHERE seq = {seq}").fetchone()
        db.execute(f"UPDATE chain SET {field} = ? WHERE seq = {seq}", (_other(value),))
    faults = _verify(path)
    if field == "seq":
        assert f"row {seq + 40}: was written as row {seq}: rows were moved, removed or inserted before it" in faults
    else:
        assert f"row {seq}: was changed after it was written, or was written without this hospital's key" in faults
    with pytest.raises(LedgerTampered), Chain.open(path, SECRET, "book") as chain:
        list(chain.rows())


@pytest.mark.parametrize("seq", range(ROWS))
def test_a_removed_row_is_missed(path: Path, seq: int) -> None:
    with _intruder(path) as db:
        db.execute(f"DELETE FROM chain WHERE seq = {seq}")
    assert f"row {seq}: is missing" in _verify(path)


def test_a_removed_stretch_is_missed(path: Path) -> None:
    with _intruder(path) as db:
        db.execute("DELETE FROM chain WHERE seq IN (2, 3, 4)")
    assert _verify(path) == ["row 2: is missing, as are all others up to 4"]


def test_removing_and_renumbering_is_found(path: Path) -> None:
    with _intruder(path) as db:
        db.execute("DELETE FROM chain WHERE seq = 2")
        for seq in range(3, ROWS + 1):
            db.execute(f"UPDATE chain SET seq = {seq - 1} WHERE seq = {seq}")
    assert [f.rpartition(":")[0] for f in _verify(path)] == [
        f"row {s}: was written as row {s + 1}" for s in range(2, ROWS)
    ]


@pytest.mark.parametrize(("a", "b"), [(1, 2), (2, 5), (5, 6)])
def test_swapped_rows_are_found(path: Path, a: int, b: int) -> None:
    with _intruder(path) as db:
        for source, target in ((a, 99), (b, a), (99, b)):
            db.execute(f"UPDATE chain SET seq = {target} WHERE seq = {source}")
    faults = _verify(path)
    for here, origin in ((a, b), (b, a)):
        assert any(f.startswith(f"row {here}: was written as row {origin}:") for f in faults)


def test_a_row_forged_with_another_key_is_found(path: Path) -> None:
    head = _head(path)
    forged = links.link(
        links.derived_key(bytes(32), "book"), head.seq + 1, "2026-01-01T00:00:00", "note", {}, head.hash
    )
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?, ?)", forged)
        db.commit()
    expected = f"row {ROWS + 1}: was changed after it was written, or was written without this hospital's key"
    assert _verify(path) == [expected]
    with pytest.raises(LedgerTampered, match="written without this hospital's key"):
        Chain.open(path, SECRET, "book")


def test_a_row_inserted_in_the_middle_is_found(path: Path) -> None:
    with _intruder(path) as db:
        for seq in range(ROWS, 2, -1):
            db.execute(f"UPDATE chain SET seq = {seq + 1} WHERE seq = {seq}")
        db.execute("INSERT INTO chain SELECT 3, at, kind, body, previous, hash FROM chain WHERE seq = 2")
    faults = _verify(path)
    assert faults[0].startswith("row 3: was written as row 2:")
    assert len(faults) == ROWS - 1


def test_rows_before_the_genesis_are_found(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO chain SELECT -5, at, kind, body, previous, hash FROM chain WHERE seq = 0")
        db.commit()
    assert any(fault.startswith("row -5: was written as row 0") for fault in _verify(path))
    with pytest.raises(LedgerTampered, match="row -5"):
        Chain.open(path, SECRET, "book")


def test_two_histories_under_one_key_cannot_be_spliced(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "other.sqlite"
    shutil.copy(path, other)
    for book, rows in ((path, 2), (other, 3)):
        with Chain.open(book, SECRET, "book") as chain:
            _fill(chain, rows)
    with _intruder(path) as db, closing(sqlite3.connect(other)) as source:
        foreign = source.execute(f"SELECT * FROM chain WHERE seq = {ROWS + 3}").fetchone()
        db.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?, ?)", foreign)
    fault = f"row {ROWS + 3}: does not follow the row before it, which was replaced"
    assert _verify(path) == [fault]
    with closing(Chain(path, SECRET, "book")) as chain, pytest.raises(LedgerTampered, match=fault):
        list(chain.rows())


@pytest.mark.parametrize("kept", range(ROWS))
def test_a_cut_tail_is_right_in_itself_and_found_by_a_witness(path: Path, kept: int) -> None:
    witness = _head(path)
    with _intruder(path) as db:
        db.execute(f"DELETE FROM chain WHERE seq > {kept}")
    assert _verify(path) == []
    assert _verify(path, witness) == [f"row {ROWS}: was seen, but is gone: the last row is {kept}"]
    with Chain.open(path, SECRET, "book") as chain, pytest.raises(LedgerRolledBack, match="Restore the newest backup"):
        chain.require(witness)


def test_an_old_copy_that_was_written_on_is_found_by_a_witness(tmp_path: Path, path: Path) -> None:
    old = tmp_path / "old.sqlite"
    shutil.copy(path, old)
    with Chain.open(path, SECRET, "book") as chain:
        _fill(chain, 1)
        witness = chain.head()
    shutil.copy(old, path)
    with Chain.open(path, SECRET, "book") as chain:
        with chain.transaction():
            chain.append("note", {"another": "history"})
        with pytest.raises(LedgerRolledBack, match=f"row {ROWS + 1}: is not the row that was seen"):
            chain.require(witness)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("DROP TRIGGER chain_keeps_rows", "chain_keeps_rows is missing"),
        ("DROP TRIGGER chain_keeps_values", "chain_keeps_values is missing"),
        ("CREATE TRIGGER more AFTER INSERT ON chain BEGIN SELECT 1; END", "more is not ours"),
        ("CREATE INDEX fast ON chain (kind)", "fast is not ours"),
        ("DROP TABLE chain", "chain is missing"),
        ("ALTER TABLE chain ADD COLUMN secret TEXT", "chain is altered"),
    ],
)
def test_changed_tables_and_triggers_are_found_and_not_opened(path: Path, change: str, named: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(change)
        db.commit()
    assert any(named in fault for fault in _verify(path))
    with pytest.raises(LedgerTampered, match=named):
        Chain.open(path, SECRET, "book")


def test_an_emptied_chain_is_named(path: Path) -> None:
    with _intruder(path) as db:
        db.execute("DELETE FROM chain")
    assert _verify(path) == ["row 0: is missing, as are all others: the chain is empty"]
    with closing(Chain(path, SECRET, "book")) as chain:
        for read in (chain.head, lambda: list(chain.rows())):
            with pytest.raises(LedgerTampered, match="the chain is empty"):
                read()


def test_values_of_foreign_types_are_found(path: Path) -> None:
    """Without STRICT a column takes anything: NULL, blobs, text that is not UTF-8."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT * FROM chain").fetchall()
        db.execute("DROP TABLE chain")
        db.execute("CREATE TABLE chain (seq, at, kind, body, previous, hash)")
        rows[2] = (2, None, b"note", 7, "", 1.5)
        rows[4] = ("four", *rows[4][1:])
        db.executemany("INSERT INTO chain VALUES (?, ?, ?, ?, ?, ?)", rows)
        db.execute("UPDATE chain SET body = CAST(X'FF00' AS TEXT) WHERE seq = 3")
        db.commit()
    faults = _verify(path)
    assert "table or trigger chain is altered" in faults
    assert {f[:6] for f in faults if f.startswith("row")} >= {"row 2:", "row 3:", "row 4:"}
    assert "a row is numbered 'four'" in faults


def test_opening_reads_the_ends_only_and_reading_checks_all(tmp_path: Path) -> None:
    path = tmp_path / "book.sqlite"
    with Chain.create(path, SECRET, "book", {}) as chain:
        _fill(chain, 200)
    with _intruder(path) as db:
        db.execute("UPDATE chain SET body = '{}' WHERE seq = 100")
    with Chain.open(path, SECRET, "book") as chain:
        assert [fault.seq for fault in chain.verify()] == [100]
        with pytest.raises(LedgerTampered, match="row 100: was changed"):
            list(chain.rows())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_or_means_nothing(path: Path, tmp_path: Path, place: float, bit: int) -> None:
    """Anywhere in the file, whether SQLite notices or only we do: never wrong rows, never an error without a name."""
    with Chain.open(path, SECRET, "book") as chain:
        before = list(chain.rows())
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(content)
    try:
        with Chain.open(damaged, SECRET, "book") as chain:
            after = list(chain.rows())
    except LedgerBroken:
        return
    assert after == before


@given(st.lists(st.text("0:ab", max_size=3), min_size=5, max_size=8), st.data())
def test_text_cannot_be_shifted_from_one_field_to_the_next(pieces: list[str], data: st.DataObject) -> None:
    """Two rows that read the same when their fields are joined have two hashes."""
    cuts = st.lists(st.integers(1, len(pieces) - 1), min_size=2, max_size=2, unique=True).map(sorted)
    a, b = data.draw(st.lists(cuts, min_size=2, max_size=2, unique_by=tuple))
    hashes = set()
    for first, second in (a, b):
        at, kind, previous = (";".join(p) for p in (pieces[:first], pieces[first:second], pieces[second:]))
        hashes.add(links.link(b"key", 1, at, kind, {}, previous)[-1])
    assert len(hashes) == 2


def test_the_hash_is_the_documented_one() -> None:
    """Computed by hand with the standard library, so that an auditor's own program would agree."""
    import hashlib
    import hmac

    key = hmac.new(SECRET, b"consilium book\x01", hashlib.sha256).digest()
    text = f"1;4:2026;4:note;64:{BEFORE_ALL};7:" + '{"a":1}'
    expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    assert links.link(links.derived_key(SECRET, "book"), 1, "2026", "note", {"a": 1}, BEFORE_ALL)[-1] == expected


def test_a_backup_is_whole_while_another_writes_and_restores_by_the_same_call(tmp_path: Path, path: Path) -> None:
    with Chain.open(path, SECRET, "book") as chain, Chain.open(path, SECRET, "book") as writer:
        _fill(writer, 1)
        chain.backup(tmp_path / "backup.sqlite")
        _fill(writer, 1)
        with pytest.raises(LedgerBroken, match="not overwritten"):
            chain.backup(tmp_path / "backup.sqlite")
    with Chain.open(tmp_path / "backup.sqlite", SECRET, "book") as backup:
        assert backup.head().seq == ROWS + 1
        backup.backup(tmp_path / "restored.sqlite")
    assert _head(tmp_path / "restored.sqlite").seq == ROWS + 1
    assert stat.S_IMODE((tmp_path / "backup.sqlite").stat().st_mode) == 0o600


def test_a_tampered_chain_is_not_backed_up(tmp_path: Path, path: Path) -> None:
    with _intruder(path) as db:
        db.execute("UPDATE chain SET kind = 'other' WHERE seq = 3")
    with closing(Chain(path, SECRET, "book")) as chain, pytest.raises(LedgerTampered, match="row 3"):
        chain.backup(tmp_path / "backup.sqlite")
    assert not (tmp_path / "backup.sqlite").exists()


def _in_child(work: Callable[[], None]) -> int:
    """Exit code of a forked process: 0 when the work came to its end, 1 when it raised."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("limit", [0, 20, 100, 3000, 4200, 9000, 13000])
def test_a_full_disk_is_named_and_nothing_is_half_written(path: Path, limit: int) -> None:
    """The limit on file size stands for a full disk: SQLite gets the same errors, at any point of its writing."""

    def write() -> None:
        with Chain.open(path, SECRET, "book") as chain:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with pytest.raises(LedgerUnwritable, match=r"book\.sqlite cannot be used .* free some space"):
                _append(chain, *({"i": i, "text": "x" * 4000} for i in range(5)))
            assert chain.head().seq == ROWS

    assert _in_child(write) == 0
    assert _verify(path) == []
    with Chain.open(path, SECRET, "book") as chain:
        assert chain.head().seq == ROWS
        _fill(chain, 1)
    assert _verify(path) == []


def test_creation_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def create() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        with pytest.raises(LedgerUnwritable):
            Chain.create(tmp_path / "book.sqlite", SECRET, "book", {})

    assert _in_child(create) == 0
    assert list(tmp_path.iterdir()) == []


def _stop_early(rows: Iterator[Row]) -> None:
    for row in rows:
        if row.seq in (2, 4):
            return


def _interrupted(line: int, call: Callable[[], object]) -> tuple[bool, bool]:
    """Raise KeyboardInterrupt at that line of a call, counted as Python executes them, as a signal would. Whether the
    call has so many, and whether the interrupt reached the caller."""
    seen = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal seen
        seen += event == "line"
        if event == "line" and seen == line:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True, True
    finally:
        sys.settrace(before)
    return seen >= line, False


@pytest.mark.parametrize(
    "ask", [Chain.head, lambda chain: _stop_early(chain.rows()), lambda chain: _stop_early(chain.backwards())]
)
def test_an_interrupt_is_never_swallowed(
    path: Path, ask: Callable[[Chain], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python prints and forgets what is raised while the garbage collector closes a generator that was left early."""
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: ignored.append(told.object))
    with Chain.open(path, SECRET, "book") as chain:
        for line in range(1, 1000):
            there, reached = _interrupted(line, lambda: ask(chain))
            assert reached == there, f"swallowed at line {line}: {ignored}"
            if not there:
                break
    assert 20 < line < 999
    assert ignored == []
