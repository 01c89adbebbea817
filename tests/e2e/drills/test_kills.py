"""kill -9, one program after the other, at random moments of a study."""

from __future__ import annotations

import os
import time

import pytest

from tests.e2e.deployment.federation import Federation, until
from tests.e2e.drills.drill import SEEN, Seen, children, kill, restarts, study

REPEATS = int(os.environ.get("CONSILIUM_REPEATS", "1"))
AGAIN = range(REPEATS)


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("program", ["superlink", "nginx", "mlflow", "studies"])
def test_a_program_of_the_server_is_killed(drilled: Federation, program: str, again: int) -> None:
    with study(drilled) as running:
        state, before = drilled.home / "up.json", restarts(drilled.home / "up.json", program)
        running.break_now()
        kill(drilled.pid(program))
        noticed = running.noticed(lambda: restarts(state, program) > before, f"{program} is started again")
        SEEN.append(Seen(f"kill -9 {program}", noticed, running.recovered(), "started again by consilium-server up"))
    until(drilled.well, 120, "the server is well again")


@pytest.mark.parametrize("again", AGAIN)
def test_the_process_that_plays_the_study_is_killed(drilled: Federation, again: int) -> None:
    with study(drilled, after=1) as running:
        superexec = drilled.pid("studies")
        assert superexec is not None
        run = drilled.facts()["run"]
        playing = children(superexec)
        assert playing
        running.break_now()
        kill(playing[-1])
        noticed = running.noticed(lambda: drilled.facts()["run"] != run, "another run goes on with the study")
        SEEN.append(
            Seen("kill -9 ServerApp", noticed, running.recovered(), "submitted again, goes on after the last round")
        )


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("part", ["gateway", "trainer"])
def test_a_part_of_a_hospital_is_killed(drilled: Federation, part: str, again: int) -> None:
    hospital = drilled.hospitals[0]
    with study(drilled) as running:
        state = hospital.link / "both.json"
        before = restarts(state, part)
        running.break_now()
        kill(hospital.pid(part))
        noticed = running.noticed(lambda: restarts(state, part) > before, f"{part} is started again")
        SEEN.append(
            Seen(f"kill -9 {part} of one hospital", noticed, running.recovered(), "started again at the hospital")
        )


@pytest.mark.parametrize("again", AGAIN)
def test_the_process_that_trains_is_killed(drilled: Federation, again: int) -> None:
    hospital = drilled.hospitals[1]
    with study(drilled, "training.steps=400", after=0) as running:
        trainer = hospital.pid("trainer")
        assert trainer is not None
        until(lambda: children(trainer), 120, "an order is being answered")
        time.sleep(1)  # one that dies within milliseconds of its birth is noticed by Flower only, after a minute
        running.break_now()
        kill(children(trainer)[0])
        noticed = running.noticed(lambda: "ended with -9" in hospital.log("trainer"), "the trainer says so")
        SEEN.append(Seen("kill -9 ClientApp", noticed, running.recovered(), "trainer answers for it with an error"))
    dropped = drilled.rounds()[0]["dropped"]
    assert dropped == {} or "train: its client failed" in dropped[hospital.name]


@pytest.mark.parametrize("again", AGAIN)
def test_the_whole_server_is_killed(drilled: Federation, again: int) -> None:
    with study(drilled, after=1) as running:
        assert drilled.server is not None
        running.break_now()
        drilled.server.kill()
        drilled.up()
        SEEN.append(Seen("kill -9 consilium-server up, then up", 0.0, running.recovered(), "by whoever starts it"))
