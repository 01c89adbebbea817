"""What MLflow lacks of ended studies is sent by one process at a time, and again if that fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.deployment import late_results
from server.deployment.late_results import LateResults
from server.deployment.server_dir import ServerDir, ServerSettings, make


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    made = make(tmp_path / "home", ServerSettings(host="localhost", mlflow_port=9))
    for name in ("going-on", "stopped"):
        (made.path / "studies" / name).mkdir()
        (made.path / "studies" / name / "tracking.json").write_text("{}")
    return made


class Clock:
    now = 0.0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], subprocess.Popen[bytes]]]:
    """Commands and processes; each ends with code 1."""
    found: list[tuple[list[str], subprocess.Popen[bytes]]] = []
    real = subprocess.Popen

    def popen(words: list[str], **options: Any) -> subprocess.Popen[bytes]:
        process = real([sys.executable, "-c", "import sys; sys.exit(1)"])
        found.append((words, process))
        return process

    monkeypatch.setattr(late_results.subprocess, "Popen", popen)
    Clock.now = 0.0
    monkeypatch.setattr(late_results.time, "monotonic", lambda: Clock.now)
    return found


Started = list[tuple[list[str], subprocess.Popen[bytes]]]


def test_a_study_that_ended_is_sent_and_again_after_longer_pauses_if_that_fails(
    home: ServerDir, started: Started
) -> None:
    late = LateResults(home)
    late.send({"going-on"})
    assert started == [], "MLflow is starting"
    tried = []
    for second in range(0, 1200, 5):
        Clock.now = float(second)
        late.send({"going-on"})
        if len(started) > len(tried):
            tried.append(second)
            started[-1][1].wait(20)
    assert tried == [30, 155, 400, 885]
    assert started[0][0][1:] == ["-m", "server.tracking.tracker", str(home.path), "http://127.0.0.1:9"]


def test_what_goes_on_is_left_to_its_own_process(home: ServerDir, started: Started) -> None:
    late, Clock.now = LateResults(home), 1000.0
    late.send({"going-on", "stopped"})
    (home.path / "studies" / "stopped" / "tracking.json").unlink()
    late.send({"going-on"})
    assert started == []


def test_one_that_hangs_is_ended(home: ServerDir, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen
    monkeypatch.setattr(
        late_results.subprocess, "Popen", lambda *_, **__: real([sys.executable, "-c", "import time; time.sleep(600)"])
    )
    monkeypatch.setattr(late_results.time, "monotonic", lambda: Clock.now)
    Clock.now = 0.0
    late = LateResults(home)
    Clock.now = 100.0
    late.send(set())
    process = late._process
    assert process is not None
    Clock.now = 600.0
    late.send(set())
    assert process.poll() is None
    Clock.now = 701.0
    late.send(set())
    assert process.wait(20) == -9
    late.end()
