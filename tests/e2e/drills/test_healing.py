"""Nobody stays deaf: what is not heard starts again by itself, says so, and says why."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.deployment.federation import CALM, Federation, Hospital, federation, site_command, told, until
from tests.e2e.drills.drill import FAST, SEEN, Seen, everything, kill, restarts, study
from tests.e2e.drills.test_ground import fill, small_disk

FULL_S, BACK_S = 75.0, 90.0
ROUNDS = 12


def online(federation: Federation) -> bool:
    """Whether all hospitals are there; asked at intervals, which leave the processor to those that are waited for."""
    if {one["state"] for one in federation.status()["hospitals"].values()} == {"online"}:
        return True
    time.sleep(1)
    return False


def healthy(hospital: Hospital) -> bool:
    words = site_command("run", "--healthy", "--site", hospital.site)
    return subprocess.run(words, env=os.environ | CALM, capture_output=True, timeout=120).returncode == 0


def run_log(hospital: Hospital) -> str:
    return (hospital.site.parent / f"{hospital.name}.run.log").read_text("utf-8", "replace")


def _deaf(federation: Federation) -> list[int]:
    """How often each gateway has said that it is not heard."""
    return [run_log(hospital).count("not heard by the server for 60 s") for hospital in federation.hospitals]


def test_the_whole_disk_of_the_server_is_full_in_mid_study(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with small_disk(home, "160m"), federation(tmp_path, rounds=ROUNDS, settings=FAST) as made:
        with study(made, after=1, rounds=ROUNDS) as running:
            running.break_now()
            filler = fill(home)
            time.sleep(FULL_S)
            filler.unlink()
            room = time.monotonic()
            until(lambda: online(made), BACK_S, "every hospital is back")
            back = time.monotonic() - room
            recovered = running.recovered()
        SEEN.append(Seen(f"server's whole disk full for {FULL_S:g} s", back, recovered, "no hand was needed"))
        until(lambda: all(healthy(hospital) for hospital in made.hospitals), BACK_S, "all say that they are well")


@pytest.mark.parametrize("program", ["superlink", "nginx"])
def test_a_gateway_that_is_not_heard_starts_again_and_says_why(drilled: Federation, program: str) -> None:
    before = _deaf(drilled)
    with study(drilled, after=1) as running:
        running.break_now()
        pid = drilled.pid(program)
        assert pid is not None
        for one in everything(pid):
            os.kill(one, signal.SIGSTOP)  # the supervisor kills it after a minute without an answer
        noticed = running.noticed(
            lambda: all(now > then for now, then in zip(_deaf(drilled), before, strict=True)), "both gateways say so"
        )
        until(lambda: online(drilled), 180, "every hospital is back")
        SEEN.append(Seen(f"{program} hangs", noticed, running.recovered(), "gateways and program start again"))
    assert "a heartbeat was not acknowledged: " in drilled.hospitals[0].log("gateway")


def test_a_trainer_that_is_stopped_is_not_well_and_is_replaced(drilled: Federation) -> None:
    hospital = drilled.hospitals[0]
    until(lambda: healthy(hospital), 120, "the hospital is well")
    state, before = hospital.link / "both.json", restarts(hospital.link / "both.json", "trainer")
    with study(drilled, after=1) as running:
        running.break_now()
        kill(hospital.pid("trainer"), signal.SIGSTOP)
        noticed = running.noticed(lambda: not healthy(hospital), "the health check says so")
        assert "not well" in told(site_command("status", "--site", hospital.site))
        until(lambda: restarts(state, "trainer") > before, 180, "another trainer takes over")
        SEEN.append(Seen("trainer is stopped", noticed, running.recovered(), "replaced after a minute"))
    until(lambda: healthy(hospital), 120, "the hospital is well again")
