"""The check that waits for a GPU runs: at tiny sizes on the processor, and says in a sentence where there is none."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.benchmarks import device_check
from tests.benchmarks.device_check import Measured


def test_at_tiny_sizes_it_measures_every_mode_and_finds_every_step_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "check.json"
    monkeypatch.setattr(sys, "argv", ["device_check", "--device", "cpu", "--small", "--out", str(out)])
    assert device_check.main() == 0
    told = json.loads(out.read_text())
    assert told["problems"] == []
    rows = [Measured(**row) for row in told["rows"]]
    assert len(rows) == 2 * 2 * len(device_check.MODES) + 1
    assert {row.mode for row in rows if row.failure} <= {"Opacus hooks", "Opacus ghost", "vmap, gradients alone"}
    for row in rows:
        if row.mode in ("private", "one at a time"):
            assert row.apart is not None
            assert row.apart <= device_check.CLOSE[row.precision]
            assert device_check.wrong([replace(row, apart=0.5)]) != []
            assert device_check.wrong([replace(row, apart=float("nan"))]) != []
        assert row.failure or (row.images_a_second or 0) > 0
    assert "images/s" in capsys.readouterr().out


def test_without_the_device_it_says_so_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    out = tmp_path / "check.json"
    monkeypatch.setattr(sys, "argv", ["device_check", "--out", str(out)])
    assert device_check.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Nothing was measured: device cuda:0: ")
    assert not out.exists()
