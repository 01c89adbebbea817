"""Logs stay small and private, and nothing that was written is lost between a log and its older ones."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.machine import logs
from tasks.machine.logs import Output, append, keep_newest, outgrown, set_aside, size_of


def test_a_log_is_set_aside_before_it_grows_too_large(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for number in range(100):
        append(log, f"line {number:03}\n".encode(), 90, older=2)
        assert size_of(tmp_path) <= 3 * 90
    kept = [path.read_text() for path in (tmp_path / "a.log.2", tmp_path / "a.log.1", log)]
    assert "".join(kept) == "".join(f"line {number:03}\n" for number in range(70, 100))
    assert {path.name for path in tmp_path.iterdir()} == {"a.log", "a.log.1", "a.log.2"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_what_others_could_read_is_closed_to_them_when_it_is_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old")
    log.chmod(0o644)
    set_aside(log)
    assert stat.S_IMODE((tmp_path / "a.log.1").stat().st_mode) == 0o600
    assert log.read_bytes() == b""


def test_several_processes_lose_no_line(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from tasks.machine.logs import append
for number in range(300):
    append(Path(sys.argv[1]), f"{sys.argv[2]} {number}\\n".encode(), 1000, older=50)
"""
    words = [sys.executable, "-c", program, str(tmp_path / "a.log")]
    ended = [subprocess.Popen([*words, name]) for name in "pqr"]
    assert [process.wait(60) for process in ended] == [0, 0, 0]
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name} {number}" for name in "pqr" for number in range(300))


def test_what_is_no_ordinary_file_is_written_to_and_stays(tmp_path: Path) -> None:
    real, link = tmp_path / "real.log", tmp_path / "link.log"
    link.symlink_to(real)
    for _ in range(3):
        append(link, b"0123456789", 10)
        append(Path("/dev/null"), b"0123456789", 10)
    assert (link.is_symlink(), real.read_bytes()) == (True, b"0123456789" * 3)


def test_what_a_program_prints_is_kept_whole(tmp_path: Path) -> None:
    log = tmp_path / "new" / "a.log"
    read_end, write_end = os.pipe()
    program = "for n in range(2000): print(n, flush=True)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=write_end):
        os.close(write_end)
        # A pipe is read in pieces of any size. Two neighbouring files hold more than 4,500 bytes together, however
        # the pieces fall, so four files take the 8,890 that are printed.
        Output(log, 4500).take_all(read_end)
    kept = [log, *(log.with_name(f"a.log.{number}") for number in (1, 2, 3))]
    text = "".join(path.read_text() for path in reversed(kept) if path.exists())
    assert text.split() == [str(number) for number in range(2000)]


def test_a_full_disk_holds_nobody_up_and_is_told_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, full = tmp_path / "a.log", [True]
    real = logs.append

    def appended(path: Path, content: bytes, most_bytes: int) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        real(path, content, most_bytes)

    monkeypatch.setattr(logs, "append", appended)
    output = Output(log, 1000)
    output._take(b"lost\n")
    output._take(b"lost too\n")
    full[0] = False
    output._take(b"kept\n")
    output._take(b"also\n")
    assert log.read_text() == "[14 bytes of output are missing here: No space left on device]\nkept\nalso\n"


def test_of_many_logs_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"run-{number}.log"
        path.write_text("x")
        os.utime(path, (number, number))
    keep_newest(tmp_path, "run-*.log", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-3.log", "run-4.log"]
    keep_newest(tmp_path, "run-*.log", 2)
    assert (outgrown(tmp_path / "run-3.log", 0), outgrown(tmp_path / "none", 0)) == (True, False)


def test_a_log_that_is_still_written_stays_however_old_and_takes_its_older_ones_along(tmp_path: Path) -> None:
    for number in range(6):
        for name in (f"run-{number}.log", f"run-{number}.log.1", f"run-{number}.log.2"):
            (tmp_path / name).write_text("x")
            os.utime(tmp_path / name, (number, number))
    assert keep_newest(tmp_path, "run-*.log", 3, {"run-0.log", "run-1.log"}) == ["run-2.log", "run-3.log", "run-4.log"]
    left = {path.name.split(".")[0] for path in tmp_path.iterdir()}
    assert (left, sum(1 for _ in tmp_path.iterdir())) == ({"run-0", "run-1", "run-5"}, 9)
