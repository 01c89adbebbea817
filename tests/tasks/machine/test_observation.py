"""A look that fails ends nothing; what is wrong for a moment only is nobody's concern."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tasks.machine import observation
from tasks.machine.exposition import Figure
from tasks.machine.notices import Hook, Notice, Notifier
from tasks.machine.observation import Lasting, Observed, Observer, ending, nearly_full
from tests.tasks.machine.test_exposition import free_port


def until(holds: Callable[[], object]) -> None:
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_what_cannot_be_seen_is_told_once_and_the_last_figures_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observation, "EVERY_S", 0.02)
    looked, said, port = list[int](), list[str](), free_port()

    def look() -> Observed:
        looked.append(1)
        if len(looked) > 1:
            raise OSError("no such disk")
        return Observed([Figure("c_number", "A number", 5.0)], [Notice("disk", "x", 1, "full")])

    notifier = Notifier(Hook(command=["true"]), "s", tmp_path / "kept.json", said.append)
    observer = Observer(look, f"127.0.0.1:{port}", notifier, said.append)
    observer.start()
    until(lambda: len(looked) > 5)
    assert "c_number 5.0" in httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert said == [f"metrics for Prometheus: http://127.0.0.1:{port}/metrics", "look: OSError: no such disk"]
    taken = Observer(Observed, f"127.0.0.1:{port}", None, said.append)
    taken.start()
    until(lambda: len(said) == 3)
    assert "metrics: OSError" in said[2]
    observer.stop()
    until(lambda: f"metrics for Prometheus: http://127.0.0.1:{port}/metrics" in said[3:])
    taken.stop()


def test_only_what_lasts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(observation.time, "monotonic", lambda: now[0])
    lasting, found = Lasting(), list[bool]()
    for at, wrong in ((0, True), (200, True), (250, False), (260, True), (500, True), (560, True)):
        now[0] = float(at)
        found.append(lasting.holds("alder", wrong))
    assert found == [False, False, False, False, False, True]


def test_a_disk_is_told_by_how_little_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [50]
    monkeypatch.setattr(observation.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 0, free[0]))
    folders = {"ledger": tmp_path, "same": tmp_path, "none": tmp_path / "none"}
    levels = []
    for free[0] in (150, 99, 49, 24):
        levels.append([one.level for one in nearly_full(folders, 10.0)])
    assert levels == [[], [1], [2], [3]]


def test_a_certificate_is_told_by_how_few_days_are_left() -> None:
    levels = [[one.level for one in ending("server", days, "it", "renew")] for days in (31, 29.9, 13, 0.5, -1)]
    assert levels == [[], [1], [2], [5], [6]]
    assert [one.text for one in ending("server", -1, "it", "renew")] == ["it has ended: renew"]
