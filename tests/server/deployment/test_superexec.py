"""Runs that die before they have a study."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from server.deployment import pki
from server.deployment.server_dir import ServerDir, ServerSettings, make
from server.deployment.superexec import SuperExec, _Playing


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    made = make(tmp_path / "home", ServerSettings(host="localhost", superlink_port=1))  # nobody listens there
    pki.create_authority(made)
    return made


def ended(run: int, code: int) -> _Playing:
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait(60)
    return _Playing(run, process)


def test_who_asked_for_a_run_that_died_before_it_had_a_study_is_told(home: ServerDir) -> None:
    superexec = SuperExec(home)
    superexec._playing.append(ended(7, 2))
    superexec._reap()
    error = json.loads((home.runs / "7.json").read_text("utf-8"))["error"]
    assert "code 2" in error
    assert "run-7.log" in error
    assert superexec._playing == []


def test_a_run_that_has_named_its_study_keeps_it(home: ServerDir) -> None:
    superexec = SuperExec(home)
    (home.runs / "8.json").write_text('{"study": "busi-1"}', "utf-8")
    superexec._playing += [ended(8, 1), ended(9, 0)]
    superexec._reap()
    assert json.loads((home.runs / "8.json").read_text("utf-8")) == {"study": "busi-1"}
    assert not (home.runs / "9.json").exists(), "it ended well"
