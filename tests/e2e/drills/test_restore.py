"""The server's machine is lost in mid-study: a server that is restored elsewhere goes on, and hospitals do nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deployment.federation import Federation, federation, server_command, told
from tests.e2e.drills.drill import FAST, SEEN, Seen, kill_everything, progress, study
from tests.e2e.drills.test_healing import online

ROUNDS = 8


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with federation(tmp_path_factory.mktemp("restore"), rounds=ROUNDS, settings=FAST) as made:
        yield made


def test_a_server_that_is_restored_elsewhere_goes_on(lost: Federation, tmp_path: Path) -> None:
    copy, elsewhere = tmp_path / "backup", tmp_path / "another-machine" / "home"
    before = {name: one["key"] for name, one in lost.status()["hospitals"].items()}
    with study(lost, after=2, rounds=ROUNDS) as running:
        started = time.monotonic()
        told(server_command("backup", copy, "--home", lost.home))
        took = time.monotonic() - started
        kept = next(iter(progress(lost).values()))[1]
        running.break_now()
        kill_everything(lost)
        lost.home.rename(tmp_path / "lost-with-its-machine")
        elsewhere.parent.mkdir()
        told(server_command("restore", copy, "--home", elsewhere))
        lost.home = elsewhere
        lost.up()
        assert len(lost.rounds()) >= kept - 1
        noticed = running.noticed(lambda: online(lost), "both hospitals are back", 180)
        how = f"backup took {took:.1f} s while a study ran"
        SEEN.append(Seen("server lost, restored elsewhere", noticed, running.recovered(), how))
    assert {name: one["key"] for name, one in lost.status()["hospitals"].items()} == before
    said = told(server_command("security", "--home", elsewhere), code=0)
    assert "failed" not in said.splitlines()[-1]
