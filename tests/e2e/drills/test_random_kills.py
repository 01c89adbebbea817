"""kill -9 of whatever runs at that moment, on both sides, thirty times: studies end, and the books are in order.

Some kills follow each other at once, others wait until the study has gone on. Whoever is killed is started again by its
supervisor; the supervisors themselves by the drill, as a container engine would.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.deployment.federation import Federation, Hospital, Process, federation, server_command, until
from tests.e2e.deployment.ledger_rows import problems_in_records, reservations_lost
from tests.e2e.drills.drill import FAST, PATIENT_S, SEEN, Seen, check_records, children, kill

KILLS = int(os.environ.get("CONSILIUM_KILLS", "30"))
ROUNDS = 15
LONG = "training.steps=40"
PATIENT = "federation.attempts=10"
_BURST_S, _LONGEST_S = 4.0, 45.0

Kill = Callable[[Federation, random.Random], bool]


def _kill(pid: int | None) -> bool:
    """Whether there was such a process to kill."""
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        kill(pid)
        return True
    return False


def _program(name: str) -> Kill:
    return lambda made, _: _kill(made.pid(name))


def _child_of(name: str) -> Kill:
    """A process that plays a study."""
    return lambda made, chance: _kill(chance.choice(children(made.pid(name) or 0) or [None]))


def _part(name: str) -> Kill:
    return lambda made, chance: _kill(chance.choice(made.hospitals).pid(name))


def _client_app(made: Federation, chance: random.Random) -> bool:
    return _kill(chance.choice(children(chance.choice(made.hospitals).pid("trainer") or 0) or [None]))


def _up(made: Federation, chance: random.Random) -> bool:
    assert made.server is not None
    made.server.kill()
    time.sleep(chance.uniform(0.5, 4))
    made.server = Process(server_command("up", "--home", made.home), made.folder / "up.log")
    return True


def _run(made: Federation, chance: random.Random) -> bool:
    hospital: Hospital = chance.choice(made.hospitals)
    assert hospital.process is not None
    hospital.process.kill()
    time.sleep(chance.uniform(0.5, 4))
    hospital.start()
    return True


VICTIMS: dict[str, Kill] = {
    **{name: _program(name) for name in ("superlink", "studies", "nginx", "mlflow")},
    **{name: _part(name) for name in ("gateway", "trainer")},
    "ServerApp": _child_of("studies"),
    "ClientApp": _client_app,
    "up": _up,
    "run": _run,
}


@pytest.mark.parametrize("seed", [1, 2])
def test_thirty_random_kills(tmp_path: Path, seed: int) -> None:
    chance, killed, ended = random.Random(seed), Counter[str](), dict[str, int]()
    started = time.monotonic()
    with federation(tmp_path, rounds=ROUNDS, settings=(*FAST, LONG)) as made:
        for number in range(100):
            study = made.study(f"seed={1000 * seed + number}", PATIENT)
            until(partial(_is_newest, made, 1000 * seed + number), PATIENT_S, "the study has a folder")
            before = killed.total()
            while killed.total() < KILLS and study.running():
                _kill_one(made, chance, killed)
            assert study.wait(2 * PATIENT_S) == 0, f"{killed}\n{study.text()[-4000:]}"
            name = str(made.facts()["study"])
            assert [one["number"] for one in made.rounds()] == list(range(1, ROUNDS + 1))
            ended[name] = killed.total() - before
            if killed.total() >= KILLS:
                break
        for name in ended:
            for hospital in made.hospitals:
                check_records(hospital, name)
        lost = sum(reservations_lost(hospital) for hospital in made.hospitals)
        assert [problem for hospital in made.hospitals for problem in problems_in_records(hospital)] == []
    seconds = time.monotonic() - started
    how = f"{len(ended)} studies, {lost} reservations lost and charged; " + ", ".join(
        f"{name} {number}" for name, number in sorted(killed.items())
    )
    SEEN.append(Seen(f"{killed.total()} random kills, seed {seed}", 0.0, seconds, how))
    assert killed.total() == KILLS
    assert len(killed) >= 6, "of both sides"


def _is_newest(made: Federation, seed: int) -> bool:
    return bool(made.facts().get("config", {}).get("seed") == seed)


def _kill_one(made: Federation, chance: random.Random, killed: Counter[str]) -> None:
    """Kill something, and wait: a moment, or until another round is committed."""
    rounds = len(made.rounds())
    name = chance.choice(sorted(VICTIMS))
    if not VICTIMS[name](made, chance):
        time.sleep(0.2)
        return
    killed[name] += 1
    if chance.random() < 0.4:
        time.sleep(chance.uniform(0.2, _BURST_S))
        return
    ends = time.monotonic() + _LONGEST_S
    while len(made.rounds()) == rounds and time.monotonic() < ends:
        time.sleep(0.2)
    time.sleep(chance.uniform(0, 1))  # anywhere in the next round
