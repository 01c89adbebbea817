"""A sign of life that a full disk and a wrong clock leave alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

from tasks.machine.pulse import SILENT, Pulse, Watched


def test_who_beats_is_alive_and_who_stops_is_not(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    pulse, watched = Pulse(path, least_s=0.0), Watched(path, silent_s=0.2)
    assert not watched()
    pulse.beat()
    assert watched()
    time.sleep(0.3)
    assert not watched()
    pulse.beat()
    assert watched()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_an_earlier_process_has_left_behind_is_no_life(tmp_path: Path) -> None:
    Pulse(tmp_path / "alive").beat()
    assert not Watched(tmp_path / "alive", silent_s=60)()


def test_a_clock_that_is_set_back_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    Pulse(path).beat()
    watched = Watched(path, silent_s=60)
    os.utime(path, (1.0, 1.0))
    assert watched()


def test_a_beat_that_cannot_be_given_ends_nobody(tmp_path: Path) -> None:
    Pulse(tmp_path / "no" / "folder" / "alive").beat()
    SILENT.beat()


def test_a_process_that_is_stopped_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    program = f"""
import time
from pathlib import Path
from tasks.machine.pulse import Pulse
pulse = Pulse(Path({str(path)!r}), 0.0)
while True:
    pulse.beat()
    time.sleep(0.02)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        watched, ends = Watched(path, silent_s=0.5), time.monotonic() + 60
        while not watched():
            assert time.monotonic() < ends
            time.sleep(0.02)
        process.send_signal(19)  # SIGSTOP
        time.sleep(0.2)
        watched()
        time.sleep(0.6)
        assert not watched()
    finally:
        process.kill()
        process.wait()
