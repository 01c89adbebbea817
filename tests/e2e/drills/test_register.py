"""One register: what the SuperLink has lost is mended, and who is revoked leaves, is told, and starts no more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.cli import link
from server.cli import people
from tests.e2e.deployment.federation import Federation, Hospital, federation, server_command, told, until
from tests.e2e.drills.drill import FAST, SEEN, Seen, restarts, study
from tests.e2e.drills.test_healing import online, run_log

ROUNDS = 10


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two hospitals, and studies that last for a while."""
    with federation(tmp_path_factory.mktemp("register"), rounds=ROUNDS, settings=FAST) as made:
        yield made


def enrolled_anew(federation: Federation, hospital: Hospital) -> Path:
    """A request with a new key, which nobody has admitted."""
    hospital.stop()
    (hospital.link / "node.key").unlink()
    request = federation.folder / f"{hospital.name}.request.json"
    link.enroll(invitation=federation.home / "invitation.json", out=request, site=hospital.site)
    return request


def test_the_superlinks_database_is_lost(long: Federation) -> None:
    before = {name: one["key"] for name, one in long.status()["hospitals"].items()}
    with study(long, after=1, rounds=ROUNDS) as running:
        running.break_now()
        assert long.server is not None
        long.server.end()
        for path in (long.home / "superlink").glob("state.db*"):
            path.unlink()
        long.up()
        noticed = running.noticed(lambda: online(long), "both hospitals are back")
        SEEN.append(Seen("SuperLink's database lost", noticed, running.recovered(), "all are registered again"))
    assert {name: one["key"] for name, one in long.status()["hospitals"].items()} == before
    said = told(server_command("admit", long.folder / "alder.request.json", "--home", long.home))
    assert "nothing has changed" in said


def held(hospital: Hospital) -> str:
    """Why the gateway does not run."""
    try:
        gateway = json.loads((hospital.link / "both.json").read_text())["gateway"]
        return str(gateway.get("held", "")) if gateway["pid"] is None else ""
    except (OSError, ValueError, KeyError):
        return ""


@pytest.mark.parametrize("down", [False, True], ids=["while the server runs", "while it is down"])
def test_a_hospital_revoked_in_mid_study_leaves_it_and_stops(long: Federation, down: bool) -> None:
    birch = long.hospitals[1]
    until(lambda: online(long), 120, "both hospitals are there")
    before = run_log(birch).count("has revoked this hospital")
    with study(long, after=2, rounds=ROUNDS) as running:
        running.break_now()
        assert long.server is not None
        if down:
            long.server.end()
        told(server_command("revoke", "birch", "--home", long.home))
        if down:
            long.up()
        noticed = running.noticed(lambda: held(birch), "birch's gateway has stopped")
        assert "has revoked this hospital" in held(birch)
        SEEN.append(Seen(f"hospital revoked, server down: {down}", noticed, running.recovered(), "study goes on"))
        if not down:  # and after a restart it goes on as well
            long.server.end()
            long.up()
    last = long.rounds()[-1]
    assert sorted(last["hospitals"]) == ["alder"]
    assert long.facts()["left"] == ["birch"]
    assert run_log(birch).count("has revoked this hospital") == before + 1, "once, in one sentence"
    starts = restarts(birch.link / "both.json", "gateway")
    time.sleep(40)
    assert restarts(birch.link / "both.json", "gateway") == starts

    request = enrolled_anew(long, birch)
    birch.start()
    until(lambda: "has not admitted this hospital" in held(birch), 120, "one that was never admitted is told")
    people.admit(request, home=long.home)
    until(lambda: online(long), 180, "once it is admitted, it starts by itself")
