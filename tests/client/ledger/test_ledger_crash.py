"""A process that works with the ledger is killed, hundreds of times: at random moments, and at every single line.

What a child has announced, only after the call had returned, must be in the ledger; the chain must verify. SIGKILL
cannot be caught. It leaves what the kernel already holds, so this does not stand for a power cut: against that a real
hospital's ledger relies on SQLite's ``synchronous=FULL`` (``Outlives``).

Children are forks of a clean process (``tests/forks.py``): a fork of pytest takes many times as long.
"""

import hashlib
import itertools
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from client.errors import LedgerMissing
from client.ledger.account import Account, Use
from client.ledger.accounting import Mechanism
from client.ledger.audit_log import AuditLog, Receipt
from client.ledger.database import Outlives
from client.ledger.ledger import Caps, Ledger, Planned
from client.ledger.records import create_records, open_records, replace_lost_audit_log
from tests.client.reserving import reserve
from tests.forks import FORKS

SECRET = bytes(range(32))
STEP = Mechanism(4.0, 1.0, 1)
NO_CAPS = Caps(math.inf, math.inf, 1e-5)
KILLS = 200
OURS = str(Path(sys.modules["client.ledger.ledger"].__file__ or "").parent)

Announce = Callable[[str], None]


def _plan(account: Account) -> Planned:
    return Planned(STEP)


def _use(number: int) -> Use:
    return Use("chest/train", "s1", number, hashlib.sha256(b"%d" % number).hexdigest())


def _reply(number: int) -> bytes:
    return hashlib.sha256(b"reply %d" % number).digest() * 400


@pytest.fixture
def folder() -> Iterator[Path]:
    """On a file system in memory where there is one: SIGKILL leaves the same there, and nobody waits for a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@dataclass(frozen=True)
class _Child:
    process: BaseProcess
    pipe: Connection

    def killed_after(self, announcements: int, seconds: float) -> list[str]:
        """Kill it some time after it has announced so much. Returns everything that it announced."""
        heard = list(itertools.islice(self.announced(), announcements))
        time.sleep(seconds)
        self.process.kill()
        heard += self.announced()
        assert self.end() == -signal.SIGKILL
        return heard

    def announced(self) -> Iterator[str]:
        """What it announces until it ends, as it comes."""
        with suppress(EOFError):
            while True:
                yield self.pipe.recv_bytes().decode()

    def end(self) -> int | None:
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


def _fork(work: Callable[[Announce], None]) -> _Child:
    reading, writing = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_announcing, args=(work, writing))
    process.start()
    writing.close()
    return _Child(process, reading)


def _announcing(work: Callable[[Announce], None], pipe: Connection) -> None:
    work(lambda text: pipe.send_bytes(text.encode()))


def _numbers(what: str, said: Iterable[str]) -> set[int]:
    return {int(number) for name, number in (line.split() for line in said) if name == what}


def _work(path: Path, first: int, outlives: Outlives, announce: Announce) -> None:
    """Reserve and commit one order after the other, for ever."""
    with Ledger.open(path, SECRET, outlives=outlives) as ledger:
        announce("open 0")
        for number in itertools.count(first):
            reserve(ledger, _use(number), _plan, NO_CAPS)
            announce(f"reserved {number}")
            ledger.commit(_use(number), _reply(number))
            announce(f"committed {number}")


@pytest.mark.parametrize("outlives", Outlives)
@pytest.mark.parametrize("seed", range(KILLS // 100))
def test_nothing_announced_is_lost_when_the_process_is_killed_at_random(
    folder: Path, seed: int, outlives: Outlives
) -> None:
    path = folder / "ledger"
    Ledger.create(path, SECRET).__exit__()
    chance, reserved, open_at_the_end = random.Random(seed), set[int](), 0
    for _ in range(50):
        child = _fork(partial(_work, path, max(reserved, default=0) + 1, outlives))
        said = child.killed_after(chance.randrange(1, 10), chance.uniform(0, 0.003))
        reserved |= _numbers("reserved", said)
        committed = max(_numbers("committed", said), default=0)
        with Ledger.open(path, SECRET) as ledger:
            entries = ledger.entries()
            assert {entry.use.round for entry in entries} >= reserved
            newest = max((e.use.round for e in entries if e.committed is not None), default=0)
            assert newest >= committed
            assert ledger.stored_reply(_use(newest)) == (_reply(newest) if newest else None)
            assert ledger.verify() == []
            reserved = {entry.use.round for entry in entries}
            open_at_the_end += entries[-1].committed is None if entries else 0
    assert len(reserved) > 50  # it did work between the kills
    assert open_at_the_end > 5  # and was killed within orders, too


class _KillAtLine:
    """A tracer that ends its own process at the n-th line of the hospital's code, counted from a function on.

    Pure functions are left out: no file changes while they run.
    """

    def __init__(self, line: int, since: str) -> None:
        self.left, self.since, self.begun = line, since, False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> "_KillAtLine | None":
        code = frame.f_code
        if not code.co_filename.startswith(OURS) or code.co_filename.endswith("links.py") or code.co_name[0] == "<":
            return None
        self.begun = self.begun or code.co_name == self.since
        if event == "line" and self.begun:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def _killed_at_lines(
    prepare: Callable[[int], Path], work: Callable[..., None], since: str, step: int = 1
) -> Iterator[tuple[Path, set[str]]]:
    """Run ``work(folder, announce)`` once for each line of ours that it executes, killed there; what each run left.

    Args:
        since: the function from which on lines count.
        step: only every so many lines.
    """
    for line in itertools.count(1, step):
        place = prepare(line)
        child = _fork(partial(_traced, work, _KillAtLine(line, since), place))
        said = set(child.announced())
        code = child.end()
        yield place, said
        if code == 0:
            assert line > 50
            return
        assert code == -signal.SIGKILL


def _traced(work: Callable[..., None], tracer: _KillAtLine, place: Path, announce: Announce) -> None:
    sys.settrace(tracer)
    work(place, announce)
    sys.settrace(None)


@pytest.fixture
def template(folder: Path) -> Path:
    """Ledger and audit log in which one order is answered and another lost."""
    template = folder / "template"
    create_records(template / "ledger", template / "audit_log", SECRET)
    with open_records(template / "ledger", template / "audit_log", SECRET) as records:
        reserve(records.ledger, _use(1), _plan, NO_CAPS)
        records.ledger.commit(_use(1), _reply(1))
        reserve(records.ledger, _use(2), _plan, NO_CAPS)
    return template


def _receipt(ledger: Ledger, number: int) -> Receipt:
    reply = _reply(number)
    sha256 = hashlib.sha256(reply).hexdigest()
    return Receipt("s1", number, "TrainReport", "chest/train", len(reply), sha256, {}, 1.0, 0.5, 0.6, ledger.head())


def _order(place: Path, announce: Announce) -> None:
    with open_records(place / "ledger", place / "audit_log", SECRET) as records:
        reserve(records.ledger, _use(3), _plan, NO_CAPS)
        announce("reserved 3")
        records.ledger.commit(_use(3), _reply(3))
        announce("committed 3")
        records.audit_log.append_receipt(_receipt(records.ledger, 3))
        announce("receipt 3")


def _create(place: Path, announce: Announce) -> None:
    create_records(place / "ledger", place / "audit_log", SECRET)


def _replace(place: Path, announce: Announce) -> None:
    replace_lost_audit_log(place / "ledger", place / "audit_log", SECRET)


def _back_up(place: Path, announce: Announce) -> None:
    with Ledger.open(place / "ledger", SECRET) as ledger:
        ledger.backup(place / "backup")


def _write_receipts(path: Path, receipt: Receipt, announce: Announce) -> None:
    with AuditLog.open(path, SECRET) as audit_log:
        while True:
            announce(f"receipt {audit_log.append_receipt(receipt).seq}")


def test_killed_at_every_line_of_an_order_nothing_announced_is_lost(template: Path, folder: Path) -> None:
    """From planning to receipt: whichever line is the last, the records belong together and count enough."""

    def prepare(line: int) -> Path:
        return Path(shutil.copytree(template, folder / str(line)))

    outcomes = set()
    for place, said in _killed_at_lines(prepare, _order, "planning"):
        with open_records(place / "ledger", place / "audit_log", SECRET) as records:
            assert records.verify() == []
            rounds = [entry.use.round for entry in records.ledger.entries()]
            stored = records.ledger.stored_reply(_use(3))
            receipts = len(records.audit_log.receipts())
            assert rounds[:2] == [1, 2]
            assert rounds.count(3) == 1 or "reserved 3" not in said
            assert stored == _reply(3) or "committed 3" not in said
            assert receipts == 1 or "receipt 3" not in said
            assert (stored is None) == (records.ledger.stored_reply(_use(1)) == _reply(1))
            assert len(records.without_receipt()) == 1 + (stored is not None) - receipts
            if stored is None:  # asked again, it is done again and paid again
                reserve(records.ledger, _use(3), _plan, NO_CAPS)
                records.ledger.commit(_use(3), _reply(3))
                assert len(records.ledger.spent("chest/train", "s1")) == len(rounds) + 1
            outcomes.add((rounds.count(3), stored is not None, receipts))
    assert outcomes == {(0, False, 0), (1, False, 0), (1, True, 0), (1, True, 1)}


def test_killed_while_making_the_records_they_are_whole_or_can_be_made(folder: Path) -> None:
    def prepare(line: int) -> Path:
        (folder / str(line)).mkdir()
        return folder / str(line)

    outcomes = set()
    for place, _ in _killed_at_lines(prepare, _create, "create_records", 7):
        ledger, audit_log = place / "ledger", place / "audit_log"
        outcomes.add((ledger.exists(), audit_log.exists()))
        if not audit_log.exists():
            with pytest.raises(LedgerMissing), open_records(ledger, audit_log, SECRET):
                pass
            create_records(ledger, audit_log, SECRET)
        with open_records(ledger, audit_log, SECRET) as records:
            assert records.verify() == []
    assert outcomes == {(False, False), (True, False), (True, True)}


def test_killed_while_replacing_a_lost_audit_log_it_can_be_done_again(template: Path, folder: Path) -> None:
    def prepare(line: int) -> Path:
        place = Path(shutil.copytree(template, folder / str(line)))
        (place / "audit_log").unlink()
        return place

    for place, _ in _killed_at_lines(prepare, _replace, "replace_lost_audit_log", 9):
        replace_lost_audit_log(place / "ledger", place / "audit_log", SECRET)
        with open_records(place / "ledger", place / "audit_log", SECRET) as records:
            assert records.verify() == []
            assert len(records.ledger.spent("chest/train")) == 2


def test_killed_within_a_backup_there_is_a_whole_one_or_none(template: Path, folder: Path) -> None:
    def prepare(line: int) -> Path:
        return Path(shutil.copytree(template, folder / str(line)))

    found = set()
    for place, _ in _killed_at_lines(prepare, _back_up, "backup", 3):
        found.add((place / "backup").exists())
        if (place / "backup").exists():
            with Ledger.open(place / "backup", SECRET) as backup:
                assert backup.verify() == []
                assert len(backup.entries()) == 2
    assert found == {False, True}


def test_an_audit_log_killed_at_random_keeps_every_announced_receipt(folder: Path) -> None:
    create_records(folder / "ledger", folder / "audit_log", SECRET)
    with Ledger.open(folder / "ledger", SECRET) as ledger:
        receipt = _receipt(ledger, 1)

    write = partial(_write_receipts, folder / "audit_log", receipt)

    chance, last = random.Random(2), 0
    for _ in range(40):
        said = _fork(write).killed_after(chance.randrange(5), chance.uniform(0, 0.002))
        last = max([last, *_numbers("receipt", said)])
        with AuditLog.open(folder / "audit_log", SECRET) as audit_log:
            assert audit_log.verify() == []
            assert len(audit_log.receipts()) >= last
    assert last > 40
